# SPDX-License-Identifier: Apache-2.0
"""A tiny agreement of two tensors, as the world of the contract's tests proposes it."""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

DAY = 86_400
COMMIT, DELIVER, RECORD = 100, 200, 400
"""Seconds of the three phases: different ones, so that no rule can take one for another unseen."""


def digest(label: str) -> str:
    """A SHA-256 that stands for whatever the label names."""
    return sha256(label.encode()).hexdigest()


def agreement(coordinator: str, parties: Sequence[str], now: int, **changes: Any) -> dict[str, Any]:
    """An agreement that is valid from a minute ago on for 60 days.

    ``changes`` replace its fields; those that are objects are merged (``phases={"commit_seconds": 1}``).
    """
    return merged(
        {
            "title": "Two tensors",
            "purpose": "To test the contract.",
            "data_categories": ["synthetic"],
            "legal_basis": "None is needed for synthetic data.",
            "task": {"name": "tiny", "version": "1", "code": digest("code"), "seed": 7},
            "model": {
                "initial": digest("model 0"),
                "encoding": "int32",
                "tensors": [tensor("weight", [2, 3]), tensor("steps", [], dtype="int64", rule="keep", fraction_bits=0)],
            },
            "coordinator": coordinator,
            "parties": sorted(parties),
            "min_participants": min(2, len(parties)),
            "rounds": 3,
            "attempts": 3,
            "phases": {"commit_seconds": COMMIT, "deliver_seconds": DELIVER, "record_seconds": RECORD},
            "max_weight": 1000,
            "aggregation": {"rule": "mean", "optimiser": "avg", "parameters": {"learning_rate": "1"}},
            "privacy": {"mode": "none", "budget": 0},
            "secure_aggregation": {"mode": "none"},
            "share_metrics": False,
            "attestations": {"next_open": 0, "release": 0},
            "not_before": now - 60,
            "not_after": now + 60 * DAY,
            "retention_days": 365,
            "model_users": ["the parties"],
        },
        changes,
    )


def tensor(name: str, shape: list[int], **changes: Any) -> dict[str, Any]:
    """A tensor of the agreement: float32, averaged, clipped to +-1 at 16 fraction bits."""
    return {
        "name": name, "shape": shape, "dtype": "float32", "rule": "mean", "clip_exponent": 0, "fraction_bits": 16, **changes,
    }  # fmt: skip


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with ``changes``: objects are merged, everything else is replaced."""
    return {
        **base,
        **{
            name: merged(base[name], change)
            if isinstance(change, Mapping) and isinstance(base.get(name), Mapping)
            else change
            for name, change in changes.items()
        },
    }
