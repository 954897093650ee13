# SPDX-License-Identifier: Apache-2.0
"""Keystore files: private, whole or not at all, and harmless when hostile."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from identity import canonical
from identity.errors import CredentialError, Error, Unavailable
from identity.keys import Keystore
from tests.identity.conftest import CHEAP, PHRASE


def _code(call: Callable[[], object]) -> str:
    with pytest.raises(Error) as caught:
        call()
    return caught.value.code


def _rewrite(path: Path, **changes: Any) -> None:
    path.write_bytes(canonical.dumps(json.loads(path.read_bytes()) | changes))


# What is on disk


def test_the_default_cost_is_that_of_rfc9106(tmp_path: Path) -> None:
    Keystore.create(tmp_path / "keys.json", PHRASE)
    fields = json.loads((tmp_path / "keys.json").read_bytes())
    assert (fields["memory_kib"], fields["iterations"], fields["lanes"]) == (65536, 3, 4)
    assert (fields["kdf"], fields["cipher"]) == ("argon2id", "aes-256-gcm")


def test_the_file_holds_no_name_and_no_key_and_a_fresh_nonce(sealed: Path) -> None:
    store = Keystore.open(sealed, PHRASE)
    before = json.loads(sealed.read_bytes())
    secret = store.secret("salt:site-01")
    for hidden in (b"site-01", secret, canonical.b64encode(secret).encode()):
        assert hidden not in sealed.read_bytes()
    store.save()
    after = json.loads(sealed.read_bytes())
    assert before["nonce"] != after["nonce"]
    assert before["ciphertext"] != after["ciphertext"]


@pytest.mark.parametrize("phrase", [None, PHRASE])
def test_the_file_is_private_whatever_the_umask(tmp_path: Path, phrase: str | None) -> None:
    before = os.umask(0)
    try:
        store = Keystore.create(tmp_path / "keys.json", phrase, cost=CHEAP)
        store.create_key("a")
        store.save()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "keys.json").stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["keys.json"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o620, 0o610, 0o777])
def test_a_file_open_to_others_is_refused_with_the_command_that_helps(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "my keys.json"
    Keystore.create(path, None)
    path.chmod(mode)
    with pytest.raises(CredentialError) as caught:
        Keystore.open(path, None)
    assert caught.value.code == "keystore-permissions"
    assert caught.value.next == f"chmod 600 '{path}'"
    subprocess.run(caught.value.next, shell=True, check=True)  # noqa: S602 - the command is what is tested
    assert Keystore.open(path, None).names() == []


def test_an_existing_file_is_never_replaced_by_a_new_keystore(sealed: Path) -> None:
    before = sealed.read_bytes()
    assert _code(lambda: Keystore.create(sealed, PHRASE, cost=CHEAP)) == "keystore-exists"
    assert sealed.read_bytes() == before
    assert os.listdir(sealed.parent) == ["keys.json"]


def test_two_writers_lose_no_key(sealed: Path) -> None:
    first, second = Keystore.open(sealed, PHRASE), Keystore.open(sealed, PHRASE)
    first.create_key("site-02")
    second.create_key("site-03")
    first.save()
    assert _code(second.save) == "keystore-changed"
    assert "site-02" in Keystore.open(sealed, PHRASE).names()
    first.create_key("site-04")
    first.save()


_FULL_DISK = """
import resource, signal, sys
from identity.errors import Unavailable
from identity.keys import Keystore
store = Keystore.open(sys.argv[1], sys.argv[2])
for index in range(100):
    store.create_key(f"more-{index}")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
try:
    store.save()
except Unavailable as error:
    print(error.code)
"""


def test_a_full_disk_leaves_the_old_file_whole(sealed: Path) -> None:
    before = sealed.read_bytes()
    done = subprocess.run(
        [sys.executable, "-c", _FULL_DISK, str(sealed), PHRASE], capture_output=True, check=True, text=True
    )
    assert done.stdout.strip() == "keystore-unwritable"
    assert sealed.read_bytes() == before
    assert os.listdir(sealed.parent) == ["keys.json"]


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="keystore-unwritable"):
        Keystore.create(tmp_path / "none" / "keys.json", None)
    assert _code(lambda: Keystore.open(tmp_path / "none" / "keys.json", None)) == "keystore-missing"


# Hostile files


@pytest.mark.parametrize(
    "change",
    [
        {"memory_kib": 1 << 32},
        {"memory_kib": 262145},
        {"memory_kib": 8191},
        {"memory_kib": -1},
        {"memory_kib": "65536"},
        {"memory_kib": True},
        {"memory_kib": None},
        {"iterations": 17},
        {"iterations": 0},
        {"iterations": 2**53 - 1},
        {"lanes": 17},
        {"lanes": 0},
    ],
)
def test_parameters_are_bounded_before_the_derivation(
    sealed: Path, derivations: list[int], change: dict[str, Any]
) -> None:
    _rewrite(sealed, **change)
    assert _code(lambda: Keystore.open(sealed, PHRASE)) == "keystore-parameters"
    assert derivations == []


@pytest.mark.parametrize(
    "change",
    [
        {"kdf": "pbkdf2"},
        {"cipher": "none"},
        {"type": "urn:fedledger:keystore:v2"},
        {"extra": 1},
        {"nonce": "AAAA"},
        {"salt": ""},
        {"salt": "AAAAAAAAAAAAAAAAAAAAAB=="},
        {"ciphertext": 7},
        {"ciphertext": "="},
    ],
)
def test_a_changed_header_is_malformed(sealed: Path, derivations: list[int], change: dict[str, Any]) -> None:
    _rewrite(sealed, **change)
    assert _code(lambda: Keystore.open(sealed, PHRASE)) == "keystore-malformed"
    assert derivations == []


@pytest.mark.parametrize(
    "change",
    [
        {"memory_kib": 8193},
        {"iterations": 2},
        {"nonce": "A" * 16},
        {"salt": "A" * 22 + "=="},
        {"ciphertext": ""},
    ],
)
def test_a_changed_header_or_body_does_not_open(sealed: Path, change: dict[str, Any]) -> None:
    _rewrite(sealed, **change)
    assert _code(lambda: Keystore.open(sealed, PHRASE)) == "keystore-passphrase"


_ENTRY = "A" * 43 + "="


_PLAIN = "urn:fedledger:keystore-plain:v1"


@pytest.mark.parametrize(
    "fields",
    [
        {},
        [],
        {"keys": {}, "secrets": {}},
        {"keys": {}, "secrets": {}, "type": "x"},
        {"keys": [], "secrets": {}, "type": _PLAIN},
        {"keys": {"a": 1}, "secrets": {}, "type": _PLAIN},
        {"keys": {"a": "AAAA"}, "secrets": {}, "type": _PLAIN},
        {"keys": {"a": "=" + _ENTRY}, "secrets": {}, "type": _PLAIN},
        {"keys": {"../a": _ENTRY}, "secrets": {}, "type": _PLAIN},
        {"keys": {"a": _ENTRY}, "secrets": {"a": _ENTRY}, "type": _PLAIN},
        {"keys": {"a": {"b": _ENTRY}}, "secrets": {}, "type": _PLAIN},
        {"keys": {"a": _ENTRY}, "secrets": {}, "extra": {}, "type": _PLAIN},
    ],
)
def test_a_malformed_plain_keystore(tmp_path: Path, fields: Any) -> None:
    path = tmp_path / "keys.json"
    Keystore.create(path, None)
    path.write_bytes(canonical.dumps(fields))
    assert _code(lambda: Keystore.open(path, None)) == "keystore-malformed"


def test_what_is_not_a_regular_file_neither_hangs_nor_opens(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    assert _code(lambda: Keystore.open(tmp_path / "pipe", None)) == "keystore-malformed"
    assert _code(lambda: Keystore.open(tmp_path, None)) == "keystore-malformed"
    assert _code(lambda: Keystore.open("/dev/zero", None)) == "keystore-malformed"


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # sparse
    path.chmod(0o600)
    assert _code(lambda: Keystore.open(path, None)) == "keystore-malformed"


@settings(max_examples=150)
@given(data=st.data())
def test_hostile_bytes(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.mktemp("hostile") / "keys.json"
    Keystore.create(path, None).save()
    good = path.read_bytes()
    position = data.draw(st.integers(0, len(good) - 1))
    hostile = data.draw(st.binary(max_size=60) | st.just(good[:position]))
    path.write_bytes(hostile)
    with pytest.raises(CredentialError, match=re.escape(f"{path}: ")) as refused:
        Keystore.open(path, None)
    assert refused.value.code == "keystore-malformed"
    assert _code(lambda: Keystore.open(path, PHRASE)) in {"keystore-malformed", "keystore-passphrase"}
