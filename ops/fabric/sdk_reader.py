# SPDX-License-Identifier: Apache-2.0
"""A program of its own, run in the second reader's environment: it reads a channel by fabric-sdk-py and nothing of ours.

It takes one line of JSON on stdin (what to read, and by which peer) and writes one on stdout (what it read).
"""

import asyncio
import base64
import hashlib
import json
import sys
from importlib import import_module
from typing import Any


def main() -> None:
    """Read what is asked for."""
    asked = json.loads(sys.stdin.readline())
    # Peers take the loop that is there when they are made.
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    print(json.dumps(loop.run_until_complete(read(asked))))


async def read(asked: dict[str, Any]) -> dict[str, Any]:
    """The contract's answers, the channel's height and tip, and the digest of each block's bytes, in this order."""
    fabric, users = import_module("hfc.fabric.client"), import_module("hfc.fabric.user")
    peers, contexts = import_module("hfc.fabric.peer"), import_module("hfc.fabric.transaction.tx_context")
    requests = import_module("hfc.fabric.transaction.tx_proposal_request")
    client = fabric.Client()
    client.new_channel(asked["channel"])
    for one in asked["orderers"]:
        orderer = import_module("hfc.fabric.orderer").Orderer(
            one["address"], endpoint=one["address"], tls_ca_cert_file=one["tls_ca"]
        )
        client._orderers[one["address"]] = orderer
    nodes = [
        peers.Peer(one["address"], endpoint=one["address"], tls_ca_cert_file=one["tls_ca"]) for one in asked["peers"]
    ]
    store = import_module("hfc.util.keyvaluestore").FileKeyValueStore(asked["store"])
    user = users.create_user(
        "reader", asked["msp"], store, asked["msp"], key_path=asked["key"], cert_path=asked["certificate"]
    )
    call = {"requestor": user, "channel_name": asked["channel"], "cc_name": asked["chaincode"]}
    invoked = await client.chaincode_invoke(**call, peers=nodes, fcn="source", args=[], wait_for_event=True)
    values = await client.chaincode_query(**call, peers=nodes[:1], fcn="get", args=asked["keys"])
    info = await client.query_info(user, asked["channel"], nodes[:1])
    blocks = []
    for number in range(info.height):
        # The client's own query_block gives a decoded block only, and its bytes are what is compared.
        context = contexts.create_tx_context(user, user.cryptoSuite, requests.TXProposalRequest())
        responses, _, _ = client.get_channel(asked["channel"]).query_block(context, nodes[:1], str(number))
        (answer,) = await asyncio.gather(*responses)
        blocks.append(hashlib.sha256(answer.response.payload).hexdigest())
    return {
        "height": info.height, "tip": base64.b64encode(info.currentBlockHash).decode(), "blocks": blocks,
        "transaction": client.evt_tx_id, "invoked": invoked, "values": values,
    }  # fmt: skip


if __name__ == "__main__":
    main()
