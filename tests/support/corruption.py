"""Ways in which a version's files can be wrong, each drawn at random: what preflight, hashes and probe must catch.

A kind changes the folder of a tiny model. It is applied before the version is published, so that its hashes are right
(a trainer that wrote wrong bytes), or afterwards (a disk or a network that changed them).
"""

import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from rlhf_online.durable import file_sha256

WEIGHTS = "model.safetensors"
SMALLEST, LARGEST = 1 << 23, 1 << 30
"""The bits of a float32's exponent."""
SHARE = 16
"""Where many values are changed, one in so many."""

Tensors = dict[str, np.ndarray]
Change = Callable[[Path, random.Random], None]


def _tensors(change: Callable[[Tensors, random.Random], None]) -> Change:
    def changed(folder: Path, draw: random.Random) -> None:
        tensors = load_file(folder / WEIGHTS)
        change(tensors, draw)
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})

    return changed


def _name(tensors: Tensors, draw: random.Random) -> str:
    return draw.choice(sorted(tensors))


def _matrix(tensors: Tensors, draw: random.Random) -> str:
    return draw.choice([name for name, tensor in sorted(tensors.items()) if len(set(tensor.shape)) == 2])


def _missing(tensors: Tensors, draw: random.Random) -> None:
    del tensors[_name(tensors, draw)]


def _renamed(tensors: Tensors, draw: random.Random) -> None:
    name = _name(tensors, draw)
    tensors[draw.choice((f"{name}.0", f"model.{name}", name.upper()))] = tensors.pop(name)


def _transposed(tensors: Tensors, draw: random.Random) -> None:
    name = _matrix(tensors, draw)
    tensors[name] = np.ascontiguousarray(tensors[name].T)


def _dtype(tensors: Tensors, draw: random.Random) -> None:
    name = _name(tensors, draw)
    tensors[name] = tensors[name].astype(draw.choice((np.float16, np.float64, np.int32, np.int8)))


def _value(value: float) -> Callable[[Tensors, random.Random], None]:
    def change(tensors: Tensors, draw: random.Random) -> None:
        tensor = tensors[_name(tensors, draw)]
        tensor.flat[draw.randrange(tensor.size)] = value * draw.choice((1, -1))

    return change


def _zeroed(tensors: Tensors, draw: random.Random) -> None:
    """All of one layer: a matrix's zeros beside others would be no more than pruning."""
    layers = sorted({name.split(".")[2] for name in tensors if name.startswith("model.layers.")})
    layer = f"model.layers.{draw.choice(layers)}."
    for name, tensor in tensors.items():
        if name.startswith(layer):
            tensor[...] = 0


def _flipped(bit: int, *, once: bool = False) -> Callable[[Tensors, random.Random], None]:
    """Of one value in SHARE of a matrix, or of a single value."""

    def change(tensors: Tensors, draw: random.Random) -> None:
        bits = tensors[_matrix(tensors, draw)].reshape(-1).view(np.uint32)
        places = [draw.randrange(bits.size)] if once else draw.sample(range(bits.size), max(1, bits.size // SHARE))
        bits[places] ^= np.uint32(bit)

    return change


def _truncated(folder: Path, draw: random.Random) -> None:
    weights = folder / WEIGHTS
    content = weights.read_bytes()
    weights.write_bytes(content[: draw.randrange(len(content))])


def _tokenizer(folder: Path, draw: random.Random) -> None:
    """Two tokens have changed places."""
    path = folder / "tokenizer.json"
    values = json.loads(path.read_text())
    vocabulary = values["model"]["vocab"]
    one, other = draw.sample(sorted(vocabulary), 2)
    vocabulary[one], vocabulary[other] = vocabulary[other], vocabulary[one]
    path.write_text(json.dumps(values))


KINDS: dict[str, Change] = {
    "a tensor missing": _tensors(_missing),
    "a tensor renamed": _tensors(_renamed),
    "a matrix transposed": _tensors(_transposed),
    "a tensor of another type": _tensors(_dtype),
    "a NaN": _tensors(_value(np.nan)),
    "an infinity": _tensors(_value(np.inf)),
    "a layer of zeros": _tensors(_zeroed),
    "smallest exponent bits flipped": _tensors(_flipped(SMALLEST)),
    "largest exponent bits flipped": _tensors(_flipped(LARGEST)),
    "largest exponent bit of one value": _tensors(_flipped(LARGEST, once=True)),
    "a file cut short": _truncated,
    "another tokenizer": _tokenizer,
}
ONE_SMALL_FLIP = _tensors(_flipped(SMALLEST, once=True))
"""What may be less than a probe can tell from rounding, where its hash is right."""


def leave_folder(version: Path, draw: random.Random) -> None:
    """Have the manifest of a published version name a file elsewhere, with that file's true hash and size."""
    manifest = version / "manifest.json"
    values = json.loads(manifest.read_text())
    outside = version.parent / "elsewhere.safetensors"
    outside.write_bytes((version / WEIGHTS).read_bytes())
    path = draw.choice((f"../{outside.name}", str(outside.resolve()), f"sub/../../{outside.name}"))
    entry = {"path": path, "sha256": file_sha256(outside), "size": outside.stat().st_size}
    values["files"] = [*(item for item in values["files"] if draw.random() < 0.5 or item["path"] != WEIGHTS), entry]
    manifest.write_text(json.dumps(values))
