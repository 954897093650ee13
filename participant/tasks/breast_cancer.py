# SPDX-License-Identifier: Apache-2.0
"""Ready-made task: benign or malignant, from 30 measurements of a biopsy (Wisconsin Diagnostic Breast Cancer, UCI)."""

from functools import lru_cache

import torch
from torch import nn

from participant.task import Data, Task
from participant.tasks.tables import Indices, dirichlet_split, hold_out, read_table

ALPHA = 0.5


@lru_cache(maxsize=1)
def _tables() -> tuple[Data, Data]:
    """(training, held out), standardised with the training data's mean and deviation."""
    features, labels = read_table("breast_cancer.csv", header_lines=1)
    train, held_out = hold_out(len(labels), 0.2)
    scaled = (features - features[train].mean(axis=0)) / features[train].std(axis=0)
    x, y = torch.from_numpy(scaled).to(torch.float32), torch.from_numpy(labels)
    return (x[train], y[train]), (x[held_out], y[held_out])


@lru_cache(maxsize=1)
def _split(sites: int, seed: int) -> list[Indices]:
    return dirichlet_split(_tables()[0][1].numpy(), sites, ALPHA, seed)


class BreastCancer(Task):
    """A perceptron 30-64-2 on data that is split over the sites by Dirichlet(0.5), one epoch a round."""

    name = "breast-cancer"
    version = "1"
    stacked = True

    def build_model(self) -> nn.Module:
        """The perceptron."""
        return nn.Sequential(nn.Linear(30, 64), nn.ReLU(), nn.Linear(64, 2))

    def site_data(self, site: int, sites: int, seed: int) -> Data:
        """The site's share of 80 % of the 569 biopsies."""
        (features, labels), rows = _tables()[0], _split(sites, seed)[site]
        return features[rows], labels[rows]

    def evaluation_data(self) -> Data:
        """The other 20 %."""
        return _tables()[1]
