#!/bin/sh
# External builder, step 2: write down where the chaincode server is. $1 the package's files, $2 the folder of
# metadata.json, $3 the output.
#
# The package is the same at every organisation, so that its id is, and has {{.address}} where the address belongs (and
# {{.root_cert}}, {{.client_cert}}, {{.client_key}} where TLS is asked for). Each peer's values are in server.json, in
# the folder above this script: one line of JSON, texts only.
set -eu
server="$(dirname "$0")/../server.json"
cp "$1/connection.json" "$3/connection.json"
for name in address root_cert client_cert client_key; do
    value=$(sed -n 's/.*"'"$name"'" *: *"\([^"]*\)".*/\1/p' "$server")
    # What sed would interpret is written so that it stands for itself.
    plain=$(printf '%s' "$value" | sed 's/[\\&|]/\\&/g')
    sed "s|{{\.$name}}|$plain|" "$3/connection.json" > "$3/connection.new"
    mv "$3/connection.new" "$3/connection.json"
done
