# SPDX-License-Identifier: Apache-2.0
"""Small signed statements that travel inside entries: a delivery's receipt and the proof of a rotated key.

Each is a DSSE v1 pre-authentication encoding of canonical JSON under a payload type of its own, so that no signature
made for one can stand for another, or for an entry.
"""

from identity import canonical
from identity.envelope import pae

RECEIPT_TYPE = "application/vnd.fedledger.receipt.v1+json"
ROTATION_TYPE = "application/vnd.fedledger.rotation.v1+json"


def receipt(*, federation: str, agreement: str, round_: int, attempt: int, member: str, update: str) -> bytes:
    """What a coordinator signs when it has received a member's update whose digest is ``update``."""
    return pae(RECEIPT_TYPE, canonical.dumps({
        "agreement": agreement, "attempt": attempt, "federation": federation,
        "member": member, "round": round_, "update": update,
    }))  # fmt: skip


def rotation(*, federation: str, member: str, new_did: str) -> bytes:
    """What the new key signs to show that its holder agrees to be the member's key from now on."""
    return pae(ROTATION_TYPE, canonical.dumps({"federation": federation, "member": member, "new_did": new_did}))
