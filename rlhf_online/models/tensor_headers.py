"""The headers of safetensors files, read without torch: which tensors a file holds, and where their bytes stand.

    8 bytes: length n, little-endian │ n bytes: JSON {name: {"dtype", "shape", "data_offsets"}} │ the tensors' bytes

A file that cannot be what its header says (cut short, overlapping tensors, bytes that belong to none) is refused.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf_online.versions.weight_files import BadIndex, weight_files

HEADER_LIMIT = 100 << 20  # bytes, as in the safetensors library

SIZES = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2}
SIZES |= {"I8": 1, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1}
"""Bytes of a value."""


class BadHeader(ValueError):
    """The file is no safetensors file, or damaged; the message goes on from the file's name."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor's entry in a safetensors header; `start` and `end` are byte offsets in the file."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def has_weights(folder: Path) -> bool:
    """Whether weights are there, or an index that says that they should be."""
    try:
        return bool(weight_files(folder))
    except BadIndex:
        return True


def read_header(path: Path) -> dict[str, Tensor]:
    """The tensors of one file by name, after checking that they fill it exactly. Raises BadHeader, OSError."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, HEADER_LIMIT):
            raise BadHeader("is cut short")
        content = file.read(length)
    try:
        tensors = _parse(path, content)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise BadHeader(f"has no readable header ({error!r})") from error
    position = 8 + length
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].end)):
        expected = math.prod(tensor.shape) * SIZES.get(tensor.dtype, 0)
        if tensor.dtype not in SIZES or tensor.start != position or tensor.end - tensor.start != expected:
            raise BadHeader(f"describes {name} wrongly")
        position = tensor.end
    if position != size:
        raise BadHeader(f"is {size} bytes long, its header describes {position}")
    return tensors


def _parse(path: Path, content: bytes) -> dict[str, Tensor]:
    header: dict[str, Any] = json.loads(content)
    header.pop("__metadata__", None)
    begin = 8 + len(content)
    return {
        name: Tensor(
            file=path,
            dtype=str(entry["dtype"]),
            shape=tuple(int(size) for size in entry["shape"]),
            start=begin + int(entry["data_offsets"][0]),
            end=begin + int(entry["data_offsets"][1]),
        )
        for name, entry in header.items()
    }
