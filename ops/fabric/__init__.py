# SPDX-License-Identifier: Apache-2.0
"""A Hyperledger Fabric network on this machine: real peers and orderers, native processes, no containers.

Read the modules in this order; each is one step of how a Fabric network comes to be.

    build       Fabric's programs, compiled once from the pinned release (go.mod, go.sum)
    ports       free ports on the loopback interface
    plan        which organisations, nodes and ports there are: network.json
    material    keys and certificates of every organisation, by cryptogen (crypto-config.yaml)
    channel     the channel's first block (configtx.yaml) and how orderers and peers join it
    nodes       the processes and their settings (core.yaml for peers, orderer.yaml for orderers)
    builder     how a peer finds its chaincode server: the external builder (detect.sh, build.sh, release.sh)
    package     the chaincode package, which binds the contract's source
    lifecycle   install, approve, commit: the organisations agree on the contract
    processes   starting, finding and ending processes
    tools       running Fabric's command line programs
    text        Fabric's settings from the templates in this folder
    profile     what a client needs to connect: profile.json
    readiness   when it is ready: each organisation has committed a transaction that all endorsed
    existing    a network that exists, and what several commands do with it
    status      how it is
    network     all of it: up and down; and kill and start, for trials of faults
    upgrade     another version of the contract on a running channel
    joining     another organisation on a running channel
    second_reader   the channel as another client reads it (sdk_reader, a program in an environment of its own: second-reader.txt)

`operators.md` is the page of steps that `package` fills in for the operators of a network that is there already.

A network's folder is for its owner alone (mode 0700) and holds all of its state:

    network.json    the plan; profile.json    for clients; lock    held by the command that changes the network
    material/       keys and certificates; channel/    configtx.yaml and blocks; package/    chaincode packages
    nodes/NAME/     a node's settings, data, log and, while it runs, process.json
"""
