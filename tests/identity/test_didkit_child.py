# SPDX-License-Identifier: Apache-2.0
"""The child that runs DIDKit: whatever happens to it, a token without an answer is not accepted."""

from __future__ import annotations

import signal
import tempfile
from pathlib import Path

import pytest

from identity import didkit_check
from identity.didkit_check import Opinion, judge
from tests.identity.forge import (
    crashing,
    fresh,
    hanging,
    wrapped,
)

ROOT = str(Path(didkit_check.__file__).parents[1])
ACCEPTED = Opinion("accepted", "")
GIB = 1 << 30


def stub(folder: Path, source: str) -> str:
    """A search path on which `didkit` is the given source."""
    (folder / "didkit.py").write_text(source)
    return f"{folder}:{ROOT}"


# A child that crashes, hangs or cannot start


def test_a_crash_is_a_refusal_and_the_next_tokens_keep_their_verdicts() -> None:
    opinions = judge([fresh(), crashing(), fresh(), crashing(), fresh()], timeout=20, memory=GIB)
    crash = Opinion("refused", f"no opinion: on this credential the child was ended by signal {signal.SIGSEGV:d}")
    assert opinions == [ACCEPTED, crash, ACCEPTED, crash, ACCEPTED]


def test_a_panic_is_a_refusal_in_the_same_child() -> None:
    panicking = wrapped({}, {"type": "CLSignature2019"}, credentialSchema={"id": "urn:x", "type": "y"})
    opinions = judge([panicking, fresh()], timeout=10, memory=GIB)
    assert opinions[0].verdict == "refused"
    assert "RustPanic" in opinions[0].detail
    assert opinions[1] == ACCEPTED


def test_a_document_without_end_is_a_refusal_and_the_next_token_keeps_its_verdict() -> None:
    # Time or memory, whichever runs out first on this machine.
    endless, after = judge([hanging(), fresh()], timeout=20, memory=GIB)
    assert endless.verdict == "refused"
    assert endless.detail.startswith("no opinion: on this credential the child")
    assert after == ACCEPTED


_DEAF = """
import ctypes
def verify_credential(token, options):
    ctypes.PyDLL(None).sleep(600)  # holds the interpreter's lock, as native code may
"""


def test_a_hang_is_ended_even_where_the_parent_ignores_the_alarm(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGALRM, signal.SIG_IGN)
    try:
        opinions = judge([fresh()], timeout=20, memory=GIB, path=stub(tmp_path, _DEAF))
    finally:
        signal.signal(signal.SIGALRM, before)
    assert opinions == [Opinion("refused", "no opinion: on this credential the child gave no answer in 2 s")]


def test_crashes_without_end_are_bounded_and_leave_no_token_accepted_unseen() -> None:
    opinions = judge([crashing()] * 12 + [fresh()], timeout=60, memory=GIB)
    assert {opinion.verdict for opinion in opinions} == {"refused"}
    assert len(opinions) == 13
    assert "other credentials" in opinions[-1].detail


def test_too_little_memory_is_not_taken_for_a_missing_library() -> None:
    for memory in (1, 1 << 20, 1 << 24, 40 << 20):
        opinion = judge([fresh()], timeout=20, memory=memory)[0]
        assert opinion.verdict == "refused"
        assert "did not start" in opinion.detail


def test_the_time_limit_covers_the_start(tmp_path: Path) -> None:
    path = stub(tmp_path, "import time\ntime.sleep(600)\n")
    opinions = judge([fresh(), fresh()], timeout=0.5, memory=GIB, path=path)
    assert opinions == [Opinion("refused", "no opinion: the child did not start and reached the time limit")] * 2
    assert judge([fresh()], timeout=-1, memory=GIB)[0].verdict == "refused"


def test_no_room_for_the_childs_files_is_a_refusal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    assert judge([fresh()], timeout=10, memory=GIB)[0].verdict == "refused"


# A library that is missing, old, broken or hostile


def test_a_library_that_is_not_installed_is_not_available(tmp_path: Path) -> None:
    path = stub(tmp_path, "raise ModuleNotFoundError(\"No module named 'didkit'\")\n")
    opinions = judge([fresh(), crashing()], timeout=10, memory=GIB, path=path)
    assert opinions == [Opinion("not-available", "DIDKit is not installed: No module named 'didkit'")] * 2


def test_the_old_interface_is_not_available(tmp_path: Path) -> None:
    path = stub(tmp_path, "def verifyCredential(credential, options): pass\n")
    assert judge([fresh()], timeout=10, memory=GIB, path=path)[0].verdict == "not-available"


_WRITE = "import os; os.write(1, {!r}); os._exit(0)"
_READY = b'{"verdict":"accepted","detail":"ready"}\n'
_BROKEN = [
    "raise ImportError('failed to map segment')",
    "import os; os._exit(0)",
    "import os; os.kill(os.getpid(), 9)",
    "import os\nwhile True: os.write(1, b'x' * 65536)",
    _WRITE.format(b"garbage\n"),
    _WRITE.format(b"[]\n"),
    _WRITE.format(b'{"verdict":"accepted"}\n'),
    _WRITE.format(b'{"verdict":"fine","detail":""}\n'),
    _WRITE.format(_READY + b'{"verdict":"not-available","detail":""}\n'),
    _WRITE.format(_READY + b'{"verdict":"accepted","detail":"\\ud800"}\n'),
]


@pytest.mark.parametrize("source", _BROKEN)
def test_a_broken_library_is_a_refusal(tmp_path: Path, source: str) -> None:
    opinion = judge([fresh()], timeout=10, memory=GIB, path=stub(tmp_path, source))[0]
    assert opinion.verdict == "refused"
    assert opinion.detail.startswith("no opinion: the child did not start")


_ANSWERS = """
import asyncio, json, os, sys
def verify_credential(token, options):
    future = asyncio.get_running_loop().create_future()
    future.set_result({answer})
    return future
"""


@pytest.mark.parametrize("answer", ["'nonsense'", "'{}'", "'[]'", "None", "'\\ud800'", "json.dumps('x' * 100000)"])
def test_nonsense_for_an_answer_is_a_refusal(tmp_path: Path, answer: str) -> None:
    path = stub(tmp_path, _ANSWERS.replace("{answer}", answer))
    opinions = judge([fresh(), fresh()], timeout=10, memory=GIB, path=path)
    assert [opinion.verdict for opinion in opinions] == ["refused", "refused"]


def test_the_child_inherits_neither_environment_nor_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDLEDGER_PASSPHRASE", "secret")
    seen = "json.dumps(dict(checks=['JWS'], errors=[], warnings=[' '.join(sorted(os.environ)), os.getcwd()]))"
    path = stub(tmp_path, _ANSWERS.replace("{answer}", seen))
    opinion = judge([fresh()], timeout=10, memory=GIB, path=path)[0]
    assert opinion == Opinion("accepted", "LC_ALL MALLOC_ARENA_MAX PYTHONPATH; /")


def test_long_and_odd_details_are_cut_and_kept_readable(tmp_path: Path) -> None:
    answer = "json.dumps(dict(checks=['JWS'], errors=['\\U0001f600\\ud800' * 5000], warnings=[]))"
    path = stub(tmp_path, _ANSWERS.replace("{answer}", answer))
    opinions = judge([fresh(), fresh()], timeout=10, memory=GIB, path=path)
    assert [opinion.verdict for opinion in opinions] == ["refused", "refused"]
    assert opinions[1].detail.startswith("\\U0001f600\\ud800")
