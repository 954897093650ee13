# SPDX-License-Identifier: Apache-2.0
"""A crew gives what one thread gives, in order, on several cores at once, and its threads are where the caller is not."""

import os
import threading
from collections.abc import Callable
from multiprocessing import get_context

import pytest

from chaincode import crew as module
from chaincode.crew import Crew, own_crew


@pytest.mark.parametrize("others", [0, 1, 3])
@pytest.mark.parametrize("number", [0, 1, 4, 5, 97])
def test_results_come_in_order(others: int, number: int) -> None:
    of = Crew(others)
    for _ in range(20):
        assert of.map(lambda value: value * value, list(range(number)), 2) == [n * n for n in range(number)]


def test_every_thread_works_and_so_does_the_caller() -> None:
    """Each item waits for the others: one thread alone would never pass."""
    barrier = threading.Barrier(3, timeout=60)
    names = Crew(2).map(lambda _: (barrier.wait(), threading.get_ident())[1], [0, 1, 2], 1)
    assert len(set(names)) == 3
    assert threading.get_ident() in names


def test_no_thread_is_woken_for_few_items() -> None:
    assert set(Crew(3).map(lambda _: threading.get_ident(), [0] * 7, 4)) == {threading.get_ident()}


@pytest.mark.parametrize("bad", [0, 6, 11])
def test_what_the_work_raises_is_raised_and_the_crew_goes_on(bad: int) -> None:
    def work(number: int) -> int:
        if number == bad:
            raise ValueError(f"item {number}")
        return number

    of = Crew(2)
    with pytest.raises(ValueError, match=f"item {bad}"):
        of.map(work, list(range(12)), 1)
    assert of.map(work, [20, 21, 22, 23], 1) == [20, 21, 22, 23]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system does not say on which core a thread runs")
def test_the_callers_core_is_barred_to_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    cores = os.sched_getaffinity(0)
    if len(cores) < 2:
        pytest.skip("one core")
    of, here = Crew(1), threading.get_ident()
    for core in sorted(cores)[:2]:
        monkeypatch.setattr(module, "_core", lambda core=core: core)
        barred = _allowed(of)
        barred = _allowed(of)  # a thread that has just started is barred from the next use on
        assert barred.pop(here) == cores, "the caller may go where it will"
        assert list(barred.values()) == [cores - {core}]


def _allowed(of: Crew) -> dict[int, set[int]]:
    """Where each thread of a crew, and the caller, may run."""
    barrier = threading.Barrier(2, timeout=60)
    return dict(of.map(lambda _: (barrier.wait(), (threading.get_ident(), os.sched_getaffinity(0)))[1], [0, 1], 1))


def test_a_forked_process_has_a_crew_of_its_own() -> None:
    expected = list(map(abs, range(-40, 0)))
    assert own_crew().map(abs, range(-40, 0), 2) == expected
    with get_context("fork").Pool(1) as pool:
        assert pool.apply_async(_in_a_fork).get(60) == expected


def _in_a_fork() -> list[int]:
    work: Callable[[int], int] = abs
    return own_crew().map(work, range(-40, 0), 2)
