# SPDX-License-Identifier: Apache-2.0
"""Keys: signatures, and a keystore that holds many and overwrites none."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from identity.errors import CredentialError, Error
from identity.keys import Keystore, identity_from_seed, verify_signature
from tests.identity.conftest import CHEAP, PHRASE


def _code(call: Callable[[], object]) -> str:
    with pytest.raises(Error) as caught:
        call()
    return caught.value.code


# Signatures


def test_signature_of_rfc8032_section_7_1_test_2() -> None:
    signer = identity_from_seed(bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb"))
    expected = bytes.fromhex(
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )
    assert signer.sign(b"\x72") == expected
    assert verify_signature(signer.did, b"\x72", expected)


@pytest.mark.parametrize("did", ["", "did:key:", "did:web:x", "did:key:z6Mk" + "1" * 44])
def test_a_bad_did_verifies_nothing(did: str) -> None:
    assert verify_signature(did, b"", bytes(64)) is False


@pytest.mark.parametrize("signature", [b"", bytes(63), bytes(64), bytes(65), b"\xff" * 64])
def test_a_bad_signature_is_false_and_no_error(signature: bytes) -> None:
    assert verify_signature(identity_from_seed(bytes(32)).did, b"message", signature) is False


def test_the_same_signature_plus_the_group_order_is_refused() -> None:
    # RFC 8032 section 5.1.7: S below the order, or each signature would have a second spelling.
    signer = identity_from_seed(bytes(32))
    signature = signer.sign(b"m")
    order = 2**252 + 27742317777372353535851937790883648493
    raised = (int.from_bytes(signature[32:], "little") + order).to_bytes(32, "little")
    assert verify_signature(signer.did, b"m", signature)
    assert not verify_signature(signer.did, b"m", signature[:32] + raised)


def test_an_identity_shows_and_carries_no_key() -> None:
    identity = identity_from_seed(b"s" * 32)
    assert repr(identity) == f"Identity(did={identity.did!r})"
    with pytest.raises(TypeError):
        pickle.dumps(identity)


# The keystore's uses


@pytest.mark.parametrize("phrase", [None, PHRASE])
def test_keys_and_secrets_come_back(tmp_path: Path, phrase: str | None) -> None:
    path = tmp_path / "keys.json"
    store = Keystore.create(path, phrase, cost=CHEAP)
    first = store.create_key("site-01")
    secret = store.secret("salt:site-01", create=True)
    store.save()
    again = Keystore.open(path, phrase)
    assert again.kind == ("plain" if phrase is None else "encrypted")
    assert again.identity("site-01").did == first.did
    assert again.secret("salt:site-01") == secret
    assert len(secret) == 32
    assert again.names() == ["salt:site-01", "site-01"]
    assert verify_signature(first.did, b"m", again.identity("site-01").sign(b"m"))


def test_create_is_idempotent_and_create_key_is_not(sealed: Path) -> None:
    store = Keystore.open(sealed, PHRASE)
    assert store.identity("site-01", create=True).did == store.identity("site-01").did
    assert store.secret("salt:site-01", create=True) == store.secret("salt:site-01")
    assert _code(lambda: store.create_key("site-01")) == "keystore-key-exists"
    assert _code(lambda: store.create_key("salt:site-01")) == "keystore-key-exists"
    assert _code(lambda: store.secret("site-01", create=True)) == "keystore-key-exists"


def test_a_missing_key_is_named(sealed: Path) -> None:
    store = Keystore.open(sealed, PHRASE)
    with pytest.raises(CredentialError, match="no key named 'site-02'") as caught:
        store.identity("site-02")
    assert caught.value.code == "keystore-missing-key"
    assert _code(lambda: store.secret("site-01")) == "keystore-missing-key"
    assert _code(lambda: store.identity("salt:site-01")) == "keystore-missing-key"


def test_a_rotation_keeps_both_keys(sealed: Path) -> None:
    store = Keystore.open(sealed, PHRASE)
    old, new = store.identity("site-01"), store.create_key("site-01.next")
    assert _code(lambda: store.rename("site-01.next", "site-01")) == "keystore-key-exists"
    store.rename("site-01", "site-01.retired")
    store.rename("site-01.next", "site-01")
    store.save()
    again = Keystore.open(sealed, PHRASE)
    assert (again.identity("site-01").did, again.identity("site-01.retired").did) == (new.did, old.did)
    assert "site-01.next" not in again.names()


@pytest.mark.parametrize("name", ["", " a", "a/b", "../a", ".a", "a\n", "é", "a" * 129, "-a"])
def test_names_are_plain(sealed: Path, name: str) -> None:
    store = Keystore.open(sealed, PHRASE)
    assert _code(lambda: store.create_key(name)) == "keystore-name"
    assert _code(lambda: store.secret(name, create=True)) == "keystore-name"


def test_many_keys_cost_one_derivation(tmp_path: Path, derivations: list[int]) -> None:
    store = Keystore.create(tmp_path / "keys.json", PHRASE, cost=CHEAP)
    dids = [store.create_key(f"site-{index:04}").did for index in range(500)]
    store.save()
    store.save()
    assert len(derivations) == 1
    again = Keystore.open(tmp_path / "keys.json", PHRASE)
    assert [again.identity(name).did for name in again.names()] == dids
    assert len(derivations) == 2


# Passphrases


@pytest.mark.parametrize("phrase", [None, "", "wrong", PHRASE + " ", PHRASE.upper()])
def test_a_wrong_passphrase_is_refused(sealed: Path, phrase: str | None) -> None:
    with pytest.raises(CredentialError) as refused:
        Keystore.open(sealed, phrase)
    assert refused.value.code == "keystore-passphrase"
    assert refused.value.message.startswith(f"{sealed}: "), "a person has more than one keystore"


def test_a_passphrase_for_a_plain_keystore_is_refused(tmp_path: Path) -> None:
    Keystore.create(tmp_path / "keys.json", None)
    assert _code(lambda: Keystore.open(tmp_path / "keys.json", PHRASE)) == "keystore-passphrase"
    assert _code(lambda: Keystore.create(tmp_path / "more.json", "", cost=CHEAP)) == "keystore-passphrase"
    assert not (tmp_path / "more.json").exists()


def test_a_passphrase_is_the_same_typed_composed_or_decomposed(tmp_path: Path) -> None:
    Keystore.create(tmp_path / "keys.json", "h\u00f4pital", cost=CHEAP)
    assert Keystore.open(tmp_path / "keys.json", "ho\u0302pital").names() == []


def test_neither_repr_nor_pickle_shows_a_key(sealed: Path) -> None:
    store = Keystore.open(sealed, PHRASE)
    secret = store.secret("salt:site-01")
    assert repr(store) == f"Keystore({str(sealed)!r}, encrypted, 2 entries)"
    assert repr(secret)[2:-1] not in repr(store)
    with pytest.raises(TypeError, match="pickled"):
        pickle.dumps(store)
