#!/bin/sh
# External builder, step 1: is this package ours? $1 the package's files, $2 the folder of metadata.json.
# "ccaas" is chaincode as a service: it runs already, and the peer only connects to it.
grep -q '"type" *: *"ccaas"' "$2/metadata.json"
