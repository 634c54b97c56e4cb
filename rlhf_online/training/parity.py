"""A second chance for files that checkpoints share: what a disk damages in one of them is computed anew.

Beside `FILE` stands `FILE.parity`. The file is cut into blocks of 256 KiB; each of 16 lanes takes every 16th block of a
window of 64 × 16 blocks, and its parity is their exclusive or, so that one damaged block a lane and window can be had
back, be it a flipped bit or 4 MiB in one piece that are gone. That costs a 64th of the file's size; of a file of up to
4 MiB, which has a block a lane, it is a whole copy.

    u64  size of the file
    u32  CRC-32C of each block
    …    for each window its lanes' parities, as long as the longest block of the lane

all little-endian. Nobody has to trust it: what `mend` writes has the SHA-256 that the caller names, or is not written.
"""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import crc32c
import numpy as np

from rlhf_online.durable import fsync_folder

SUFFIX = ".parity"
BLOCK = 256 << 10
LANES = 16
WINDOW = 64 * LANES
"""Blocks."""


def protect(path: Path) -> None:
    """Write the file's parity unless it has one; it is there for good once the folder is synced. Raises OSError."""
    if (beside := parity_of(path)).exists():
        return
    crcs: list[int] = []
    aside = path.with_name(f".{beside.name}.{os.getpid()}")
    size = path.stat().st_size
    with path.open("rb") as file, aside.open("wb") as out:
        out.seek(8 + 4 * _count(size))
        for first in range(0, _count(size), WINDOW):
            lanes = [np.zeros(0, np.uint8)] * LANES
            for number in _blocks(size, first):
                block = file.read(BLOCK)
                crcs.append(crc32c.crc32c(block))
                lanes[number % LANES] = _xor(lanes[number % LANES], block)
            for lane in lanes:
                out.write(lane.tobytes())
        out.seek(0)
        out.write(size.to_bytes(8, "little") + np.array(crcs, "<u4").tobytes())
        out.flush()
        os.fsync(out.fileno())
    aside.rename(beside)


def mend(path: Path, sha256: str) -> bool:
    """Make the file what it was, if its parity can: then its SHA-256 begins with these digits. Raises OSError."""
    try:
        parity = parity_of(path).read_bytes()
    except FileNotFoundError:
        return False
    size = int.from_bytes(parity[:8], "little")
    if len(parity) < 8 + 4 * _count(size) or len(parity) != 8 + 4 * _count(size) + _parity_bytes(size):
        return False
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    digest = hashlib.sha256()
    with aside.open("wb") as out:
        for block in _mended(path, size, parity):
            digest.update(block)
            out.write(block)
        out.flush()
        os.fsync(out.fileno())
    if not digest.hexdigest().startswith(sha256):
        aside.unlink()
        return False
    aside.rename(path)
    fsync_folder(path.parent)
    return True


def parity_of(path: Path) -> Path:
    """Where the file's parity stands."""
    return path.with_name(path.name + SUFFIX)


def _mended(path: Path, size: int, parity: bytes) -> Iterator[bytes]:
    """The file's blocks; a bad one is made of the others of its lane, rightly if those are good."""
    crcs = np.frombuffer(parity, "<u4", _count(size), 8)
    at = 8 + 4 * _count(size)
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(path.open("rb")) if path.is_file() else None
        for first in range(0, _count(size), WINDOW):
            numbers = _blocks(size, first)
            blocks = [_read(file.fileno(), number, size) if file else b"" for number in numbers]
            good = [crc32c.crc32c(block) == crcs[number] for number, block in zip(numbers, blocks, strict=True)]
            for lane in range(LANES):
                members = range(lane, len(blocks), LANES)
                length = max((_length(size, numbers[member]) for member in members), default=0)
                left = np.frombuffer(parity, np.uint8, length, at)
                at += length
                bad = [member for member in members if not good[member]]
                if len(bad) == 1:
                    for member in members:
                        if member != bad[0]:
                            left = _xor(left, blocks[member])
                    blocks[bad[0]] = left[: _length(size, numbers[bad[0]])].tobytes()
            yield from blocks


def _read(descriptor: int, number: int, size: int) -> bytes:
    return os.pread(descriptor, _length(size, number), number * BLOCK)


def _xor(left: np.ndarray, block: bytes) -> np.ndarray:
    """Of both, the shorter one filled up with zeros."""
    right = np.frombuffer(block, np.uint8)
    result = np.zeros(max(len(left), len(right)), np.uint8)
    result[: len(left)] = left
    result[: len(right)] ^= right
    return result


def _count(size: int) -> int:
    return -(-size // BLOCK)


def _blocks(size: int, first: int) -> range:
    """Numbers of the blocks of the window that begins with that one."""
    return range(first, min(first + WINDOW, _count(size)))


def _length(size: int, number: int) -> int:
    return min(BLOCK, size - number * BLOCK)


def _parity_bytes(size: int) -> int:
    """A lane's first block in a window is its longest."""
    return sum(
        _length(size, number) for first in range(0, _count(size), WINDOW) for number in _blocks(size, first)[:LANES]
    )
