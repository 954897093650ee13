#!/bin/sh
# External builder, step 3: hand the address to the peer. $1 the output of build, $2 where the peer looks.
set -eu
mkdir -p "$2/chaincode/server"
cp "$1/connection.json" "$2/chaincode/server/connection.json"
