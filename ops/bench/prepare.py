# SPDX-License-Identifier: Apache-2.0
"""A workload's files: the federation file for Fedledger, and the same data, weights and seeds for the others.

Everything is asked of Fedledger's own trainer, so that what the others get is what its sites train on.
"""

import shutil
from pathlib import Path

import numpy as np

from ops.bench.loop import Plan, Vector, Work, write_work
from ops.bench.workloads import SEED, Workload
from ops.federation_file import site_names
from participant.seeding import derive_seed
from participant.tasks import load_task
from participant.train import LocalTrainer

HERE = Path(__file__).resolve().parent
_FILE = """name = "{name}"
task = "{task}"
sites = {sites}
rounds = {rounds}
seed = {seed}

[agreement]
purpose = "Measure what a round costs"
legal_basis = "No personal data"
commit_seconds = 3600
deliver_seconds = 3600
record_seconds = 3600
"""


def write_federation(path: Path, workload: Workload, task: str) -> Path:
    """A federation file, and beside it the tasks' file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    name = workload.name.lower()
    path.write_text(_FILE.format(name=name, task=task, sites=workload.sites, rounds=workload.rounds, seed=SEED))
    shutil.copyfile(HERE / "tasks.py", path.with_name("tasks.py"))
    return path


def make_work(workload: Workload) -> tuple[Work, list[Vector]]:
    """The data and the seeds that Fedledger's sites have, and the initial weights.

    Raises:
        ValueError: the workload says something else of the task than the task does.
    """
    task, names = load_task(workload.task, HERE), site_names(workload.sites)
    if (task.batch_size, task.learning_rate, task.epochs) != (workload.batch, workload.learning_rate, 1):
        raise ValueError(f"{workload.name} is not trained as {workload.task} is")
    trainer, held_out = LocalTrainer(task, names, SEED), task.evaluation_data()
    initial = list(trainer.initial().values())
    if held_out is None or sum(array.size for array in initial) != workload.parameters:
        raise ValueError(f"{workload.name} has another model than {workload.task}, or no held-out data")
    work = Work(
        plan=Plan(workload.layers, workload.sites, workload.rounds, workload.batch, workload.learning_rate),
        data=[task.site_data(number, workload.sites, SEED) for number in range(workload.sites)],
        held_out=held_out,
        seeds=np.array(
            [[derive_seed("training", SEED, n, name) for name in names] for n in range(1, workload.rounds + 1)], np.int64
        ),
    )  # fmt: skip
    return work, initial


def prepare(folder: Path, workload: Workload) -> Path:
    """Write everything that a workload needs below ``folder``; the federation file."""
    write_work(folder / "data", *make_work(workload))
    if workload.one_by_one:
        write_federation(folder / "one_by_one.toml", workload, workload.one_by_one)
    return write_federation(folder / "federation.toml", workload, workload.task)
