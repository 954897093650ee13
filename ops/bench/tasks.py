# SPDX-License-Identifier: Apache-2.0
"""The benchmark's own tasks: perceptrons on data that everybody has.

Small ones are ``stacked``, as their authors would have them; of each of these there is one whose sites are trained one
by one, like those of the other contestants.
"""

from functools import lru_cache

import torch
from torch import Tensor, nn

from participant.task import Data, Task
from participant.tasks.breast_cancer import BreastCancer
from participant.tasks.tables import Indices, dirichlet_split, hold_out, read_table

DARKEST = 16.0
ALPHA = 0.7


@lru_cache(maxsize=1)
def _digits() -> tuple[Data, Data]:
    """(training, held out): standardised pixels of shape (64,), and the digits. A pixel that never varies stays 0."""
    pixels, digits = read_table("digits.csv.gz", header_lines=0)
    train, held_out = hold_out(len(digits), 0.2)
    deviation = pixels[train].std(axis=0)
    scaled = (pixels - pixels[train].mean(axis=0)) / deviation.clip(min=1 / DARKEST)
    x, y = torch.from_numpy(scaled).to(torch.float32), torch.from_numpy(digits)
    return (x[train], y[train]), (x[held_out], y[held_out])


@lru_cache(maxsize=1)
def _digits_split(sites: int, seed: int) -> list[Indices]:
    return dirichlet_split(_digits()[0][1].numpy(), sites, ALPHA, seed)


class DigitsPerceptron(Task):
    """A perceptron 64-128-10 on the handwritten digits, split over the sites by Dirichlet(0.7)."""

    name = "digits-perceptron"
    stacked = True

    def build_model(self) -> nn.Module:
        """The perceptron."""
        return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))

    def site_data(self, site: int, sites: int, seed: int) -> Data:
        """The site's share of 80 % of the 1797 images."""
        (features, labels), rows = _digits()[0], _digits_split(sites, seed)[site]
        return features[rows], labels[rows]

    def evaluation_data(self) -> Data:
        """The other 20 %."""
        return _digits()[1]


def _synthetic(rows: int, features: int, classes: int, seed: int) -> Data:
    """Normal features; the label is the largest of their first ``classes`` (or a random one where those are fewer)."""
    generator = torch.Generator().manual_seed(seed)
    x: Tensor = torch.randn(rows, features, generator=generator)
    if classes <= features // 2:
        return x, x[:, :classes].argmax(dim=1)
    return x, torch.randint(classes, (rows,), generator=generator)


class TenMillion(Task):
    """A perceptron 2048-2048-2048-786 of ten million parameters; a site has one batch of four synthetic rows."""

    name = "ten-million"
    batch_size = 4
    learning_rate = 0.01

    def build_model(self) -> nn.Module:
        """The perceptron."""
        return nn.Sequential(
            nn.Linear(2048, 2048), nn.ReLU(), nn.Linear(2048, 2048), nn.ReLU(), nn.Linear(2048, 786)
        )  # fmt: skip

    def site_data(self, site: int, sites: int, seed: int) -> Data:
        """Four rows."""
        return _synthetic(4, 2048, 786, 1_000_000 + site)

    def evaluation_data(self) -> Data:
        """Thirty-two rows."""
        return _synthetic(32, 2048, 786, 1)


class Thousand(Task):
    """A perceptron 10-16-2 of 210 parameters; a site has one batch of 32 synthetic rows."""

    name = "thousand"
    stacked = True

    def build_model(self) -> nn.Module:
        """The perceptron."""
        return nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Linear(16, 2))

    def site_data(self, site: int, sites: int, seed: int) -> Data:
        """Thirty-two rows."""
        return _synthetic(32, 10, 2, 1_000_000 + site)

    def evaluation_data(self) -> Data:
        """A thousand rows."""
        return _synthetic(1000, 10, 2, 1)


class BreastCancerOneByOne(BreastCancer):
    """The same, site after site."""

    stacked = False


class DigitsPerceptronOneByOne(DigitsPerceptron):
    """The same, site after site."""

    stacked = False


class ThousandOneByOne(Thousand):
    """The same, site after site."""

    stacked = False
