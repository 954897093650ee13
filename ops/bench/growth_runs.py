# SPDX-License-Identifier: Apache-2.0
"""Whole runs through ``fedledger run``, of more and more sites and of larger and larger models."""

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from string import Template

from ops.bench.contestants import FEDLEDGER, Run, carry_out

WARM = 1
"""Rounds that are left out of the medians."""
FEW_SITES = 4  # of the runs with large models
LARGE, LARGE_ROUNDS = 10**7, 4  # parameters from which on a round is long, and its updates fill the disk

_FILE = Template("""name = "growth"
task = "growing.py:Growing"
sites = $sites
rounds = $rounds
seed = 1

[agreement]
purpose = "Measure what growth costs"
legal_basis = "No personal data"
commit_seconds = 3600
deliver_seconds = 3600
record_seconds = 3600
""")

_TINY = '''"""A perceptron 10-16-2 of 210 parameters; each site has one batch of 32 synthetic rows. Trained as stacks."""
import torch
from torch import nn

from participant.task import Task


class Growing(Task):
    name = "growing-sites"
    stacked = True

    def build_model(self):
        return nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Linear(16, 2))

    def site_data(self, site, sites, seed):
        x = torch.randn(32, 10, generator=torch.Generator().manual_seed(site))
        return x, (x[:, 0] > 0).long()

    def evaluation_data(self):
        return self.site_data(1_000_000, 0, 0)
'''

_WIDE = Template('''"""One square layer of $parameters parameters; a site takes one step on four synthetic rows."""
import torch
from torch import nn

from participant.task import Task


class Growing(Task):
    name = "growing-parameters"
    batch_size = 4
    learning_rate = 0.01

    def build_model(self):
        return nn.Linear($width, $width, bias=False)

    def site_data(self, site, sites, seed):
        draw = torch.Generator().manual_seed(site)
        return torch.randn(4, $width, generator=draw), torch.randint($width, (4,), generator=draw)

    def evaluation_data(self):
        return self.site_data(1_000_000, 0, 0)
''')


@dataclass(frozen=True, slots=True)
class RunPoint:
    """A run: seconds of a warm round (median) and of its phases, CPU seconds of a warm round (mean) by the role of the
    process, seconds from the launch to the end of round 1, and the peak of the memory of all its processes together
    (PSS), in bytes."""

    sites: int
    parameters: int
    round: float
    first: float
    peak: int
    phases: Mapping[str, float]
    roles: Mapping[str, float]

    @property
    def cpu(self) -> float:
        """CPU seconds of a warm round, of all processes."""
        return sum(self.roles.values())

    @property
    def per_site(self) -> float:
        """Seconds for a site and a round."""
        return self.round / self.sites

    @property
    def per_parameter(self) -> float:
        """Seconds for a parameter, a site and a round."""
        return self.round / self.sites / self.parameters


def measure_sites(counts: Sequence[int], tell: Callable[[str], None]) -> tuple[RunPoint, ...]:
    """A tiny model on more and more sites."""
    points = []
    for count in counts:
        points.append(measure(count, 210, _TINY, 5 if count >= 1000 else 20))
        tell(str(points[-1]))
    return tuple(points)


def measure_parameters(sizes: Sequence[int], tell: Callable[[str], None]) -> tuple[RunPoint, ...]:
    """A larger and larger model on a few sites; the layer is square, so the sizes are about those that are asked for."""
    points = []
    for size in sizes:
        width = round(size**0.5)
        task = _WIDE.substitute(parameters=width * width, width=width)
        points.append(measure(FEW_SITES, width * width, task, LARGE_ROUNDS if size >= LARGE else 10))
        tell(str(points[-1]))
    return tuple(points)


def measure(sites: int, parameters: int, task: str, rounds: int) -> RunPoint:
    """One run through the public command, in a folder of its own that is removed afterwards.

    Raises:
        ContestantError: it failed.
    """
    folder = Path(tempfile.mkdtemp(prefix="fedledger-growth-"))
    try:
        (folder / "growing.py").write_text(task)
        (folder / "federation.toml").write_text(_FILE.substitute(sites=sites, rounds=rounds))
        return as_point(sites, parameters, carry_out(FEDLEDGER, folder, None, WARM))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def as_point(sites: int, parameters: int, run: Run) -> RunPoint:
    """What a curve keeps of a run."""
    phases = {phase: median(seconds) for phase, seconds in run.phases.items()}
    return RunPoint(
        sites, parameters, median(run.rounds), run.ends[0], sum(run.pss.values()), phases, dict(run.cpu)
    )  # fmt: skip
