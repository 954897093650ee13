# SPDX-License-Identifier: Apache-2.0
"""The ledger on a Hyperledger Fabric channel, as a client of its peers. ``ledger`` is what others use; in its service:

profile, identity          whose peers there are, and who signs
messages, gateway          what is sent to a peer or an orderer, and the calls that send it
pauses                     waiting between attempts
batches, together, sending, journal
                           which entries share a transaction, and how each gets onto the channel exactly once
blocks, log, positions     the entries and their tree, out of the blocks that a peer hands over
refusals, differences      what a failure means, and which organisation differs
"""
