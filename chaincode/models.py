# SPDX-License-Identifier: Apache-2.0
"""Models as evidence: the digest of a model, and the one safetensors file that holds it.

A model's digest is the SHA-256 of its manifest, the canonical JSON (RFC 8785) of a list of {dtype, name, sha256,
shape}, byte-sorted by name, where sha256 is over the tensor's raw little-endian bytes in C order: it does not
depend on a container. A model is stored as a safetensors file (an 8-byte little-endian length, a JSON header, the
tensors) in the one form that `write_safetensors` writes:

    the header is the canonical JSON of {name: {data_offsets, dtype, shape}}, followed by 0 to 7 spaces so that
    the tensors begin at a multiple of 8; no __metadata__; the tensors follow each other without gaps to the end of
    the file, those of the largest items first (so that each is aligned), then byte-sorted by name

A file in any other form is refused, whoever wrote it. Nothing is ever unpickled. Standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from hashlib import sha256
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn

from chaincode.files import allocate, mapped, replacing
from chaincode.threads import in_threads
from identity import canonical
from identity.errors import EvidenceError
from identity.wording import counted

if TYPE_CHECKING:
    from typing_extensions import Buffer

    Tensors = Mapping[str, "tuple[str, tuple[int, ...], Buffer]"] | Iterable["tuple[str, str, tuple[int, ...], Buffer]"]

HEADER_LIMIT: Final = 1 << 20
MAX_RANK: Final = 8
MAX_BYTES: Final = 1 << 40  # of one tensor, empty dimensions not counted: a shape that no reader can overflow on

# dtype -> (its safetensors name, bytes of one item)
DTYPES: Final = {
    "float64": ("F64", 8), "float32": ("F32", 4), "float16": ("F16", 2), "bfloat16": ("BF16", 2),
    "int64": ("I64", 8), "int32": ("I32", 4), "int16": ("I16", 2), "int8": ("I8", 1),
    "uint64": ("U64", 8), "uint32": ("U32", 4), "uint16": ("U16", 2), "uint8": ("U8", 1), "bool": ("BOOL", 1),
}  # fmt: skip
_BY_CODE: Final = {code: name for name, (code, _) in DTYPES.items()}
_NAME: Final = re.compile(r"[!-~]{1,200}")
_PREFIX: Final = 8
_ALIGNMENT: Final = 8
_WORTH_THREADS: Final = 1 << 20  # bytes
_OTHER_FORMATS: Final = (
    (b"PK", "a ZIP archive (torch.save, npz)"),
    (b"\x80", "a pickle"),
    (b"\x93NUMPY", "a npy file"),
)


class Tensor(NamedTuple):
    """One tensor: its dtype's name, its shape and its raw little-endian bytes in C order."""

    dtype: str
    shape: tuple[int, ...]
    data: memoryview


def model_digest(tensors: Tensors, *, threads: int = 1) -> str:
    """The digest of a model, 64 hex digits; `tensors` maps names to (dtype, shape, buffer) or lists
    (name, dtype, shape, buffer), in any order. `threads` hash one tensor each at a time.

    Raises EvidenceError: model-name (bad or given twice), model-dtype, model-shape (impossible, or not the
    buffer's length), model-bool.
    """
    checked = _checked(tensors)
    hashes = _tensor_digests(checked, threads)
    manifest = [
        {"dtype": t.dtype, "name": name, "sha256": hashes[name], "shape": list(t.shape)}
        for name, t in sorted(checked.items())  # the names are ASCII: string order is byte order
    ]
    return sha256(canonical.dumps(manifest)).hexdigest()


def _tensor_digests(tensors: Mapping[str, Tensor], threads: int) -> dict[str, str]:
    # The longest first: nobody waits for it at the end.
    names = sorted(tensors, key=lambda name: -len(tensors[name].data))
    threads = threads if sum(len(t.data) for t in tensors.values()) >= _WORTH_THREADS else 1
    found = in_threads(lambda name: sha256(tensors[name].data).hexdigest(), names, threads)
    return dict(zip(names, found, strict=True))


def digest_file(path: Path | str, *, threads: int = 1) -> str:
    """The digest of the model in a safetensors file, which is mapped and never copied; `threads` as for `model_digest`.

    Raises what `read_safetensors` raises, EvidenceError(file-not-regular), and OSError where it cannot be
    opened.
    """
    with mapped(path, follow_links=True) as data:
        return model_digest(read_safetensors(data), threads=threads)


def write_safetensors(path: Path | str, tensors: Tensors, *, fsync: bool = True) -> None:
    """Write a model's one file; `path` holds all of it or what it held before. Raises as `model_digest`."""
    checked = _checked(tensors)
    header = _header({name: (t.dtype, t.shape) for name, t in checked.items()})
    if len(header) > HEADER_LIMIT:
        raise EvidenceError(
            "model-header-size", f"The model's header needs {len(header)} bytes; the limit is {HEADER_LIMIT}."
        )
    with replacing(Path(path), fsync=fsync) as file:
        allocate(file, _PREFIX + len(header) + sum(len(t.data) for t in checked.values()))
        file.write(len(header).to_bytes(_PREFIX, "little") + header)
        for name in _order({name: t.dtype for name, t in checked.items()}):
            file.write(checked[name].data)


def read_safetensors(data: Buffer) -> dict[str, Tensor]:
    """The tensors of a model's file, sorted by name, as views into `data`: nothing is copied.

    Nothing is believed: the header is bounded before it is read, and the file must be what `write_safetensors`
    writes for the same tensors, to the byte.

    Raises EvidenceError: model-truncated, model-not-safetensors (a ZIP archive, a pickle), model-header-size,
    model-header (not strict JSON, or not the fields of a tensor), model-metadata, model-name, model-dtype,
    model-shape, model-offsets, model-not-canonical, model-trailing-bytes, model-bool. Nothing else escapes.
    """
    view = memoryview(data).toreadonly().cast("B")
    # (1) the frame
    header, body = _frame(view)
    # (2) what the header says
    stated = _parse_header(header)
    # (3) the same tensors written by us: the same offsets, then the same bytes
    shapes = {name: (dtype, shape) for name, (dtype, shape, _) in stated.items()}
    offsets = _offsets(shapes)
    for name, (_, _, where) in stated.items():
        if where != list(offsets[name]):
            _refuse("model-offsets", f"Tensor {name} lies at {str(where)[:60]}, not at {list(offsets[name])}.")
    if _header(shapes) != header:
        _refuse("model-not-canonical", "The header is not in its one canonical form (sorted keys, no other spaces).")
    # (4) the body, exactly
    end = max((stop for _, stop in offsets.values()), default=0)
    if len(body) < end:
        _refuse(
            "model-truncated",
            f"The tensors need {counted(end, 'byte')}; {counted(len(body), 'follows', 'follow')} the header.",
        )
    if len(body) > end:
        _refuse("model-trailing-bytes", f"{counted(len(body) - end, 'byte follows', 'bytes follow')} the last tensor.")
    found = {name: Tensor(*shapes[name], body[slice(*offsets[name])]) for name in sorted(shapes)}
    return _checked(found)


def _frame(view: memoryview) -> tuple[bytes, memoryview]:
    """The header's bytes, at most HEADER_LIMIT of them, and what follows."""
    if len(view) < _PREFIX:
        _refuse(
            "model-truncated",
            f"The file has {counted(len(view), 'byte')}, fewer than the {_PREFIX} of its length field.",
        )
    length = int.from_bytes(view[:_PREFIX], "little")
    if length > HEADER_LIMIT:
        for magic, what in _OTHER_FORMATS:
            if view[: len(magic)] == magic:
                _refuse(
                    "model-not-safetensors", f"The file is {what}; models are safetensors files, nothing is unpickled."
                )
        _refuse("model-header-size", f"The file states a header of {length} bytes; the limit is {HEADER_LIMIT}.")
    if len(view) < _PREFIX + length:
        _refuse("model-truncated", f"The file ends within its header of {counted(length, 'byte')}.")
    return bytes(view[_PREFIX : _PREFIX + length]), view[_PREFIX + length :]


def _parse_header(header: bytes) -> dict[str, tuple[str, tuple[int, ...], Any]]:
    """name -> (dtype, shape, offsets as stated) of a header; every shape is possible."""
    try:
        value = canonical.loads(header.rstrip(b" "), limit=HEADER_LIMIT, depth=3)
    except EvidenceError as error:
        if error.code == "json-not-canonical":
            _refuse("model-not-canonical", "The header is not canonical JSON (RFC 8785).")
        raise EvidenceError("model-header", f"The model's header cannot be read: {error}") from error
    if not isinstance(value, dict):
        _refuse("model-header", "The model's header is not a JSON object.")
    if "__metadata__" in value:
        _refuse("model-metadata", "The header holds __metadata__: bytes that no digest of the model covers.")
    stated = {}
    for name, entry in value.items():
        _check_name(name)
        if not isinstance(entry, dict) or entry.keys() != {"data_offsets", "dtype", "shape"}:
            _refuse("model-header", f"Tensor {name} must have exactly data_offsets, dtype and shape.")
        code = entry["dtype"]
        if not isinstance(code, str) or code not in _BY_CODE:
            _refuse("model-dtype", f"Tensor {name} has a dtype that is not one of {', '.join(_BY_CODE)}.")
        if not isinstance(entry["shape"], list):
            _refuse("model-shape", f"Tensor {name} has no list for a shape.")
        shape = tuple(entry["shape"])
        _size(name, _BY_CODE[code], shape)
        stated[name] = (_BY_CODE[code], shape, entry["data_offsets"])
    return stated


def _checked(tensors: Tensors) -> dict[str, Tensor]:
    """The tensors by name, each one's bytes as a flat view of the length that its shape asks for."""
    rows = [(n, *t) for n, t in tensors.items()] if isinstance(tensors, Mapping) else list(tensors)
    checked: dict[str, Tensor] = {}
    for name, dtype, shape, buffer in rows:
        _check_name(name)
        if name in checked:
            _refuse("model-name", f"Two tensors have the name {name}.")
        if dtype not in DTYPES:
            _refuse("model-dtype", f"Tensor {name} has the dtype {dtype}; known: {', '.join(DTYPES)}.")
        size = _size(name, dtype, tuple(shape))
        view = memoryview(buffer)
        data = view.cast("B") if view.nbytes else memoryview(b"")  # an empty view with a 0 in its shape has no cast
        if len(data) != size:
            _refuse(
                "model-shape",
                f"Tensor {name} of shape {list(shape)} needs {counted(size, 'byte')} of {dtype}, not {len(data)}.",
            )
        if dtype == "bool" and bytes(data).translate(None, b"\x00\x01"):
            _refuse("model-bool", f"Tensor {name} holds a bool that is neither 0 nor 1.")
        checked[name] = Tensor(dtype, tuple(shape), data)
    return checked


def _check_name(name: object) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name == "__metadata__":
        _refuse("model-name", f"{str(name)[:60]!r} is not a tensor's name: 1 to 200 characters of printable ASCII.")


def _size(name: str, dtype: str, shape: tuple[object, ...]) -> int:
    """The bytes of a tensor. Dimensions of 0 do not hide how large the others are."""
    dimensions = [d for d in shape if type(d) is int and 0 <= d <= MAX_BYTES]
    if len(dimensions) != len(shape) or len(shape) > MAX_RANK:
        _refuse("model-shape", f"Tensor {name} has an impossible shape: at most {MAX_RANK} dimensions from 0 to 2^40.")
    if prod(d or 1 for d in dimensions) * DTYPES[dtype][1] > MAX_BYTES:
        _refuse("model-shape", f"Tensor {name} is larger than {MAX_BYTES} bytes.")
    return prod(dimensions) * DTYPES[dtype][1]


def _order(dtypes: Mapping[str, str]) -> list[str]:
    """The names in the order of their bytes in a file."""
    return sorted(dtypes, key=lambda name: (-DTYPES[dtypes[name]][1], name))


def _offsets(shapes: Mapping[str, tuple[str, tuple[int, ...]]]) -> dict[str, tuple[int, int]]:
    """name -> where a tensor's bytes begin and end, counted from the end of the header."""
    offsets, position = {}, 0
    for name in _order({name: dtype for name, (dtype, _) in shapes.items()}):
        stop = position + _size(name, *shapes[name])
        offsets[name], position = (position, stop), stop
    return offsets


def _header(shapes: Mapping[str, tuple[str, tuple[int, ...]]]) -> bytes:
    """The one header of a file that holds these tensors, padding included."""
    offsets = _offsets(shapes)
    text = canonical.dumps({
        name: {"data_offsets": list(offsets[name]), "dtype": DTYPES[dtype][0], "shape": list(shape)}
        for name, (dtype, shape) in shapes.items()
    })  # fmt: skip
    return text + b" " * (-len(text) % _ALIGNMENT)


def _refuse(code: str, why: str) -> NoReturn:
    raise EvidenceError(code, why)
