# SPDX-License-Identifier: Apache-2.0
"""Ready-made task: handwritten digits, 8 x 8 pixels (Optical Recognition of Handwritten Digits, UCI)."""

from functools import lru_cache

import torch
from torch import nn

from participant.task import Data, Task
from participant.tasks.tables import Indices, dirichlet_split, hold_out, read_table

ALPHA = 0.7
DARKEST = 16.0


@lru_cache(maxsize=1)
def _tables() -> tuple[Data, Data]:
    """(training, held out): images of shape (1, 8, 8) from 0 to 1, and the digits."""
    pixels, digits = read_table("digits.csv.gz", header_lines=0)
    train, held_out = hold_out(len(digits), 0.2)
    x = torch.from_numpy(pixels / DARKEST).to(torch.float32).reshape(-1, 1, 8, 8)
    y = torch.from_numpy(digits)
    return (x[train], y[train]), (x[held_out], y[held_out])


@lru_cache(maxsize=1)
def _split(sites: int, seed: int) -> list[Indices]:
    return dirichlet_split(_tables()[0][1].numpy(), sites, ALPHA, seed)


class Digits(Task):
    """A small convolutional network with batch normalisation, one epoch a round."""

    name = "digits"
    version = "1"

    def build_model(self) -> nn.Module:
        """Two convolutions, each with batch normalisation, and one linear layer."""
        return nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
            nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32 * 4 * 4, 10),
        )  # fmt: skip

    def site_data(self, site: int, sites: int, seed: int) -> Data:
        """The site's share of 80 % of the 1797 images."""
        (features, labels), rows = _tables()[0], _split(sites, seed)[site]
        return features[rows], labels[rows]

    def evaluation_data(self) -> Data:
        """The other 20 %."""
        return _tables()[1]
