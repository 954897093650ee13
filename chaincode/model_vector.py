# SPDX-License-Identifier: Apache-2.0
"""From a model to its vector, the elements of its tensors of rule "mean", and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from chaincode.models import Tensor
from chaincode.vector import vector_length
from identity.errors import EvidenceError
from identity.wording import counted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from chaincode.agreement import TensorSpec
    from chaincode.vector import Floats


def to_vector(
    model: Mapping[str, Tensor], specs: Sequence[TensorSpec], start: int = 0, stop: int | None = None
) -> Floats:
    """Elements `start` to `stop` of a model's vector: its tensors of rule "mean" in the agreement's order, flat, in new
    memory.

    Raises EvidenceError(model-schema) where the model is not of the agreement's schema.
    """
    check_schema(model, specs)
    vector = np.empty((vector_length(specs) if stop is None else stop) - start, np.float32)
    fill(vector, model, specs, start)
    return vector


def fill(vector: Floats, model: Mapping[str, Tensor], specs: Sequence[TensorSpec], start: int) -> None:
    """Make `vector` the elements from `start` on of the vector of a model, which has the agreement's schema."""
    raw, position = vector.view(np.uint8), -4 * start
    for spec in specs:
        if spec.rule == "mean":
            low, position = position, position + len(model[spec.name].data)
            if position > 0 and low < len(raw):
                data = raw_bytes(model[spec.name])[max(0, -low) : len(raw) - low]
                raw[max(0, low) : max(0, low) + len(data)] = data


def to_model(vector: Floats, base: Mapping[str, Tensor], specs: Sequence[TensorSpec]) -> dict[str, Tensor]:
    """The model with this vector: the other tensors ("keep", and "local" to the sites) are the base model's.

    The tensors are views of `vector` and of the base model's. Raises EvidenceError(model-schema).
    """
    check_schema(base, specs)
    raw, position = vector.view(np.uint8).data.toreadonly(), 0
    model = {}
    for spec in specs:
        tensor = base[spec.name]
        if spec.rule == "mean":
            size = len(tensor.data)
            tensor = Tensor(tensor.dtype, tensor.shape, raw[position : position + size])
            position += size
        model[spec.name] = tensor
    if position != len(raw):
        raise EvidenceError(
            "model-schema", f"The vector has {counted(vector.size, 'element')}, another number than the model."
        )
    return model


def check_schema(model: Mapping[str, Tensor], specs: Sequence[TensorSpec]) -> None:
    """Check that a model is of the agreement's schema. Raises EvidenceError(model-schema)."""
    if model.keys() != {spec.name for spec in specs}:
        differing = sorted(model.keys() ^ {spec.name for spec in specs})[:5]
        raise EvidenceError(
            "model-schema", f"Model and agreement do not name the same tensors: {', '.join(differing)}."
        )
    for spec in specs:
        tensor = model[spec.name]
        if (tensor.dtype, tensor.shape) != (spec.dtype, spec.shape):
            found, agreed = f"{tensor.dtype} {list(tensor.shape)}", f"{spec.dtype} {list(spec.shape)}"
            raise EvidenceError("model-schema", f"Tensor {spec.name} is {found}; the agreement says {agreed}.")
        if spec.rule == "mean" and spec.dtype != "float32":
            raise EvidenceError("model-schema", f"Tensor {spec.name} is to be averaged, but is not float32.")


def raw_bytes(tensor: Tensor) -> NDArray[np.uint8]:
    """A tensor's bytes as an array."""
    return np.frombuffer(memoryview(tensor.data), np.uint8)
