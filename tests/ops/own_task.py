# SPDX-License-Identifier: Apache-2.0
"""A federation for tests whose task is its own and misbehaves in training: three sites, one round."""

from pathlib import Path
from textwrap import indent

TASK = """
import torch
from participant import Task


class {name}(Task):
    name = "{slug}"

    def build_model(self):
        return torch.nn.Linear(2, 2)

    def site_data(self, site, sites, seed):
        return torch.ones(4 + site, 2), torch.zeros(4 + site, dtype=torch.int64)

    def train(self, model, data, seed):
{before}
        return super().train(model, data, seed)
"""
FILE = """
name = "{slug}"
task = "task.py:{name}"
sites = 3
rounds = 1

[agreement]
purpose = "Tests"
legal_basis = "Synthetic data"
{terms}
"""


def write_own_task(folder: Path, name: str, before: str, terms: str = "") -> None:
    """Write federation.toml and task.py, whose class ``name`` does ``before`` (lines of Python) and then trains as usual; site number
    n has 4 + n rows."""
    slug = name.lower()
    (folder / "task.py").write_text(TASK.format(name=name, slug=slug, before=indent(before, " " * 8)))
    (folder / "federation.toml").write_text(FILE.format(name=name, slug=slug, terms=terms))
