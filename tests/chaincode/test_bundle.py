# SPDX-License-Identifier: Apache-2.0
"""The bundle's format: one spelling, every byte accounted for, nothing read into memory, nothing half written."""

import hashlib
import stat
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaincode import artefacts, bundle
from chaincode.bundle import Bundle, is_bundle, open_bundle, parse_bundle
from chaincode.bundle_writer import write_bundle
from identity import canonical
from identity.errors import EvidenceError

REQUIRED = {"checkpoint": b"head\n", "entries.jsonl": b"{}\n{}\n", "federation.vkey": b"key\n"}
D1, D2 = "1" * 64, "2" * 64


def bodies(files: dict[str, bytes]) -> list[tuple[str, Callable[[], AbstractContextManager[Any]]]]:
    return [(name, partial(nullcontext, (body,))) for name, body in files.items()]


def written(path: Path, files: dict[str, bytes]) -> bytes:
    write_bundle(path, bodies(files))
    return path.read_bytes()


def index_line(files: dict[str, bytes], **other: Any) -> bytes:
    """The index as the specification's words give it."""
    records = [{"length": len(b), "name": n, "sha256": hashlib.sha256(b).hexdigest()} for n, b in sorted(files.items())]
    return canonical.dumps({"files": records, "format": "fedledger-bundle", "version": 1, **other}) + b"\n"


def parsed(data: bytes) -> Bundle:
    return parse_bundle(memoryview(data))


def refusal(data: bytes) -> str:
    with pytest.raises(EvidenceError) as caught:
        parsed(data)
    assert "index line" in caught.value.message
    return caught.value.code


def test_the_form_is_the_index_in_canonical_json_and_the_bodies(tmp_path: Path) -> None:
    files = {**REQUIRED, f"blobs/{D1}": b"\x00\xff", "release/model-card.md": b""}
    assert written(tmp_path / "b", files) == index_line(files) + b"".join(files[name] for name in sorted(files))


NAMES = st.sampled_from([
    f"blobs/{D1}", f"blobs/{D2}", f"credentials/{D1}.jwt", f"models/{D2}.safetensors", *artefacts.RELEASED,
])  # fmt: skip


@given(
    st.dictionaries(NAMES, st.binary(max_size=50)),
    st.dictionaries(st.sampled_from(sorted(REQUIRED)), st.binary(max_size=50)),
)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, some: dict[str, bytes], required: dict[str, bytes]
) -> None:
    files = {**REQUIRED, **required, **some}
    path = tmp_path_factory.mktemp("round") / "b"
    data = written(path, dict(reversed(files.items())))
    assert data.startswith(index_line(files))
    with open_bundle(path) as opened:
        assert list(opened.files) == sorted(files)
        assert {name: bytes(opened.body(name) or b"") for name in opened.files} == files
        assert not any(opened.altered(file) for file in opened.files.values())
    assert is_bundle(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


LINE, BODY = index_line(REQUIRED), b"".join(REQUIRED.values())


@pytest.mark.parametrize(("data", "code"), [
    (b"", "bundle-index"),
    (b"SQLite format 3\0", "bundle-index"),
    (LINE[:-1], "bundle-index"),
    (LINE[:40], "bundle-index"),
    (b'{"files":[],"format":"fedledger-bundle","version":1}\n', "bundle-index"),
    (LINE + BODY + b"x", "bundle-length"),
    (LINE + BODY[:-1], "bundle-length"),
    (LINE, "bundle-length"),
    (LINE.replace(b'"version":1', b'"version":2') + BODY, "bundle-version"),
    (LINE.replace(b"fedledger-bundle", b"another-bundle") + BODY, "bundle-version"),
    (LINE.replace(b'"files":[', b'"files": [') + BODY, "bundle-index"),
    (LINE.replace(b'"length":5', b'"length":05') + BODY, "bundle-index"),
    (LINE.replace(b'"length":5', b'"length":-5') + BODY, "bundle-index"),
    (LINE.replace(b'"length":5', b'"length":5.0') + BODY, "bundle-index"),
    (LINE.replace(b'"length":5', b'"length":1e9') + BODY, "bundle-index"),
    (LINE.replace(b'"length":5', b'"length":999999999999999999') + BODY, "bundle-index"),
    (LINE.replace(b'"length":5', b'"length":99999999999999') + BODY, "bundle-length"),
    (LINE.replace(b'"checkpoint"', b'"checkpoinx"') + BODY, "bundle-name"),
    (LINE.replace(b'"checkpoint"', b'"../checkpoint"') + BODY, "bundle-name"),
    (LINE.replace(b'"checkpoint"', b'"keys/keystore"') + BODY, "bundle-name"),
    (LINE.replace(b'"checkpoint"', b'"check\\u0070oint"') + BODY, "bundle-index"),
    (LINE.replace(b'"length":5,"name":"checkpoint"', b'"name":"checkpoint","length":5') + BODY, "bundle-index"),
    (LINE.replace(b'},{', b'},,{', 1) + BODY, "bundle-index"),
    (LINE.replace(b'],"format"', b',],"format"') + BODY, "bundle-index"),
    (LINE.replace(b'"version":1}', b'"version":1,"x":1}') + BODY, "bundle-index"),
    (index_line({n: b for n, b in REQUIRED.items() if n != "checkpoint"}) + BODY[5:], "bundle-missing"),
    (index_line({n: b for n, b in REQUIRED.items() if n != "federation.vkey"}) + BODY[:-4], "bundle-missing"),
])  # fmt: skip
def test_anything_else_is_refused_and_the_index_line_is_named(data: bytes, code: str) -> None:
    assert refusal(data) == code


def test_names_ascend_and_none_is_twice() -> None:
    records = LINE[len(b'{"files":[') : LINE.index(b"],")].split(b"},")
    first, second, third = (record.rstrip(b"}") + b"}" for record in records)
    tail = b'],"format":"fedledger-bundle","version":1}\n'
    assert refusal(b'{"files":[' + b",".join([second, first, third]) + tail + BODY) == "bundle-order"
    assert refusal(b'{"files":[' + b",".join([first, first, second, third]) + tail + BODY[:5] + BODY) == "bundle-order"


@given(st.binary(max_size=300))
def test_hostile_bytes_are_refused_with_evidence_errors_only(data: bytes) -> None:
    for start in (data, b'{"files":[' + data, LINE + data, LINE[: len(LINE) // 2] + data):
        if len(start) != len(LINE + BODY):
            refusal(start)


def test_every_bit_of_the_index_line_counts() -> None:
    """Whatever survives the parser points at bytes with another digest, or under another name."""
    honest = parsed(LINE + BODY)
    for position in range(len(LINE)):
        for bit in range(8):
            data = bytearray(LINE + BODY)
            data[position] ^= 1 << bit
            with suppress(EvidenceError):
                opened = parsed(bytes(data))
                changed = [f for f in opened.files.values() if honest.files.get(f.name) != f]
                assert changed, position
                assert all(opened.altered(file) for file in changed), position


@pytest.mark.parametrize(("body", "whole"), [(b"", 0), (b"a\nb\n", 2), (b"a\nb", 1), (b"\n", 1)])
def test_entries_are_lines(body: bytes, whole: int) -> None:
    files = {**REQUIRED, "entries.jsonl": body}
    entries = parsed(index_line(files) + b"".join(files[n] for n in sorted(files))).entries()
    got: list[bytes] = []
    if body.endswith(b"\n") or not body:
        got = list(entries)
    else:
        with pytest.raises(EvidenceError, match=f"entry {whole} does not end") as caught:
            got.extend(entries)
        assert caught.value.code == "bundle-entries"
    assert got == body.split(b"\n")[:whole]


def test_an_endless_entry_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "ENVELOPE_LIMIT", 10)
    files = {**REQUIRED, "entries.jsonl": b"0123456789\n" + b"x" * 11 + b"\n"}
    entries = parsed(index_line(files) + b"".join(files[n] for n in sorted(files))).entries()
    assert next(entries) == b"0123456789"
    with pytest.raises(EvidenceError, match="entry 1"):
        next(entries)


def test_of_a_huge_checkpoint_only_the_beginning_is_read() -> None:
    files = {**REQUIRED, "checkpoint": b"x" * 10_000_000}
    assert len(parsed(index_line(files) + b"".join(files[n] for n in sorted(files))).checkpoint()) < 300_000


@pytest.mark.parametrize(
    "name", ["keys/keystore", "../x", "blobs/short", "federation.toml", "entries.jsonl/", "checkpoint\n", ""]
)
def test_only_evidence_has_a_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(EvidenceError) as caught:
        written(tmp_path / "b", {**REQUIRED, name: b""})
    assert caught.value.code == "bundle-name"
    assert list(tmp_path.iterdir()) == []


def test_a_name_is_given_once(tmp_path: Path) -> None:
    with pytest.raises(EvidenceError, match="given twice"):
        write_bundle(tmp_path / "b", [*bodies(REQUIRED), *bodies({"checkpoint": b"other"})])


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "b"
    before = written(path, REQUIRED)
    calls = []

    @contextmanager
    def changing() -> Iterator[list[bytes]]:
        calls.append(1)
        yield [b"x" * len(calls)]

    with pytest.raises(EvidenceError) as caught:
        write_bundle(path, [*bodies(REQUIRED), (f"blobs/{D1}", changing)])
    assert caught.value.code == "bundle-changed"
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["b"]


def test_large_bodies_are_streamed_and_mapped(tmp_path: Path) -> None:
    size = 64 << 20
    piece = bytes(1 << 20)
    tracemalloc.start()
    big = (f"blobs/{D1}", lambda: nullcontext(piece for _ in range(size >> 20)))
    write_bundle(tmp_path / "b", [*bodies(REQUIRED), big])
    with open_bundle(tmp_path / "b") as opened:
        assert not any(opened.altered(file) for file in opened.files.values())
        assert len(opened.body(f"blobs/{D1}") or b"") == size
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20


def test_what_is_hashed_ahead_is_judged_as_ever(tmp_path: Path) -> None:
    files = {**REQUIRED, f"blobs/{D1}": bytes(1 << 20), f"blobs/{D2}": b"x" * (1 << 17)}
    written(tmp_path / "b", files)
    data = bytearray((tmp_path / "b").read_bytes())
    data[data.rindex(b"x" * (1 << 17))] ^= 1
    (tmp_path / "b").write_bytes(data)
    for ahead in (True, False):
        with open_bundle(tmp_path / "b", ahead=ahead) as opened:
            assert [name for name, file in opened.files.items() if opened.altered(file)] == [f"blobs/{D2}"]


def test_a_link_to_a_bundle_is_followed_and_a_folder_is_none(tmp_path: Path) -> None:
    written(tmp_path / "b", REQUIRED)
    (tmp_path / "link").symlink_to("b")
    with open_bundle(tmp_path / "link") as opened:
        assert opened.checkpoint() == b"head\n"
    assert not is_bundle(tmp_path)
    with pytest.raises(EvidenceError), open_bundle(tmp_path):
        pass
