"""A version's files are read once: hashed, looked at, and left in the page cache."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from rlhf_online.durable import file_sha256
from rlhf_online.engine.reading import FLOATS, PIECE, Reading, warm
from rlhf_online.models.tensor_headers import read_header

RNG = np.random.default_rng(0)
TENSORS: dict[str, np.ndarray[Any, Any]] = {
    "small": RNG.normal(size=(3, 5)).astype(np.float32),
    "larger than a piece": RNG.normal(size=PIECE // 4 + 3).astype(np.float32),
    "half": RNG.normal(size=7).astype(np.float16),
    "double": RNG.normal(size=3) * 1e9,
    "counts": np.arange(5),
    "nothing": np.zeros(0, np.float32),
    "infinite": np.array([1.0, np.inf, 2.0], np.float32),
}


def test_what_is_hashed_is_looked_at_on_the_way(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(TENSORS, path)
    tensors, reading = read_header(path), Reading()
    assert reading.digest(path) == file_sha256(path)
    path.unlink()  # what it needs to know of the values it knows
    for name, tensor in tensors.items():
        values = TENSORS[name]
        expected = 0
        if tensor.dtype in FLOATS and values.size:
            kind, exponent, _ = FLOATS[tensor.dtype]
            expected = max(int(bits) & exponent for bits in values.view(kind).ravel())
        assert reading.largest(tensor) == expected, name
    assert reading.largest(tensors["infinite"]) == FLOATS["F32"][1]


def test_a_tensor_of_a_file_that_was_not_hashed_is_read_when_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(TENSORS, path)
    hashed, other = Reading(), Reading()
    hashed.digest(path)
    for tensor in read_header(path).values():
        assert other.largest(tensor) == hashed.largest(tensor)


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff" * 40, b"\x08" + b"\0" * 7 + b"no json!" + b"rest"])
def test_a_file_that_is_none_of_weights_is_hashed_all_the_same(tmp_path: Path, content: bytes) -> None:
    for name in ("model.safetensors", "config.json"):
        (tmp_path / name).write_bytes(content)
        assert Reading().digest(tmp_path / name) == file_sha256(tmp_path / name)


def out_of_memory(path: Path) -> None:
    """Have the page cache let the file go. Skips the test where the file system keeps all files in memory."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.preadv(descriptor, [bytearray(1)], 0, os.RWF_NOWAIT)
    except BlockingIOError:
        return
    finally:
        os.close(descriptor)
    pytest.skip("the file system does not let go of files")


def test_what_the_page_cache_has_lost_is_read_and_what_it_holds_is_not(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(RNG.bytes(8 * PIECE + 5))
    out_of_memory(path)
    assert warm(path) >= PIECE
    assert warm(path) == 0
    (tmp_path / "empty").touch()
    assert warm(tmp_path / "empty") == 0
