# SPDX-License-Identifier: Apache-2.0
"""The data sets of the ready-made tasks: read, held out in part, and split unevenly over the sites."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from identity.errors import Unavailable

LEAST = 4  # examples of a site, as long as there are enough for all

Rows = NDArray[np.float64]
Indices = NDArray[np.int64]


def read_table(name: str, header_lines: int) -> tuple[Rows, Indices]:
    """The features and labels of a CSV file that scikit-learn brings along.

    The file is read without importing scikit-learn, which takes longer than the first rounds.

    Raises:
        Unavailable: ``data-set-missing``.
    """
    spec = find_spec("sklearn")
    folder = Path(spec.origin).parent if spec and spec.origin else Path()
    path = folder / "datasets" / "data" / name
    if not path.is_file():
        message = f"The data set {name} of scikit-learn is not installed ({path})."
        raise Unavailable("data-set-missing", message, next="pip install scikit-learn")
    table = np.loadtxt(path, delimiter=",", skiprows=header_lines)
    return table[:, :-1], table[:, -1].astype(np.int64)


def hold_out(examples: int, fraction: float) -> tuple[Indices, Indices]:
    """(training, held-out) row numbers: always the same ones, so that no seed puts one among the other."""
    order = np.random.default_rng(0).permutation(examples)
    cut = round(examples * fraction)
    return np.sort(order[cut:]), np.sort(order[:cut])


def dirichlet_split(labels: Indices, sites: int, alpha: float, seed: int) -> list[Indices]:
    """The row numbers of each site: disjoint, all of them, uneven by label and by size.

    Each label's rows are dealt out in proportions drawn from Dirichlet(``alpha``) (Hsu et al., arXiv:1909.06335).
    Then every site that has fewer than LEAST rows gets some from the largest; with fewer rows than sites the
    last sites have none.
    """
    random = np.random.default_rng(seed)
    parts: list[list[int]] = [[] for _ in range(sites)]
    for label in np.unique(labels):
        rows = random.permutation(np.flatnonzero(labels == label))
        shares = random.dirichlet(np.full(sites, alpha))
        cuts = np.rint(np.cumsum(shares)[:-1] * len(rows)).astype(np.int64)
        for part, dealt in zip(parts, np.split(rows, cuts), strict=True):
            part.extend(dealt.tolist())
    _fill(parts, len(labels))
    return [np.sort(np.array(part, np.int64)) for part in parts]


def _fill(parts: list[list[int]], rows: int) -> None:
    """Move rows from the largest part (the last of several) to those below the least, in place."""
    least = min(LEAST, rows // len(parts)) or 1
    sizes = np.array([len(part) for part in parts])
    for needy in range(min(rows, len(parts))):
        while sizes[needy] < least:
            largest = len(parts) - 1 - int(np.argmax(sizes[::-1]))
            parts[needy].append(parts[largest].pop())
            sizes[needy] += 1
            sizes[largest] -= 1
