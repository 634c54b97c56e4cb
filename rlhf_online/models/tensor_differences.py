"""How far the weights of two versions lie apart, tensor by tensor; read without torch.

    relative = ‖b − a‖ / ‖a‖, Frobenius norms

Values are read in pieces, so that memory does not grow with the model.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rlhf_online.errors import VersionCorrupt
from rlhf_online.models.tensor_headers import SIZES, BadHeader, Tensor, read_header
from rlhf_online.versions.weight_files import BadIndex, weight_files

PIECE = 1 << 22
"""Values that are read in one go."""
DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U8": "u1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One tensor in both versions. `what` is "changed", "added", "removed" or "reshaped"; `relative` is infinite where
    all was 0, and not a number for what is not in both in one shape."""

    name: str
    what: str
    relative: float
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """`differences`: the tensors that differ, the most first; of `tensors` in both together. `relative`: of all of what
    is in both, taken as one vector."""

    differences: list[Difference]
    tensors: int
    relative: float


def compare(before: Path, after: Path) -> Comparison:
    """The weights in two folders of versions. Raises VersionCorrupt for files that cannot be read."""
    old, new = _tensors(before), _tensors(after)
    found: list[Difference] = []
    apart = size = 0.0
    for name in sorted(old.keys() | new.keys()):
        a, b = old.get(name), new.get(name)
        if a is None or b is None or a.shape != b.shape:
            what = "added" if a is None else "removed" if b is None else "reshaped"
            found.append(Difference(name=name, what=what, relative=math.nan, shape=(b or a or _NONE).shape))
            continue
        moved, norm = _squares(a, b)
        apart, size = apart + moved, size + norm
        if moved:
            found.append(Difference(name=name, what="changed", relative=_ratio(moved, norm), shape=b.shape))
    found.sort(key=lambda each: (each.what == "changed", -each.relative if each.what == "changed" else 0, each.name))
    return Comparison(differences=found, tensors=len(old.keys() | new.keys()), relative=_ratio(apart, size))


_NONE = Tensor(file=Path(), dtype="", shape=(), start=0, end=0)


def _ratio(moved: float, norm: float) -> float:
    return math.sqrt(moved / norm) if norm else (math.inf if moved else 0.0)


def _tensors(folder: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    try:
        for path in weight_files(folder):
            found |= read_header(path)
    except (BadIndex, BadHeader, OSError) as error:
        raise VersionCorrupt(f"{folder.name}: its tensors cannot be read ({error})") from error
    return found


def _squares(before: Tensor, after: Tensor) -> tuple[float, float]:
    """‖b − a‖² and ‖a‖²."""
    moved = norm = 0.0
    for a, b in zip(_values(before), _values(after), strict=True):
        moved += float(np.square(b - a).sum())
        norm += float(np.square(a).sum())
    return moved, norm


def _values(tensor: Tensor) -> Iterator[np.ndarray[Any, np.dtype[np.float64]]]:
    size = SIZES[tensor.dtype]
    with tensor.file.open("rb") as file:
        file.seek(tensor.start)
        left = (tensor.end - tensor.start) // size
        while left > 0:
            data = file.read(min(PIECE, left) * size)
            left -= PIECE
            if tensor.dtype == "BF16":  # the upper half of a float32
                yield (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32).astype(np.float64)
            elif tensor.dtype in DTYPES:
                yield np.frombuffer(data, DTYPES[tensor.dtype]).astype(np.float64)
            else:
                raise VersionCorrupt(f"{tensor.file.name}: values of type {tensor.dtype} cannot be compared")
