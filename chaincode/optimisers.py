# SPDX-License-Identifier: Apache-2.0
"""Server optimisers: from the mean update d of an element to the move u of the global model.

Elementwise IEEE 754 binary64 with + - * / and square root only, each operation rounded once and never fused.
The agreement's decimal parameters are rounded to binary64; 1 - beta1, 1 - beta2 and tau * tau are computed from
those, once. The order of operations, brackets included, is the specification:

    avg    u = learning_rate * d
    avgm   v = (momentum * v) + d
           u = learning_rate * v
    adam   m = (beta1 * m) + ((1 - beta1) * d)
           s = d * d
           v = (beta2 * v) + ((1 - beta2) * s)
           u = (learning_rate * m) / (sqrt(v) + tau)
    yogi   as adam, but  v = v - (((1 - beta2) * s) * sign(v - s))       sign is -1, 0 or 1

State: float64 rows of one value per element: v for avgm; m, then v, for adam and yogi; none for avg. It starts with
m = 0, v = 0 (avgm), v = tau * tau (adam, yogi). There is no bias correction: adam and yogi are Algorithm 2 of Reddi
et al., Adaptive Federated Optimization (arXiv:2003.00295), which lets v start at any value from tau**2; avgm is Hsu
et al., Measuring the Effects of Non-Identical Data Distribution (arXiv:1909.06335).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, NoReturn

import numpy as np
from numpy.typing import NDArray

from chaincode.agreement import OPTIMISERS as PARAMETERS
from identity.errors import EvidenceError

Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Optimiser:
    """A server optimiser and its parameters as binary64; those that it does not use are 0."""

    name: str
    learning_rate: float
    momentum: float = 0.0
    beta1: float = 0.0
    beta2: float = 0.0
    tau: float = 0.0

    @property
    def rows(self) -> int:
        """How many float64 values of state each element has."""
        return OPTIMISERS[self.name].rows


Kernel = Callable[[Optimiser, Doubles, Doubles, Doubles], None]
"""kernel(optimiser, d, state, scratch): put u in the place of d and the new state in the place of the old.

d has n elements, state the shape (rows, n), scratch (2, n).
"""


@dataclass(frozen=True, slots=True)
class Method:
    """What makes an optimiser: its arithmetic and the number of its state's rows."""

    kernel: Kernel
    rows: int


def parse_optimiser(name: str, parameters: Mapping[str, str]) -> Optimiser:
    """A server optimiser from the agreement's name and decimal parameters, each rounded once to binary64.

    Raises EvidenceError(optimiser-parameters): an unknown name, other parameters than it has, a value that is
    no finite decimal, or one out of range (learning_rate and tau > 0; momentum, beta1 and beta2 from 0 to < 1).
    """
    if name not in PARAMETERS:
        _refuse(f"There is no optimiser {name}; there are {', '.join(PARAMETERS)}")
    if set(parameters) != set(PARAMETERS[name]):
        _refuse(f"The optimiser {name} has exactly the parameters {', '.join(PARAMETERS[name])}")
    return Optimiser(name, **{key: _value(key, text) for key, text in parameters.items()})


def _value(key: str, text: str) -> float:
    try:
        value = float(text)
    except (TypeError, ValueError):
        value = math.nan
    positive = key in ("learning_rate", "tau")
    if not (0.0 < value < math.inf if positive else 0.0 <= value < 1.0):
        _refuse(
            f"The optimiser's {key} must be a decimal {'above 0' if positive else 'from 0 to below 1'}, not {text!r}"
        )
    return value


def _refuse(why: str) -> NoReturn:
    raise EvidenceError("optimiser-parameters", f"{why}.")


def initial_state(optimiser: Optimiser, elements: int) -> Doubles:
    """The state before the first round, of shape (rows, elements)."""
    state = np.zeros((optimiser.rows, elements), np.float64)
    if optimiser.rows == _ADAPTIVE_ROWS:
        state[1] = optimiser.tau * optimiser.tau
    return state


def _avg(o: Optimiser, d: Doubles, state: Doubles, scratch: Doubles) -> None:
    np.multiply(d, o.learning_rate, out=d)


def _avgm(o: Optimiser, d: Doubles, state: Doubles, scratch: Doubles) -> None:
    v = state[0]
    np.multiply(v, o.momentum, out=v)
    np.add(v, d, out=v)
    np.multiply(v, o.learning_rate, out=d)


def _adam(o: Optimiser, d: Doubles, state: Doubles, scratch: Doubles) -> None:
    (m, v), s = state, scratch[0]
    _first_moment(o, d, m, s)
    np.multiply(d, d, out=s)
    np.multiply(s, 1.0 - o.beta2, out=s)
    np.multiply(v, o.beta2, out=v)
    np.add(v, s, out=v)
    _adaptive_move(o, d, m, v, s)


def _yogi(o: Optimiser, d: Doubles, state: Doubles, scratch: Doubles) -> None:
    (m, v), (s, sign) = state, scratch
    _first_moment(o, d, m, s)
    np.multiply(d, d, out=s)
    np.subtract(v, s, out=sign)
    np.sign(sign, out=sign)
    np.multiply(s, 1.0 - o.beta2, out=s)
    np.multiply(s, sign, out=s)
    np.subtract(v, s, out=v)
    _adaptive_move(o, d, m, v, s)


def _first_moment(o: Optimiser, d: Doubles, m: Doubles, s: Doubles) -> None:
    np.multiply(d, 1.0 - o.beta1, out=s)
    np.multiply(m, o.beta1, out=m)
    np.add(m, s, out=m)


def _adaptive_move(o: Optimiser, d: Doubles, m: Doubles, v: Doubles, s: Doubles) -> None:
    np.sqrt(v, out=s)
    np.add(s, o.tau, out=s)
    np.multiply(m, o.learning_rate, out=d)
    np.divide(d, s, out=d)


_ADAPTIVE_ROWS: Final = 2
OPTIMISERS: Final[Mapping[str, Method]] = {
    "avg": Method(_avg, 0),
    "avgm": Method(_avgm, 1),
    "adam": Method(_adam, _ADAPTIVE_ROWS),
    "yogi": Method(_yogi, _ADAPTIVE_ROWS),
}
