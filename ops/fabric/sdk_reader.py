# SPDX-License-Identifier: Apache-2.0
"""A program of its own, run in the second reader's environment: it reads a channel by fabric-sdk-py and nothing of ours.

It takes one line of JSON on stdin (what to read, and by which peer) and writes one on stdout (what it read).
"""

import asyncio
import base64
import hashlib
import json
import sys
import time
from importlib import import_module
from typing import Any

_SECONDS = 10.0
_REFUSED = "an orderer does not take the transaction"


def main() -> None:
    """Read what is asked for."""
    asked = json.loads(sys.stdin.readline())
    # Peers take the loop that is there when they are made.
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        print(json.dumps(loop.run_until_complete(read(asked))))
    except Exception as error:
        sys.exit(f"{type(error).__name__}: {_said(error)}")


def _said(error: Exception) -> str:
    """What an error says, in one line and without what the client and gRPC know of their own insides."""
    if "Missing 'proposalResponses'" in str(error):
        return "no peer answers"
    if "'BroadcastResponse' object" in str(error):
        return _REFUSED
    details = getattr(error, "details", None)
    return " ".join(str(details() if callable(details) else error).split())


async def read(asked: dict[str, Any]) -> dict[str, Any]:
    """The contract's answers, the channel's height and tip, and the digest of each block's bytes, in this order."""
    fabric, users = import_module("hfc.fabric.client"), import_module("hfc.fabric.user")
    peers, contexts = import_module("hfc.fabric.peer"), import_module("hfc.fabric.transaction.tx_context")
    requests = import_module("hfc.fabric.transaction.tx_proposal_request")
    client = fabric.Client()
    client.new_channel(asked["channel"])
    nodes = [
        peers.Peer(one["address"], endpoint=one["address"], tls_ca_cert_file=one["tls_ca"]) for one in asked["peers"]
    ]
    store = import_module("hfc.util.keyvaluestore").FileKeyValueStore(asked["store"])
    user = users.create_user(
        "reader", asked["msp"], store, asked["msp"], key_path=asked["key"], cert_path=asked["certificate"]
    )
    call = {"requestor": user, "channel_name": asked["channel"], "cc_name": asked["chaincode"]}
    invoked = await invoke(client, asked["orderers"], **call, peers=nodes, fcn="source", args=[], wait_for_event=True)
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


async def invoke(client: Any, orderers: list[dict[str, Any]], **call: Any) -> Any:
    """Run the contract in a transaction, by the first orderer that takes it: the client takes any, and asks no other one.

    While the orderers choose another leader none takes it, so they are asked for some seconds.
    """
    end, failed = time.monotonic() + _SECONDS, Exception("the profile names no orderer")
    while time.monotonic() < end:
        for one in orderers:
            orderer = import_module("hfc.fabric.orderer").Orderer(
                one["address"], endpoint=one["address"], tls_ca_cert_file=one["tls_ca"]
            )
            client._orderers = {one["address"]: orderer}
            try:
                return await client.chaincode_invoke(**call)
            except Exception as error:
                failed = error
                if not _said(error).startswith(("failed to connect", _REFUSED)):
                    raise
        await asyncio.sleep(0.5)
    raise failed


if __name__ == "__main__":
    main()
