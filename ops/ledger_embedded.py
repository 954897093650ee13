# SPDX-License-Identifier: Apache-2.0
"""A run on the embedded ledger: one file in its folder, whose log a key of the simulation signs."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from chaincode import notes, trust
from chaincode.files import write_whole
from chaincode.ledgers.sqlite import SqliteLedger
from chaincode.proofs import make_entry_proof
from chaincode.state import Federation
from identity.did import public_key_from_did
from ops.clock import utc
from ops.founding import Keys
from ops.run_folder import RunFolder


class EmbeddedLedger(SqliteLedger):
    """The embedded ledger of a run."""

    whole = False

    def prove(self, entry: str) -> bytes:
        """The proof file of an entry under the log's present head."""
        return make_entry_proof(self, self.entry(entry).index).encode()


@dataclass(frozen=True, slots=True)
class Embedded:
    """The ``Home`` of a run whose ledger is the file in its folder; ``name`` is the federation's."""

    name: str

    @property
    def origin(self) -> str:
        """The log's name."""
        return f"fedledger/{self.name}"

    def log_key(self, keys: Keys) -> str:
        """The key that signs the log's heads."""
        return notes.format_vkey(self.origin, public_key_from_did(keys.log.did))

    @contextmanager
    def open(self, folder: RunFolder, keys: Keys) -> Iterator[EmbeddedLedger]:
        """The ledger in the run's folder, made if there is none. Raises as ``SqliteLedger``."""
        path = folder.ledger
        if not path.exists():
            public = public_key_from_did(keys.log.did)
            SqliteLedger.create(path, origin=self.origin, public_key=public, sign=keys.log.sign, clock=utc).close()
        with EmbeddedLedger.open(path, sign=keys.log.sign, clock=utc) as ledger:
            yield ledger

    def founded(self, folder: RunFolder, keys: Keys, federation: Federation) -> str:
        """Write the log's key and the federation's id."""
        key = trust.FederationKey(notes.parse_vkey(self.log_key(keys)), federation.id)
        write_whole(folder.key_file, trust.format_key(key).encode())
        return "its log's key"

    def released(self, folder: RunFolder) -> bool:
        """The proof is written last."""
        return folder.proof.exists()

    @property
    def elsewhere(self) -> str:
        """All of it is in the run's folder."""
        return "--dir"
