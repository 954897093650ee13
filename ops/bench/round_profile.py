# SPDX-License-Identifier: Apache-2.0
"""The functions in which the leading process spends a warm round, by Python's own profiler.

python -m ops.bench.round_profile FEDERATION FOLDER

The profiler makes each call of a Python function dearer: the order of the functions counts, not the sum. What other threads
and other processes do is not seen.
"""

import cProfile
import pstats
import secrets
import sys
import tempfile
from pathlib import Path

from chaincode.process import collect_rarely
from coordinator.steps import Event
from ops import settings
from ops.bench.limits_measure import run_command
from ops.bench.prepare import prepare
from ops.bench.workloads import Workload

FUNCTIONS = 30


def round_profile(workload: Workload) -> str:
    """The profile of a workload's warm rounds, as text."""
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder), workload)
        said = run_command(
            [sys.executable, "-m", "ops.bench.round_profile", f"{folder}/federation.toml", f"{folder}/run"]
        )
    return f"{workload.name}, the leading process:\n{said[said.index(_TITLE) :]}"


_TITLE = "   own ms    all ms   calls  of a round, in the function"


def _report(profiler: cProfile.Profile, rounds: int) -> list[str]:
    """The functions with the most time of their own: milliseconds and calls of a round."""
    found: dict[tuple[str, int, str], tuple[int, int, float, float, object]] = vars(pstats.Stats(profiler))["stats"]
    lines = [_TITLE]
    for (file, number, name), (_, calls, own, all_, _) in sorted(found.items(), key=lambda item: -item[1][2])[
        :FUNCTIONS
    ]:
        where = "" if file == "~" else f" ({'/'.join(Path(file).parts[-2:])}:{number})"
        lines.append(f"{own / rounds * 1e3:9.3f} {all_ / rounds * 1e3:9.3f} {calls / rounds:7.0f}  {name}{where}")
    return lines


def main(federation: Path, place: Path) -> None:
    """Run the federation, and print the profile of its rounds after the first one."""
    collect_rarely()  # as the program does
    settings.prepare_ray(secrets.token_hex(32))  # before Ray is imported
    from ops import runner  # noqa: PLC0415
    from ops.federation_file import load  # noqa: PLC0415
    from ops.narrator import Narrator  # noqa: PLC0415
    from ops.run_folder import RunFolder  # noqa: PLC0415

    wanted, profiler = load(federation), cProfile.Profile()

    def watch(event: Event) -> None:
        if event.kind == "record" and event.round == 1:
            profiler.enable()
        elif event.kind == "record" and event.round == wanted.rounds:
            profiler.disable()

    with Narrator(wanted.rounds) as narrator:
        runner.Run(wanted, RunFolder(place), runner.Options(baselines=False), narrator, watch=watch).carry_out()
    print("\n".join(_report(profiler, wanted.rounds - 1)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
