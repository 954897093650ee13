# SPDX-License-Identifier: Apache-2.0
"""A process that writes to a ledger until it is killed: `python -m … PATH NAME`. Prints a line for each receipt."""

import sys
from itertools import count
from pathlib import Path

from chaincode.ledgers.sqlite import SqliteLedger
from tests.chaincode.ledgers.hosts import Clock, accepted
from tests.chaincode.ledgers.stream import LOG, Stream, person


def main() -> None:
    path, name = Path(sys.argv[1]), sys.argv[2]
    stream = Stream()
    with SqliteLedger.open(path, sign=LOG.sign, clock=Clock(), timeout=60) as ledger:
        print("ready", flush=True)
        for batch in count():
            entries = [stream.admit(person(f"{name} {batch} {i}")) for i in range(1 + batch % 4)]
            print("submitting", flush=True)
            receipts = accepted(ledger.submit(entries))
            print("".join(f"receipt {receipt.index} {receipt.entry}\n" for receipt in receipts), end="", flush=True)


if __name__ == "__main__":
    main()
