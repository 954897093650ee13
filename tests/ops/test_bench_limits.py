# SPDX-License-Identifier: Apache-2.0
"""The benchmark's own logic: medians of turns, goals judged in the right direction, ledgers and rounds that an audit
passes, curves drawn from their data. Nothing here asserts how long anything takes."""

import hashlib
from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest
from cryptography.exceptions import InvalidSignature

from chaincode.audit import audit
from chaincode.audit.bundle_source import bundle_source
from chaincode.audit.folder_source import folder_source
from chaincode.ledgers.sqlite import SqliteLedger
from ops.bench import growth, growth_scale, ledgers, limits, limits_crypto, limits_ledger, limits_round, machine
from ops.bench.growth import Growth
from ops.bench.growth_lengths import Appender, LengthPoint
from ops.bench.growth_runs import RunPoint
from ops.bench.ledgers import Length
from ops.bench.limits_bytes import verify_and_sum
from ops.bench.limits_crypto import AllCores, cut, hash_seconds, messages, prepared, verify_seconds
from ops.bench.limits_ledger import appending
from ops.bench.limits_measure import Paired, command, run_command, spent, take_turns
from ops.bench.people import people
from ops.bench.report import row
from ops.run_folder import RunFolder

GONE = {7, 8}
"""Claims about updates: a generated ledger has their digests only."""
OUTSIDE = {2, 9, 10}
"""Claims for which nobody kept a head, released or cosigned."""


def verdicts(report):
    return {claim.number: claim.verdict for claim in report.claims}


# Turns


def test_each_turn_is_held_against_the_limits_before_and_after_it():
    taken = Paired(limit=(1.0, 3.0, 1.0), ours=(4.0, 2.0))
    assert taken.ratios == [2.0, 1.0]
    assert taken.ratio == 1.5
    assert (taken.our_seconds, taken.limit_seconds) == (3.0, 1.0)


def test_a_machine_that_slows_down_leaves_the_ratio_alone():
    slowing = [1.0, 1.5, 2.0, 2.5, 3.0]  # limit, ours, limit, ours, limit: twice the limit's work, each time slower
    taken = Paired(limit=tuple(slowing[::2]), ours=tuple(2 * t for t in slowing[1::2]))
    assert taken.ratio == 2.0


def test_the_two_take_turns_and_the_first_of_each_is_not_counted():
    order, times = [], iter(range(100))

    def one(name):
        def run():
            order.append(name)
            return float(next(times))

        return run

    taken = take_turns(one("limit"), one("ours"), 2)
    assert order == [*("limit", "ours"), *("limit", "ours", "limit", "ours", "limit")]
    assert taken == Paired(limit=(2.0, 4.0, 6.0), ours=(3.0, 5.0))


@pytest.mark.parametrize(
    ("ratio", "goal", "better", "reached"),
    [
        (1.4, 1.5, "at-most", True),
        (1.6, 1.5, "at-most", False),
        (0.7, 0.6, "at-least", True),
        (0.5, 0.6, "at-least", False),
    ],
)
def test_a_goal_is_judged_in_its_direction(ratio, goal, better, reached):
    judged = row("what", "1", "2", ratio, goal, better)
    assert judged.reached is reached
    assert limits.line(judged).startswith("reached" if reached else "MISSED")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0000123, "12.3 us"), (0.0123, "12.3 ms"), (1.234, "1.23 s"), (123.4, "123 s")]
)
def test_seconds_are_written_for_people(seconds, text):
    assert spent(seconds) == text


def test_a_command_that_fails_is_not_measured():
    with pytest.raises(RuntimeError, match="ended with 2"):
        run_command(command("status", "no-such-folder"))


# The physical limits


def test_the_bare_verification_verifies(tmp_path):
    with appending(3, 1) as federation:
        signed = messages(federation.commitments)
        assert verify_seconds(prepared(signed)) > 0
        (key, signature, message), *_ = signed
        with pytest.raises(InvalidSignature):
            verify_seconds(prepared([(key, signature, message + b".")]))
        with AllCores(signed, 2) as cores:
            assert cores.messages == 2 * len(signed)
            assert cores.seconds() > 0


def test_hashing_in_parts_covers_every_byte():
    data = memoryview(bytes(range(256)) * 41)
    assert b"".join(cut(data, 3)) == bytes(data)
    assert hash_seconds(cut(data, 3), 3) > 0


def test_bytes_to_hash_are_dealt_out_in_as_few_parts_as_there_are_threads(monkeypatch):
    dealt = []
    monkeypatch.setattr(limits_crypto, "_hash", dealt.append)
    hash_seconds([b"%d" % number for number in range(7)], 2)
    assert sorted(dealt) == [[b"0", b"2", b"4", b"6"], [b"1", b"3", b"5"]]


# Ledgers


@pytest.mark.parametrize("entries", [1, 40, 500, 5_000, 1_000_000])
@pytest.mark.parametrize("sites", [3, 100])
def test_a_length_is_reached_and_hardly_exceeded(entries, sites):
    rounds = Length(entries, sites).agreements
    made = (
        2 + sites + sum(1 + sites + r * (sites + 3) for r in rounds) + len(rounds) - 1
    )  # a release ends all but the last
    least = 2 + sites + 1 + sites + sites + 3
    assert entries <= made <= max(entries, least) + 2 * (sites + 3)


def test_a_made_ledger_is_one_that_the_audit_passes_and_that_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(ledgers, "ROUNDS", 2)
    monkeypatch.setattr(ledgers, "BATCH", 7)
    monkeypatch.setattr(ledgers, "SIGNERS", 1)
    length = Length(60, 3)
    place = ledgers.build(tmp_path / "run", replace(length))
    run = RunFolder(tmp_path / "run")
    with folder_source(run.path) as source:
        report = audit(source, recompute=False)
    assert not report.failed
    assert {n for n, verdict in verdicts(report).items() if verdict != "PASS"} <= GONE | OUTSIDE
    assert report.size == place.entries >= 60
    with ledgers.reopen(run, people(3)) as ledger:
        for _ in range(2):
            Appender(ledger, length, place).append()
        assert ledger.size == place.entries + 2 * 3 * (3 + 3)


def test_a_made_ledger_is_kept_and_a_broken_one_made_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(ledgers, "SIGNERS", 1)
    run, place = ledgers.cached(tmp_path, Length(20, 2))
    assert ledgers.cached(tmp_path, Length(20, 2)) == (run, place)
    run.ledger.write_bytes(b"no ledger")
    assert ledgers.cached(tmp_path, Length(20, 2)) == (run, place)
    with SqliteLedger.open(run.ledger) as ledger:
        assert ledger.size == place.entries


def test_what_is_stored_is_what_was_verified_bare():
    with appending(4, 2) as federation:
        stored = set(federation.commitments)
        federation.store()
        assert stored <= set(federation.ledger.ledger.entries())
        assert len(stored) == 8
        assert stored.isdisjoint(federation.commitments)


def test_a_replay_of_an_unsound_log_is_not_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(limits_ledger, "bundle_source", lambda _: _Unsound())
    with pytest.raises(RuntimeError, match="not sound"):
        limits_ledger.replay_seconds(tmp_path)


class _Unsound:
    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def entries(self):
        yield b"no entry"

    def observer(self):
        return self

    def see(self, index, entry):
        return None


# The round of large updates


def test_a_made_round_is_recomputed_by_the_audit_to_the_bit(tmp_path):
    made = limits_round.cached(tmp_path, 1000)
    with bundle_source(made.bundle) as source:
        report = audit(source)
    assert {n for n, verdict in verdicts(report).items() if verdict != "PASS"} == {2, 10}
    with made.blobs() as blobs:
        verify_and_sum(made, blobs, 1)
        verify_and_sum(made, blobs, 2)
    assert limits_round.cached(tmp_path, 1000) == made
    assert "PASS" in run_command(command("verify", made.run.model, "--key", made.run.key_file))


@pytest.mark.parametrize("elements", [1, 7, 1000, 10_000_000])
def test_the_tensors_have_as_many_elements_as_asked(elements):
    def product(shape):
        return shape[0] * (shape[1] if len(shape) > 1 else 1)

    assert sum(product(shape) for _, shape in limits_round.shapes(elements)) == elements


# Growth


def point(sites, parameters, seconds, peak):
    roles = {"workers": seconds, "main process": seconds}
    return RunPoint(sites, parameters, seconds, first=3.0, peak=peak, phases={"seal": seconds / 2}, roles=roles)


CURVES = Growth(
    quick=False,
    sites=(point(10, 210, 0.02, 10**9), point(10_000, 210, 3.0, 2 * 10**9)),
    parameters=(point(4, 1000, 0.02, 10**9), point(4, 10**6, 0.04, 10**9), point(4, 10**8, 8.0, 3 * 10**9)),
    lengths=(LengthPoint(10**3, 1e-4, 1.0, 1e-3, 2200.0), LengthPoint(10**6, 1.3e-4, 1.3, 2e-3, 2200.0)),
)


def test_the_curves_are_judged():
    judged = {r.what.split(",")[0]: r for r in growth.growth_rows(CURVES)}
    assert len(judged) == 4
    site, parameter, appended, opened = growth.growth_rows(CURVES)
    assert (site.ratio, site.reached) == (pytest.approx(0.3 / 0.4), True)
    assert (parameter.ratio, parameter.reached) == (pytest.approx(2.0), False)
    assert "5.0 float32 copies" in parameter.note
    assert (appended.ratio, appended.reached) == (1.3, False)
    assert (opened.ratio, opened.reached) == (pytest.approx(0.002), True)


def test_the_lower_ends_alone_are_not_judged_by_goals_of_the_upper():
    quick = replace(CURVES, sites=CURVES.sites[:1], parameters=CURVES.parameters[:2], lengths=CURVES.lengths[:1])
    assert growth.growth_rows(quick) == []


def test_the_plots_are_made_of_the_data_and_of_nothing_else(tmp_path):
    pytest.importorskip("matplotlib")
    page = growth.render(CURVES, tmp_path / "a")
    growth.render(CURVES, tmp_path / "b")
    growth.render(replace(CURVES, sites=(*CURVES.sites[:1], point(10_000, 210, 4.0, 2 * 10**9))), tmp_path / "c")
    digests = [
        {path.name: hashlib.sha256(path.read_bytes()).digest() for path in (tmp_path / f).iterdir()} for f in "abc"
    ]
    assert digests[0] == digests[1]
    assert {name for name in digests[0] if digests[0][name] != digests[2][name]} == {"growth.json", "growth-sites.svg"}
    for name in digests[0]:
        if name.endswith(".svg"):
            assert name in page
            assert ET.parse(tmp_path / "a" / name).getroot().tag.endswith("svg")  # noqa: S314  (our own file)
    assert "| 10,000 | 3,000 ms | 0.3 ms | 0.6 ms |" in page
    assert "seal 1.5 s" in page


def test_a_hundred_thousand_sites_are_reckoned_from_the_curves():
    of = growth_scale.unit(CURVES.sites, CURVES.parameters, CURVES.lengths)
    assert of == growth_scale.Unit(lead=3e-4, train=3e-4, parameter=2e-8, append=1.3e-4, entry=2200.0)
    assert growth_scale.entries(100_000) == 100_030
    one = growth_scale.cost(of, 100_000, 10**6, 1)
    ten = growth_scale.cost(of, 100_000, 10**6, 10)
    assert one.cpu == ten.cpu == pytest.approx(100_000 * (3e-4 + 3e-4 + 0.02))
    assert one.kept == ten.kept == 100_000 * (4 * 10**6 + 400)
    # train / cores, then the ten coordinators side by side, then 400 GB through 1.25 GB/s
    assert one.wall == pytest.approx(2030 / 16 + 3 + 400.04 / 1.25)
    assert ten.wall == pytest.approx(2030 / 160 + 3 + 40.004 / 1.25)


def test_our_own_modules_are_compiled_like_everybody_elses(tmp_path):
    source = tmp_path / "chaincode" / "rules" / "one.py"
    source.parent.mkdir(parents=True)
    source.write_text("made = 1\n")
    machine.compile_ours(tmp_path)
    assert list(source.parent.glob("__pycache__/one.*.pyc"))
