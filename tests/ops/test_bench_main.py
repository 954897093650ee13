# SPDX-License-Identifier: Apache-2.0
"""What `make bench` leaves behind of the comparison."""

from pathlib import Path

import pytest

from ops.bench import compare, contestants, limits
from ops.bench.__main__ import arguments, is_full, run_compare
from ops.bench.contestants import PLAIN, ContestantError, carry_out
from ops.bench.prepare import prepare
from tests.ops.test_bench_compare import workload


def test_what_the_runs_left_is_removed_also_where_one_of_them_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a killed bench left is not taken for this one's."""
    seen: list[list[Path]] = []

    def failing(_: object, folder: Path, *__: object, **___: object) -> None:
        seen.append(sorted(folder.glob("*")))
        (folder / "W1" / "plain-1").mkdir(parents=True)
        raise ContestantError("plain ended with 1")

    (tmp_path / "compare" / "old").mkdir(parents=True)
    monkeypatch.setattr(limits, "CACHE", tmp_path)
    monkeypatch.setattr(compare, "compare", failing)
    with pytest.raises(ContestantError):
        run_compare(arguments(["--work", "W1"]))
    assert seen == [[]]
    assert not (tmp_path / "compare").exists()


def test_a_run_that_leaves_too_much_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(tmp_path, workload("W1"))
    monkeypatch.setattr(contestants, "ROOM", 100)
    carry_out(PLAIN, tmp_path, None, 1)
    assert not list(tmp_path.glob("plain*"))


def test_only_a_full_run_writes_the_page() -> None:
    everything = ["--flower", "somewhere"]
    assert is_full(arguments(everything))
    for less in ([], ["--quick"], ["--only", "compare"], ["--work", "W1"], ["--contestants", PLAIN]):
        assert not is_full(arguments([*less, *(everything if less else [])])), less
