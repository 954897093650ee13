# SPDX-License-Identifier: Apache-2.0
"""The external builder: three scripts that tell a peer where its chaincode server is.

A peer runs detect, build and release once for each package, when it is installed, and keeps what they wrote: the
address that build finds then is that package's server, also after a restart. So the next version of the contract can
have a server of its own, beside the one in use.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from chaincode.files import write_whole
from ops.fabric.ports import HOST

HERE = Path(__file__).resolve().parent
SCRIPTS = ("detect", "build", "release")


def prepare(folder: Path, port: int, certificates: Mapping[str, str]) -> None:
    """Write a peer's builder: the scripts, and how its chaincode server for the next package is reached.

    ``certificates`` are the PEM texts that a package with TLS has places for.
    """
    (folder / "bin").mkdir(parents=True, exist_ok=True)
    for name in SCRIPTS:
        write_whole(folder / "bin" / name, (HERE / f"{name}.sh").read_bytes())
        (folder / "bin" / name).chmod(0o700)
    write_whole(folder / "server.json", json.dumps({"address": f"{HOST}:{port}", **certificates}).encode() + b"\n")
