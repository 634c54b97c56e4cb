"""Reads a version's files once, before the engine is paused: their SHA-256, and how large each tensor's values are.

What was read lies in the page cache then, and the paused engine reads it from memory. A version that is not read again,
since it passed before, may have left it: `warm` reads what is not there.
"""

import errno
import hashlib
import os
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path

import numpy as np

from rlhf_online.models.tensor_headers import BadHeader, Tensor, read_header

PIECE = 1 << 20
"""Bytes that are hashed and looked at in one go, while the processor's cache holds them."""

# Bytes of a value; the bits that are all set only in NaN and infinity: the exponent; and the exponent of 2**20, which
# float16 has not: no model's weight comes near it, and a flipped bit of the exponent goes far beyond.
FLOATS: dict[str, tuple[str, int, int]] = {
    "F64": ("<u8", 0x7FF0000000000000, 0x4130000000000000),
    "F32": ("<u4", 0x7F800000, 0x49800000),
    "F16": ("<u2", 0x7C00, 0x7C00),
    "BF16": ("<u2", 0x7F80, 0x4980),
}


class Reading:
    """Of a version's files, one after another or several at once."""

    def __init__(self) -> None:
        self._largest: dict[Tensor, int] = {}

    def digest(self, path: Path) -> str:
        """The file's SHA-256, in hexadecimal digits; `largest` knows its tensors then. Raises OSError."""
        digest = hashlib.sha256()
        try:
            tensors = list(read_header(path).values()) if path.suffix == ".safetensors" else []
        except BadHeader:
            tensors = []
        with path.open("rb") as file:
            for tensor in sorted(tensors, key=lambda tensor: tensor.start):
                for piece in _pieces(file, tensor.start - file.tell()):
                    digest.update(piece)
                largest = 0
                for piece in _pieces(file, tensor.end - tensor.start):
                    digest.update(piece)
                    largest = max(largest, _largest(tensor.dtype, piece))
                self._largest[tensor] = largest
            for piece in _pieces(file, os.fstat(file.fileno()).st_size - file.tell()):
                digest.update(piece)
        return digest.hexdigest()

    def largest(self, tensor: Tensor) -> int:
        """The exponent of the tensor's largest value, as the bits stand in it; 0 for no values, or none that are
        floats. Read now if its file was not. Raises OSError."""
        if tensor not in self._largest:
            with tensor.file.open("rb") as file:
                file.seek(tensor.start)
                pieces = _pieces(file, tensor.end - tensor.start)
                self._largest[tensor] = max((_largest(tensor.dtype, piece) for piece in pieces), default=0)
        return self._largest[tensor]


def warm(path: Path) -> int:
    """Have the file in the page cache; how many bytes had to be read from the disk, about. Raises OSError.

    Where it lies there already that takes a call a PIECE. A file system that does not tell has it read through.
    """
    buffer, cold = bytearray(PIECE), 0
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
        for start in range(0, size, PIECE):
            try:
                os.preadv(file.fileno(), [memoryview(buffer)[:1]], min(start + PIECE, size) - 1, os.RWF_NOWAIT)
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EOPNOTSUPP, errno.EINVAL):
                    raise
                cold += os.preadv(file.fileno(), [buffer], start)
    return cold


def _pieces(file: BufferedReader, count: int) -> Iterator[memoryview]:
    """The next `count` bytes of the file; each is to be used before the next one is asked for."""
    buffer = memoryview(bytearray(min(PIECE, max(count, 1))))
    while count > 0 and (read := file.readinto(buffer[: min(len(buffer), count)])):
        yield buffer[:read]
        count -= read


def _largest(dtype: str, piece: memoryview) -> int:
    """The largest exponent among the values in these bytes."""
    if dtype not in FLOATS:
        return 0
    kind, exponent, _ = FLOATS[dtype]
    bits = np.frombuffer(piece, dtype=kind, count=len(piece) // np.dtype(kind).itemsize)
    return int((bits & bits.dtype.type(exponent)).max(initial=0))
