# SPDX-License-Identifier: Apache-2.0
"""A second opinion on credentials from DIDKit, in a child process that may crash or hang. The sole importer of didkit.

DIDKit 0.3.3 is native code that hostile credentials can crash, hang or send to the network, and whose threads
crash an interpreter that exits normally. So: tokens are screened first, one child judges a whole batch under
a memory and a time limit, and it ends with os._exit. DIDKit checks signatures and the validity on this
machine's clock without any leeway; the policy is ours (`identity.credentials`).
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from identity import canonical, credentials, jws
from identity.credentials import Membership
from identity.did import public_key_from_did
from identity.errors import CredentialError, EvidenceError

# No verificationMethod: DIDKit would then no longer bind the key to the issuer.
OPTIONS: Final = '{"proofFormat":"jwt","proofPurpose":"assertionMethod"}'
_CHILDREN: Final = 9  # how many one batch may use up before the rest is refused unseen
_STALL: Final = 2.0  # seconds that one token may take
_SECONDS_EACH: Final = 0.02  # added to the time limit for every token: ten times what one takes
_DETAIL: Final = 300  # characters
_LINE_LIMIT: Final = 4096  # bytes; what the child writes about one token
_VERDICTS: Final[dict[str, Literal["accepted", "refused"]]] = {"accepted": "accepted", "refused": "refused"}
_READY: Final = {"verdict": "accepted", "detail": "ready"}
_ROOT: Final = str(Path(__file__).resolve().parents[1])


@dataclass(frozen=True, slots=True)
class Opinion:
    """What DIDKit thinks of a token.

    `not-available` only where it is not installed; no answer is `refused`.
    """

    verdict: Literal["accepted", "refused", "not-available"]
    detail: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """Both judgements of one token.

    `membership` is set where the credential is accepted: by us, and by DIDKit unless it is not available.
    `ours` is "accepted" or our refusal as text. `error` is why there is no membership: our refusal, or
    CredentialError(second-opinion-disagrees).
    """

    membership: Membership | None
    ours: str
    theirs: Opinion
    error: CredentialError | None


def verify_both(
    tokens: Sequence[str],
    *,
    issuers: Collection[str],
    federation: str,
    now: int,
    timeout: float = 10.0,
    memory: int = 1 << 30,
) -> list[Verdict]:
    """Our judgement and DIDKit's on each token, in order; never raises for a bad token, the row says so.

    That we refuse what DIDKit accepts is normal. The reverse is CredentialError(second-opinion-disagrees) in
    that row; a credential inside our leeway but outside its own dates on this machine's clock ends there too.
    """
    opinions = second_opinion(tokens, timeout=timeout, memory=memory)
    return [
        combine(token, theirs, issuers=issuers, federation=federation, now=now)
        for token, theirs in zip(tokens, opinions, strict=True)
    ]


def combine(token: str, theirs: Opinion, *, issuers: Collection[str], federation: str, now: int) -> Verdict:
    """Our judgement of one token beside DIDKit's opinion of it."""
    try:
        membership = credentials.verify(token, issuers=issuers, federation=federation, now=now)
    except CredentialError as error:
        return Verdict(None, str(error), theirs, error)
    if theirs.verdict == "refused":
        disagreement = CredentialError(
            "second-opinion-disagrees",
            f"We accept the credential of {membership.subject}, DIDKit does not: {theirs.detail}.",
            next="compare this machine's clock with the credential's dates",
        )
        return Verdict(None, "accepted", theirs, disagreement)
    return Verdict(membership, "accepted", theirs, None)


def second_opinion(tokens: Sequence[str], *, timeout: float = 10.0, memory: int = 1 << 30) -> list[Opinion]:
    """DIDKit's opinion of each token, in order; never raises for a bad token.

    `timeout` (seconds, plus 20 ms a token) bounds the whole batch, `memory` (bytes) the child's address
    space. What the screening stops never reaches DIDKit. Without an answer there is no acceptance: `refused`,
    and why.
    """
    reasons = [screen(token) for token in tokens]
    shown = [token for token, reason in zip(tokens, reasons, strict=True) if reason is None]
    answers = iter(judge(shown, timeout=timeout, memory=memory))
    return [
        next(answers) if reason is None else Opinion("refused", f"not shown to DIDKit: {reason}") for reason in reasons
    ]


def screen(token: str) -> str | None:
    """Why a token must not reach DIDKit, or None.

    Every DID in it must be an Ed25519 did:key, or DIDKit would ask the network whom the token names; a
    `proof` inside `vc` would take it to JSON-LD, where small documents crash it or hang it.
    """
    try:
        parts = jws.split(token)
    except CredentialError as error:
        return str(error)
    if parts.header.get("alg") != "EdDSA" or not parts.header.keys() <= {"alg", "kid", "typ"}:
        return "the header is not that of an EdDSA JWT"
    vc = parts.claims.get("vc")
    if not isinstance(vc, dict) or "vp" in parts.claims or "proof" in vc:
        return "it is not a credential, or vc carries a proof of its own"
    issuer = vc.get("issuer")
    named = [parts.header.get("kid"), parts.claims.get("iss")]
    named.append(issuer.get("id") if isinstance(issuer, dict) else issuer)
    if not all(_is_allowed(name) for name in named):
        return "kid, iss or vc.issuer is not an Ed25519 did:key"
    for text in _texts(parts.claims):
        if text.strip().lower().startswith("did:") and not _is_allowed(text):
            return f"it names {text[:64]!r}, which is not an Ed25519 did:key"
    return None


def judge(tokens: Sequence[str], *, timeout: float, memory: int, path: str = _ROOT) -> list[Opinion]:
    """The opinions of child processes on tokens that were NOT screened; `path` is where a child imports from.

    A token on which a child crashes or hangs is refused, and the tokens after it go to a new child.
    """
    deadline = time.monotonic() + timeout + _SECONDS_EACH * len(tokens)
    opinions: list[Opinion] = []
    for _ in range(_CHILDREN):
        pending = tokens[len(opinions) :]
        if not pending or time.monotonic() >= deadline:
            break
        started, answers, ending = _run_child(pending, deadline - time.monotonic(), memory, path)
        opinions += answers[: len(pending)]
        if not started:
            opinions += [ending] * len(pending)
        elif len(answers) < len(pending):
            # The child judges in order: the first token without an answer is the one that it died on.
            opinions.append(ending)
    unseen = Opinion("refused", "no opinion: other credentials of the batch used up its time or its children")
    return opinions + [unseen] * (len(tokens) - len(opinions))


def read_result(result: str) -> Opinion:
    """What DIDKit's answer means.

    Its `checks` name the proof also when there are errors, so both must be right.
    """
    fields = json.loads(result)
    checks, errors, warnings = fields["checks"], fields["errors"], fields["warnings"]
    detail = "; ".join(str(line) for line in [*errors, *warnings])
    if errors == [] and "JWS" in checks:
        return Opinion("accepted", detail)
    return Opinion("refused", detail or f"DIDKit checked {checks}, not the token's signature")


def _is_allowed(name: object) -> bool:
    """Whether it is an Ed25519 did:key, or a DID URL with a fragment of one."""
    if not isinstance(name, str):
        return False
    try:
        public_key_from_did(name.partition("#")[0])
    except CredentialError:
        return False
    return True


def _texts(value: Any) -> Iterator[str]:
    """Every string in a JSON value, keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from value
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


def _run_child(tokens: Sequence[str], seconds: float, memory: int, path: str) -> tuple[bool, list[Opinion], Opinion]:
    """Whether a child got as far as reading tokens, its answers, and what to say of the next token."""
    # -P: nothing is imported from the working folder. No variable of ours reaches the child.
    limits = [str(memory), str(_LINE_LIMIT * (len(tokens) + 1))]
    command = [sys.executable, "-P", "-B", "-m", "identity.didkit_check", *limits]
    environment = {"PYTHONPATH": path, "MALLOC_ARENA_MAX": "2", "LC_ALL": "C.UTF-8"}
    try:
        # Files and not pipes: neither side can block the other, and what the child may write is limited.
        with tempfile.TemporaryFile() as source, tempfile.TemporaryFile() as sink:
            source.write("".join(f"{token}\n" for token in tokens).encode("utf-8"))
            source.seek(0)
            with subprocess.Popen(
                command, env=environment, cwd="/", stdin=source, stdout=sink, stderr=subprocess.DEVNULL
            ) as child:
                how = _wait(child, seconds)
            sink.seek(0)
            return _read_answers(sink.read(), how)
    except OSError as error:  # no memory for a process, no room on the disk
        return False, [], Opinion("refused", f"no opinion: the child did not start: {error.strerror}")


def _wait(child: subprocess.Popen[bytes], seconds: float) -> str:
    """Waits for the child, ends it after `seconds`, and says how it ended."""
    try:
        status = child.wait(max(seconds, 0.0))
    except subprocess.TimeoutExpired:
        child.kill()
        return "reached the time limit"
    if status == -signal.SIGALRM:
        return f"gave no answer in {_STALL:g} s"
    return f"ended with status {status}" if status >= 0 else f"was ended by signal {-status}"


def _read_answers(output: bytes, how: str) -> tuple[bool, list[Opinion], Opinion]:
    """Reads the child's lines: a greeting, then one answer for every token. A line cut short is no answer."""
    try:
        greeting, *answers = [canonical.parse_json(line, limit=_LINE_LIMIT) for line in output.split(b"\n")[:-1]]
        if greeting["verdict"] == "not-available":
            return False, [], Opinion("not-available", greeting["detail"])
        if greeting != _READY:
            raise ValueError(greeting)
        opinions = [Opinion(_VERDICTS[answer["verdict"]], answer["detail"]) for answer in answers]
    except (EvidenceError, KeyError, TypeError, ValueError):
        return False, [], Opinion("refused", f"no opinion: the child did not start and {how}")
    return True, opinions, Opinion("refused", f"no opinion: on this credential the child {how}")


def _say(opinion: Opinion) -> None:
    """One line on stdout, at once."""
    detail = opinion.detail[:_DETAIL].encode("ascii", "backslashreplace").decode("ascii")
    os.write(1, json.dumps({"verdict": opinion.verdict, "detail": detail}).encode("ascii") + b"\n")


async def _answer_all() -> None:
    """The child: a greeting, an answer for each line of stdin, and an end without Python's finalisation."""
    try:
        import didkit  # noqa: PLC0415 - never in the parent
    except ModuleNotFoundError as error:
        _say(Opinion("not-available", f"DIDKit is not installed: {error}"))
        os._exit(0)
    if not hasattr(didkit, "verify_credential"):
        _say(Opinion("not-available", "The installed didkit is not 0.3.3; it has another interface."))
        os._exit(0)
    _say(Opinion("accepted", _READY["detail"]))
    for line in sys.stdin.buffer:
        # The kernel ends a child that hangs, whatever its threads hold: SIGALRM keeps its default action.
        signal.setitimer(signal.ITIMER_REAL, _STALL)
        try:
            opinion = read_result(await didkit.verify_credential(line.decode("utf-8").strip(), OPTIONS))
        except BaseException as error:  # a Rust panic is not an Exception
            opinion = Opinion("refused", f"{type(error).__name__}: {error}")
        signal.setitimer(signal.ITIMER_REAL, 0)
        _say(opinion)
    # DIDKit's threads crash an interpreter that finalises.
    os._exit(0)


def _main(memory: str, output: str) -> None:
    for limit, wanted in (
        (resource.RLIMIT_AS, int(memory)),
        (resource.RLIMIT_FSIZE, int(output)),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(limit)[1]
        value = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(limit, (value, value))
    # Whoever started the parent may have had SIGALRM ignored or blocked; a child inherits both.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    asyncio.run(_answer_all())


if __name__ == "__main__":
    _main(*sys.argv[1:])
