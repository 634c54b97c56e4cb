"""What a disk damages is had back to the last bit, or left as it is."""

import hashlib
import random
from functools import reduce
from operator import xor
from pathlib import Path

import crc32c
import pytest

from rlhf_online.training import parity

BLOCK = 8
WRITTEN = (parity.BLOCK, parity.LANES, parity.WINDOW)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a file of a few kilobytes has several windows."""
    monkeypatch.setattr(parity, "BLOCK", BLOCK)
    monkeypatch.setattr(parity, "LANES", 4)
    monkeypatch.setattr(parity, "WINDOW", 4 * 4)


def protected(folder: Path, size: int) -> tuple[Path, bytes]:
    content = random.Random(size).randbytes(size)
    path = folder / "file"
    path.write_bytes(content)
    parity.protect(path)
    return path, content


def mended(path: Path, content: bytes) -> bool:
    done = parity.mend(path, hashlib.sha256(content).hexdigest())
    assert (path.read_bytes() == content) == done
    assert sorted(each.name for each in path.parent.iterdir()) == ["file", "file.parity"], "nothing is left beside"
    return done


@pytest.mark.parametrize("size", [1, 7, 8, 9, 31, 32, 33, 127, 128, 129, 200, 300])
def test_any_byte_may_be_damaged(tmp_path: Path, size: int) -> None:
    path, content = protected(tmp_path, size)
    for place in range(size):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x40]) + content[place + 1 :])
        assert mended(path, content)


@pytest.mark.parametrize("size", [33, 128, 300])
def test_a_block_of_each_lane_may_be_gone_at_once(tmp_path: Path, size: int) -> None:
    path, content = protected(tmp_path, size)
    for begin in range(0, size, BLOCK):
        path.write_bytes(content[:begin] + bytes(4 * BLOCK) + content[begin + 4 * BLOCK :])
        assert mended(path, content), "a longer file too"
    path.write_bytes(content[: size - 3 * BLOCK])
    assert mended(path, content)


@pytest.mark.parametrize("size", [0, 1, 32])
def test_a_file_with_a_block_a_lane_may_be_gone_wholly(tmp_path: Path, size: int) -> None:
    path, content = protected(tmp_path, size)
    path.unlink()
    assert mended(path, content)


def test_what_is_damaged_beyond_that_is_left_as_it_is(tmp_path: Path) -> None:
    path, content = protected(tmp_path, 300)
    damaged = (
        bytes([content[0] ^ 1]) + content[1 : 4 * BLOCK] + bytes([content[4 * BLOCK] ^ 1]) + content[4 * BLOCK + 1 :]
    )
    path.write_bytes(damaged)
    assert not mended(path, content)
    assert path.read_bytes() == damaged


def test_a_damaged_parity_never_makes_another_file(tmp_path: Path) -> None:
    path, content = protected(tmp_path, 100)
    good = parity.parity_of(path).read_bytes()
    outcomes: set[bool] = set()
    for place in range(len(good)):
        for bit in (0, 7):
            path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
            parity.parity_of(path).write_bytes(good[:place] + bytes([good[place] ^ 1 << bit]) + good[place + 1 :])
            outcomes.add(mended(path, content))
    assert outcomes == {True, False}
    path.write_bytes(b"")
    parity.parity_of(path).write_bytes(b"")
    assert not mended(path, content)


def test_the_bytes_on_disk_are_those_that_the_docstring_says(tmp_path: Path) -> None:
    """A release mends by the parities that an earlier one wrote. Here two windows of four lanes of four blocks."""
    path, content = protected(tmp_path, 133)
    blocks = [content[begin : begin + BLOCK].ljust(BLOCK, b"\0") for begin in range(0, 133, BLOCK)]
    lengths = [min(BLOCK, 133 - begin) for begin in range(0, 133, BLOCK)]
    expected = (133).to_bytes(8, "little")
    for begin in range(0, 133, BLOCK):
        expected += crc32c.crc32c(content[begin : begin + BLOCK]).to_bytes(4, "little")
    for window in (range(16), range(16, 17)):
        for lane in range(4):
            members = [number for number in window if number % 4 == lane]
            if members:
                both = bytes(
                    reduce(xor, column) for column in zip(*(blocks[member] for member in members), strict=True)
                )
                expected += both[: max(lengths[member] for member in members)]
    assert parity.parity_of(path).read_bytes() == expected
    assert WRITTEN == (256 << 10, 16, 1024), "the sizes that it is written with"


def test_a_parity_is_written_once_and_one_of_another_length_is_not_believed(tmp_path: Path) -> None:
    path, content = protected(tmp_path, 100)
    beside = parity.parity_of(path)
    good = beside.read_bytes()
    path.write_bytes(bytes(100))
    parity.protect(path)
    assert beside.read_bytes() == good, "it is of the file as it was sealed"
    for wrong in (good[:-1], good + b"\0", good[:7], good[:20]):
        beside.write_bytes(wrong)
        assert not mended(path, content)
    beside.unlink()
    assert not parity.mend(path, hashlib.sha256(content).hexdigest()), "nothing to mend by"
