"""Headers of safetensors files against the library that writes them, and files that cannot be what they say."""

import json

import pytest
import torch
from safetensors.torch import save_file

from rlhf_online.models.tensor_headers import BadHeader, Tensor, has_weights, read_header


def write(path, header: object, tail: bytes = b"") -> None:
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(content).to_bytes(8, "little") + content + tail)


def entry(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_every_tensor_with_its_place(tmp_path):
    path = tmp_path / "model.safetensors"
    assert not has_weights(tmp_path)
    weights = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4, dtype=torch.bfloat16), "none": torch.zeros(0)}
    save_file(weights, path, metadata={"format": "pt"})
    assert has_weights(tmp_path)
    found = read_header(path)
    assert {name: (tensor.dtype, tensor.shape) for name, tensor in found.items()} == {
        "a": ("F32", (2, 3)), "b": ("BF16", (4,)), "none": ("F32", (0,)),
    }  # fmt: skip
    bits = path.read_bytes()[found["a"].start : found["a"].end]
    assert bits == weights["a"].numpy().tobytes()


def test_a_header_by_hand(tmp_path):
    path = tmp_path / "w.safetensors"
    write(path, {"w": entry("I8", [3], 0, 3)}, b"abc")
    size = path.stat().st_size
    assert read_header(path) == {"w": Tensor(file=path, dtype="I8", shape=(3,), start=size - 3, end=size)}


@pytest.mark.parametrize(
    ("header", "tail", "message"),
    [
        ({"w": entry("I8", [3], 0, 3)}, b"ab", "bytes long, its header describes"),
        ({"w": entry("I8", [3], 0, 3)}, b"abcd", "bytes long, its header describes"),
        ({"w": entry("I8", [3], 0, 4)}, b"abcd", "describes w wrongly"),
        ({"w": entry("I8", [3], 1, 4)}, b"abcd", "describes w wrongly"),
        ({"w": entry("X8", [3], 0, 3)}, b"abc", "describes w wrongly"),
        ({"v": entry("I8", [3], 0, 3), "w": entry("I8", [2], 1, 3)}, b"abc", "describes w wrongly"),
        ({"w": {"dtype": "I8", "shape": [3]}}, b"abc", "no readable header"),
        ({"w": [1]}, b"", "no readable header"),
        ([1, 2], b"", "no readable header"),
        (b"not json", b"", "no readable header"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, header, tail, message):
    path = tmp_path / "w.safetensors"
    write(path, header, tail)
    with pytest.raises(BadHeader, match=message):
        read_header(path)


@pytest.mark.parametrize("content", [b"", b"\x02\0\0", b"\xff" * 64, (9).to_bytes(8, "little") + b"{}"])
def test_a_header_beyond_the_file_is_not_read(tmp_path, content):
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(BadHeader, match="cut short"):
        read_header(path)
