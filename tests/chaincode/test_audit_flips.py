# SPDX-License-Identifier: Apache-2.0
"""A bundle with any single bit flipped fails, and the finding names the index line, the checkpoint, the entry or the file."""

import hashlib
import random
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chaincode import artefacts
from chaincode.audit import Report, audit, unreadable
from chaincode.audit.bundle_source import BundleSource
from chaincode.bundle import File, parse_bundle
from chaincode.trust import KEY_FILE
from identity import canonical
from identity.errors import EvidenceError
from tests.chaincode.audit_evidence import claim, found, where, whole_run

_SEED = 20_260_101


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("flips")
    run = whole_run(folder / "run", rounds=1, sites=2)
    return run.export(folder / "b").read_bytes()


def judge(data: bytes, *, recompute: bool = False) -> Report:
    """What the command does with a file of these bytes."""
    try:
        return audit(BundleSource(parse_bundle(memoryview(data))), recompute=recompute)
    except EvidenceError as error:
        return unreadable("index line", error.code, error.message)


def flipped(data: bytes, position: int, bit: int) -> bytes:
    changed = bytearray(data)
    changed[position] ^= 1 << bit
    return bytes(changed)


def files_of(data: bytes) -> list[File]:
    return list(parse_bundle(memoryview(data)).files.values())


def test_the_honest_bundle_passes(bundle: bytes) -> None:
    assert not judge(bundle, recompute=True).failed


def test_every_bit_of_the_index_line(bundle: bytes) -> None:
    """What the parser does not refuse (test_bundle shows that it names the line) is judged, a sample of it here."""
    end = bundle.index(b"\n") + 1
    survivors = []
    for position in range(end):
        for bit in range(8):
            changed = flipped(bundle, position, bit)
            with suppress(EvidenceError):
                parse_bundle(memoryview(changed))
                survivors.append(changed)
    assert survivors
    for changed in random.Random(_SEED).sample(survivors, min(150, len(survivors))):
        report = judge(changed)
        assert report.failed
        assert "index line, file " in where(report)


def test_every_byte_of_the_checkpoint_and_the_key_file(bundle: bytes) -> None:
    random_ = random.Random(_SEED)
    for name in (artefacts.CHECKPOINT, KEY_FILE):
        file = next(f for f in files_of(bundle) if f.name == name)
        for position in range(file.offset, file.offset + file.length):
            report = judge(flipped(bundle, position, random_.randrange(8)))
            assert report.failed
            assert f"index line, file {name}" in where(report)


def test_every_bit_of_every_file_is_held_by_the_index(bundle: bytes) -> None:
    for file in files_of(bundle):
        data = bytearray(bundle)
        parsed = parse_bundle(memoryview(data))
        for position in range(file.offset, file.offset + file.length):
            for bit in range(8):
                data[position] ^= 1 << bit
                assert parsed.altered(file)
                data[position] ^= 1 << bit


def test_bits_in_every_file(bundle: bytes) -> None:
    random_ = random.Random(_SEED)
    for file in files_of(bundle):
        for _ in range(8):
            report = judge(flipped(bundle, file.offset + random_.randrange(file.length), random_.randrange(8)))
            assert report.failed
            assert f"index line, file {file.name}" in where(report)


def reindexed(data: bytes, name: str, body: bytes) -> bytes:
    """The bundle with another body for a file, under an index line that fits it: the index alone finds nothing."""
    parsed = parse_bundle(memoryview(data))
    bodies = {file.name: bytes(parsed.body(file.name) or b"") for file in parsed.files.values()} | {name: body}
    records = [
        {"length": len(b), "name": n, "sha256": hashlib.sha256(b).hexdigest()} for n, b in sorted(bodies.items())
    ]
    line = canonical.dumps({"files": records, "format": "fedledger-bundle", "version": 1})
    return line + b"\n" + b"".join(bodies[name] for name in sorted(bodies))


def test_bits_in_every_file_under_an_index_that_fits(bundle: bytes) -> None:
    """Each file is held by more than the index: by the log, its digest on the ledger, or the key."""
    random_ = random.Random(_SEED)
    parsed = parse_bundle(memoryview(bundle))
    for file in files_of(bundle):
        body = bytes(parsed.body(file.name) or b"")
        for _ in range(12):
            report = judge(
                reindexed(bundle, file.name, flipped(body, random_.randrange(len(body)), random_.randrange(8)))
            )
            assert report.failed, file.name
            places, digest = where(report), file.name.rpartition("/")[2].partition(".")[0]
            expected = {artefacts.ENTRIES: "entry ", KEY_FILE: ""}.get(file.name, digest)
            assert expected in places, (file.name, places)


def test_a_bit_in_an_entry_names_the_entry(bundle: bytes) -> None:
    random_ = random.Random(_SEED)
    lines = bytes(parse_bundle(memoryview(bundle)).body(artefacts.ENTRIES) or b"").split(b"\n")
    for index, line in enumerate(lines[:-1]):
        position = random_.randrange(len(line))
        changed = [*lines[:index], flipped(line, position, random_.randrange(8)), *lines[index + 1 :]]
        report = judge(reindexed(bundle, artefacts.ENTRIES, b"\n".join(changed)))
        assert claim(report, 3).findings[0].where == f"entry {index}", found(report)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_hostile_bundles_give_findings_only(bundle: bytes, data: st.DataObject) -> None:
    """Truncated, spliced or overwritten anywhere, with or without an index that fits."""
    start = data.draw(st.integers(0, len(bundle)))
    stop = data.draw(st.integers(start, len(bundle)))
    middle = data.draw(st.binary(max_size=200))
    assert judge(bundle[:start] + middle + bundle[stop:]).failed or bundle[start:stop] == middle
    name = data.draw(st.sampled_from([file.name for file in files_of(bundle)]))
    body = bytes(parse_bundle(memoryview(bundle)).body(name) or b"")
    start = data.draw(st.integers(0, len(body)))
    stop = data.draw(st.integers(start, len(body)))
    changed = body[:start] + middle + body[stop:]
    assert judge(reindexed(bundle, name, changed), recompute=True).failed or changed == body


def test_a_bundle_of_another_run_under_this_runs_key(bundle: bytes, tmp_path: Path) -> None:
    other = whole_run(tmp_path / "run", rounds=1, sites=3)
    body = (other.folder / KEY_FILE).read_bytes()
    report = judge(reindexed(bundle, KEY_FILE, body))
    assert report.failed == (body != bytes(parse_bundle(memoryview(bundle)).body(KEY_FILE) or b""))


def test_bits_in_every_file_of_a_run_folder(tmp_path: Path) -> None:
    run, random_ = whole_run(tmp_path / "run", rounds=1, sites=2), random.Random(_SEED)
    files = [
        path for path in run.folder.rglob("*") if path.is_file() and path.name not in ("keystore", "ledger.sqlite")
    ]
    assert len(files) > 10
    for path in files:
        before = path.read_bytes()
        for _ in range(3):
            path.write_bytes(flipped(before, random_.randrange(len(before)), random_.randrange(8)))
            report = run.audit(recompute=False)
            assert report.failed, path
            stem = path.name.partition(".")[0]
            assert stem in where(report) or (path.name == KEY_FILE and "entry 0" in where(report)), (
                path,
                where(report),
            )
        path.write_bytes(before)
    assert not run.audit().failed
