# SPDX-License-Identifier: Apache-2.0
"""Bundles of recorded channels, true and forged."""

from collections.abc import Callable, Mapping
from contextlib import contextmanager, nullcontext
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from chaincode.audit import Report, audit
from chaincode.audit.bundle_source import bundle_source
from chaincode.audit.channel_export import export_channel
from chaincode.audit.channel_source import ChannelSource, NoObserver
from chaincode.blocks.pinning import make_channel_key
from chaincode.bundle_writer import write_bundle
from chaincode.channel_key import ChannelKey, format_channel_key
from chaincode.trust import KEY_FILE
from tests.chaincode.blocks.recordings import Blocks, recording

ORIGIN = "ledger.example/test"


@cache
def key_of(name: str) -> ChannelKey:
    """The key of a recorded federation, as its founder would hand it out."""
    channel = recording(name)
    _, entries = channel.verify()
    return make_channel_key(channel.blocks[0], f"{ORIGIN}/{channel.trust.channel}/fedledger", entries[0].id)


def source_of(blocks: Blocks, files: Mapping[str, bytes]) -> ChannelSource:
    @contextmanager
    def open_(name: str) -> Any:
        data = files.get(name)
        yield None if data is None else memoryview(data)

    return ChannelSource(lambda: iter(blocks), open_, NoObserver)


@cache
def files_of(name: str) -> dict[str, bytes]:
    """The files of a recorded run's bundle."""
    channel = recording(name)
    files = {**channel.run, KEY_FILE: format_channel_key(key_of(name)).encode()}
    with TemporaryDirectory() as folder:
        path = Path(folder) / "bundle"
        export_channel(source_of(channel.blocks, files), channel.blocks.__getitem__, path)
        with bundle_source(path) as source:
            bundle: Any = source.observer()._inner._bundle  # type: ignore[attr-defined]
            return {one: bytes(bundle.body(one)) for one in bundle.files}


def with_blocks(files: Mapping[str, bytes], blocks: Blocks) -> dict[str, bytes]:
    """The files with other blocks."""
    rest = {name: data for name, data in files.items() if not name.startswith("blocks/")}
    return rest | {f"blocks/{number:012d}": data for number, data in enumerate(blocks)}


def judged(folder: Path, files: Mapping[str, bytes], **options: Any) -> Report:
    """The audit of a bundle of these files."""
    bodies: list[tuple[str, Callable[[], Any]]] = [(n, partial(nullcontext, (data,))) for n, data in files.items()]
    path = folder / "judged.bundle"
    write_bundle(path, bodies)
    with bundle_source(path) as source:
        return audit(source, **options)


def found(report: Report) -> set[str]:
    """The codes of all findings, with the claim's number and the place."""
    return {f"{one.number}:{finding.code}:{finding.where}" for one in report.claims for finding in one.findings}
