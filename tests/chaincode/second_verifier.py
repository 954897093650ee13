# SPDX-License-Identifier: Apache-2.0
"""A second verifier of bundles, written from chaincode/FORMAT.md alone: it imports nothing of this program.

It covers sections 1 to 3 and 8 to 15 in the plainest way there is, number by number. The contract's replay (section 7) is left to
the first one. Every function raises AssertionError where the evidence does not hold.
"""

import base64
import hashlib
import json
import math
import struct
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def canonical(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


def strict(data: bytes) -> Any:
    value = json.loads(data)
    assert canonical(value) == data
    return value


def unbase64(text: str) -> bytes:
    data = base64.b64decode(text, validate=True)
    assert base64.b64encode(data).decode() == text
    return data


def public_key(did: str) -> bytes:
    number = 0
    for character in did.removeprefix("did:key:z"):
        number = number * 58 + ALPHABET.index(character)
    data = number.to_bytes(34, "big")
    assert data[:2] == b"\xed\x01"
    return data[2:]


def verify(key: bytes, message: bytes, signature: bytes) -> None:
    Ed25519PublicKey.from_public_bytes(key).verify(signature, message)


def pae(kind: str, body: bytes) -> bytes:
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(body), body)


def tree(leaves: list[bytes]) -> bytes:
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\0" + leaves[0]).digest()
    k = 1 << ((len(leaves) - 1).bit_length() - 1)
    return hashlib.sha256(b"\1" + tree(leaves[:k]) + tree(leaves[k:])).digest()


def chunk_root(data: bytes) -> str:
    return tree([data[i : i + (1 << 20)] for i in range(0, len(data), 1 << 20)]).hex()


class Verifier:
    """Reads a bundle; ``run`` checks all that it can and returns the number of rounds that it recomputed."""

    def __init__(self, bundle: bytes) -> None:
        end = bundle.index(b"\n")
        index = strict(bundle[:end])
        assert (index["format"], index["version"]) == ("fedledger-bundle", 1)
        self.files, position = {}, end + 1
        for file in index["files"]:
            self.files[file["name"]] = body = bundle[position : position + file["length"]]
            assert sha(body) == file["sha256"]
            position += file["length"]
        assert position == len(bundle)
        assert list(self.files) == sorted(self.files)
        self.lines = self.files["entries.jsonl"].split(b"\n")
        assert self.lines.pop() == b""
        self.entries = [self.entry(line) for line in self.lines]
        self.federation = self.entries[0]["id"]

    def run(self) -> int:
        self.log()
        for entry in self.entries:
            if entry["kind"] == "admit":
                self.credential(entry)
        rounds = self.rounds()
        self.release()
        return rounds

    def entry(self, line: bytes) -> dict[str, Any]:
        envelope = strict(line)
        (signature,) = envelope["signatures"]
        payload = unbase64(envelope["payload"])
        assert envelope["payloadType"] == "application/vnd.in-toto+json"
        verify(public_key(signature["keyid"]), pae(envelope["payloadType"], payload), unbase64(signature["sig"]))
        statement = strict(payload)
        predicate = statement["predicate"]
        assert predicate["did"] == signature["keyid"]
        subjects = {s["name"]: s["digest"]["sha256"] for s in statement["subject"]}
        kind = statement["predicateType"].removeprefix("urn:fedledger:").removesuffix(":v1")
        return {"id": sha(payload), "kind": kind, "subjects": subjects, **predicate}

    def log_key(self) -> tuple[str, bytes]:
        vkey, federation, rest = self.files["federation.vkey"].decode().split("\n")
        assert (federation, rest) == (self.federation, "")
        name, key_id, encoded = vkey.split("+", 2)
        key = unbase64(encoded)
        assert sha(name.encode() + b"\n" + key)[:8] == key_id
        assert key[0] == 1
        assert (self.entries[0]["origin"], self.entries[0]["log_key"]) == (name, vkey)
        return key_id, key[1:]

    def checkpoint(self, note: str) -> tuple[int, bytes]:
        key_id, key = self.log_key()
        text, _, signatures = note.rpartition("\n\n")
        origin, size, root = text.split("\n")
        assert origin == self.entries[0]["origin"]
        lines = [line.split(" ") for line in signatures.splitlines()]
        (signature,) = [unbase64(e) for dash, name, e in lines if name == origin and unbase64(e)[:4].hex() == key_id]
        verify(key, f"{text}\n".encode(), signature[4:])
        return int(size), unbase64(root)

    def log(self) -> None:
        size, root = self.checkpoint(self.files["checkpoint"].decode())
        assert (size, root) == (len(self.lines), tree(self.lines))

    def credential(self, admit: dict[str, Any]) -> None:
        token = self.files[f"credentials/{admit['subjects']['credential']}.jwt"]
        assert sha(token) == admit["subjects"]["credential"]
        head, claims, signature = token.split(b".")
        decode = [base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4)) for part in (head, claims, signature)]
        said = json.loads(decode[1])
        assert said["iss"] in self.entries[0]["authority"]
        verify(public_key(said["iss"]), head + b"." + claims, decode[2])
        subject = said["vc"]["credentialSubject"]
        assert subject["federation"] == self.federation
        assert (said["sub"], subject["role"], subject["organisation"]) == (
            admit["new_did"],
            admit["role"],
            admit["organisation"],
        )
        assert (said["nbf"], said["exp"]) == (admit["not_before"], admit["not_after"])
        assert said["nbf"] - 60 <= admit["at"] < said["exp"] + 60

    def model(self, data: bytes) -> dict[str, tuple[str, list[int], bytes]]:
        length = int.from_bytes(data[:8], "little")
        assert length % 8 == 0
        header = strict(data[8 : 8 + length].rstrip(b" "))
        body, found = data[8 + length :], {}
        names = {"F32": ("float32", 4), "I64": ("int64", 8)}
        position = 0
        for name in sorted(header, key=lambda n: (-names[header[n]["dtype"]][1], n)):
            tensor = header[name]
            start, stop = tensor["data_offsets"]
            assert start == position
            position = stop
            found[name] = (names[tensor["dtype"]][0], tensor["shape"], body[start:stop])
        assert position == len(body)
        return found

    def model_digest(self, model: dict[str, tuple[str, list[int], bytes]]) -> str:
        return sha(canonical([
            {"dtype": dtype, "name": name, "sha256": sha(data), "shape": shape}
            for name, (dtype, shape, data) in sorted(model.items())
        ]))  # fmt: skip

    def rounds(self) -> int:
        opened: dict[str, Any] = {}
        commits: dict[str, dict[str, Any]] = {}
        terms: dict[str, Any] = {}
        state: list[list[float]] | None = None
        done = 0
        for entry in self.entries:
            match entry["kind"]:
                case "propose":
                    terms = entry["terms"]
                    assert sha(canonical(terms)) == entry["subjects"]["agreement"]
                case "open":
                    opened, commits = entry, {}
                case "commit":
                    commits[entry["member"]] = entry
                case "record":
                    updates = [(commits[m], self.update(commits[m], opened, terms)) for m in entry["included"]]
                    state = self.result(entry, opened, terms, updates, state)
                    done += 1
        return done

    def update(self, commit: dict[str, Any], opened: dict[str, Any], terms: dict[str, Any]) -> list[int]:
        blob = self.files[f"blobs/{commit['subjects']['update']}"]
        assert len(blob) == commit["size"]
        assert chunk_root(blob) == commit["subjects"]["update"]
        end = blob.index(b"\n")
        header = strict(blob[:end])
        bounds = [
            1 << t["clip_exponent"] + t["fraction_bits"]
            for t in terms["model"]["tensors"] if t["rule"] == "mean" for _ in range(math.prod(t["shape"]))
        ]  # fmt: skip
        assert {k: v for k, v in header.items() if k != "salt"} == {
            "federation": self.federation, "agreement": commit["subjects"]["agreement"], "round": commit["round"],
            "attempt": commit["attempt"], "base": opened["subjects"]["base-model"], "member": commit["member"],
            "encoding": terms["model"]["encoding"], "length": len(bounds),
        }  # fmt: skip
        values = list(struct.unpack(f"<{len(bounds)}i", blob[end + 1 :]))
        assert all(-bound <= q <= bound for q, bound in zip(values, bounds, strict=True))
        return values

    def result(self, record: Any, opened: Any, terms: Any, updates: list[Any], state: Any) -> list[list[float]]:
        weight = sum(commit["examples"] for commit, _ in updates)
        assert weight == record["examples"]
        totals = [sum(c["examples"] * q[i] for c, q in updates) for i in range(len(updates[0][1]))]
        assert chunk_root(struct.pack(f"<{len(totals)}q", *totals)) == record["subjects"]["sum"]
        base = self.model(self.files[f"models/{opened['subjects']['base-model']}.safetensors"])
        assert self.model_digest(base) == opened["subjects"]["base-model"]
        rows, moves = self.adam(terms, totals, weight, state)
        assert (
            chunk_root(struct.pack(f"<{2 * len(totals)}d", *rows[0], *rows[1])) == record["subjects"]["optimiser-state"]
        )
        new, position = dict(base), 0
        for t in terms["model"]["tensors"]:
            if t["rule"] == "mean":
                dtype, shape, data = base[t["name"]]
                old = struct.unpack(f"<{len(data) // 4}f", data)
                values = [x + moves[position + i] for i, x in enumerate(old)]
                new[t["name"]] = (dtype, shape, struct.pack(f"<{len(old)}f", *values))
                position += len(old)
        assert self.model_digest(new) == record["subjects"]["model"]
        return rows

    def adam(self, terms: Any, totals: list[int], weight: int, state: Any) -> tuple[list[list[float]], list[float]]:
        assert terms["aggregation"]["optimiser"] == "adam"
        rate, beta1, beta2, tau = (
            float(terms["aggregation"]["parameters"][n]) for n in ("learning_rate", "beta1", "beta2", "tau")
        )
        (fraction,) = {t["fraction_bits"] for t in terms["model"]["tensors"] if t["rule"] == "mean"}
        first, second = state or ([0.0] * len(totals), [tau * tau] * len(totals))
        rows: list[list[float]] = [[], []]
        moves = []
        for total, m, v in zip(totals, first, second, strict=True):
            d = float(total) / float(weight) * 2.0**-fraction
            m = (beta1 * m) + ((1 - beta1) * d)  # noqa: PLW2901
            s = d * d
            v = (beta2 * v) + ((1 - beta2) * s)  # noqa: PLW2901
            moves.append((rate * m) / (math.sqrt(v) + tau))
            rows[0].append(m)
            rows[1].append(v)
        return rows, moves

    def release(self) -> None:
        (released,) = [entry for entry in self.entries if entry["kind"] == "release"]
        model = self.model(self.files["release/model.safetensors"])
        assert self.model_digest(model) == released["subjects"]["model"]
        assert sha(self.files["release/model-card.md"]) == released["subjects"]["model-card"]
        head, _, note = self.files["release/model.proof"].decode().partition("\n\n")
        first, extra, index, *path = head.split("\n")
        envelope = unbase64(extra.removeprefix("extra "))
        assert first == "c2sp.org/tlog-proof@v1"
        assert self.entry(envelope)["id"] == released["id"]
        size, root = self.checkpoint(note)
        number, last, current = int(index.removeprefix("index ")), size - 1, hashlib.sha256(b"\0" + envelope).digest()
        for line in path:  # RFC 9162 section 2.1.3.2
            sibling = unbase64(line)
            assert last > 0
            if number & 1 or number == last:
                current = hashlib.sha256(b"\1" + sibling + current).digest()
                while not number & 1 and number:
                    number, last = number >> 1, last >> 1
            else:
                current = hashlib.sha256(b"\1" + current + sibling).digest()
            number, last = number >> 1, last >> 1
        assert (last, current) == (0, root)
