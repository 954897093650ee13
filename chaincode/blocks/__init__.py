# SPDX-License-Identifier: Apache-2.0
"""Evidence from the raw blocks of a Hyperledger Fabric channel, verified from their bytes alone (rule R7).

    reading     what one block says, and which of its signatures verify: a pure function of its bytes
    config      the channel's configuration in force: organisations, their certificates, policies
    updates     who may change it: each change signed as the configuration before it asks
    orderers    a block's signatures by those who order (Raft and BFT)
    validity    the validity of each transaction, derived anew: nobody signs the peers' flags
    contract    the contract, replayed: what a transaction writes must be what the entries in it make
    chain       all of it over a whole channel, from the pinned first block on

The first block's hash pins everything: it names the organisations' root certificates and the policies. Whatever is wrong
with hostile bytes is a finding with the block's number, or an EvidenceError; never anything else. Only this folder, the
chaincode server and the Fabric ledger need Fabric's protocol buffers.
"""
