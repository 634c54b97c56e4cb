"""A model's sizes, as the headers of its files and its configuration say them; no torch."""

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf_online.errors import InvalidInput
from rlhf_online.models.tensor_headers import BadHeader, Tensor, read_header
from rlhf_online.versions.weight_files import BadIndex, weight_files

WIDE = 4
"""Bytes of a float32."""
NAMES = (
    ("hidden_size", "n_embd", "d_model"),
    ("num_hidden_layers", "n_layer", "num_layers"),
    ("intermediate_size", "n_inner", "ffn_dim"),
)
"""What kinds of models call width, number of layers and inner width in config.json."""
LAYER = re.compile(r"^.*?\.\d+(?=\.)")
"""The beginning of a tensor's name that tells its layer: "model.layers.7"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Values by what becomes of them: `layers` are matrices that an adapter changes, `sides` the sum of both their
    lengths; `head` is an output layer that is not the embedding."""

    weights: int
    layers: int
    sides: int
    head: int
    narrow: bool
    """All are stored in bfloat16."""
    stored: int
    """Bytes of the files."""
    largest: int
    """Values of the largest tensor."""
    block: int
    """Values of the largest layer with all that is in it."""
    outside: int
    """Values of what is in no layer: embedding, last norm, output layer."""
    pinned: int
    """Values of the tensors, each rounded up to a power of two: so torch takes pinned memory."""
    depth: int
    width: int
    inner: int

    @classmethod
    def of(cls, folder: Path) -> "Shape":
        """Of the model in `folder`. Raises InvalidInput for one whose configuration or headers cannot be read."""
        try:
            config = json.loads((folder / "config.json").read_text())
            config = config | config.get("text_config", {})
            tensors = [item for path in weight_files(folder) for item in read_header(path).items()]
            width, depth, inner = (_said(config, names) for names in NAMES)
            vocabulary = int(config["vocab_size"])
        except (OSError, ValueError, KeyError, TypeError, BadHeader, BadIndex) as error:
            raise InvalidInput(f"the model in {folder} cannot be planned for: {error!r}; `doctor` says more") from error
        if not (width and depth):
            raise InvalidInput(f"config.json in {folder} says neither {' nor '.join(NAMES[0])}: no plan is made")
        if not tensors:
            raise InvalidInput(f"{folder} holds no *.safetensors: name a folder with weights")
        matrices = [t for name, t in tensors if len(t.shape) == 2 and t.shape[0] != vocabulary]
        blocks = _blocks(tensors)
        weights = sum(_values(tensor) for _, tensor in tensors)
        return cls(
            weights=weights,
            layers=sum(map(_values, matrices)),
            sides=sum(sum(tensor.shape) for tensor in matrices),
            head=sum(_values(tensor) for name, tensor in tensors if name == "lm_head.weight"),
            narrow={tensor.dtype for _, tensor in tensors} == {"BF16"},
            stored=sum(tensor.end - tensor.start for _, tensor in tensors),
            largest=max(_values(tensor) for _, tensor in tensors),
            block=max(blocks.values(), default=0),
            outside=weights - blocks.total(),
            pinned=sum(power_of_two(_values(tensor)) for _, tensor in tensors),
            depth=depth,
            width=width,
            inner=inner or 4 * width,
        )

    def frozen(self, dtype: str, *, head: bool) -> int:
        """Bytes of these weights where none learns (`models.frozen`), with the output layer or without."""
        saved = self.layers * (WIDE - 2) if self.narrow and dtype == "bfloat16" else 0
        return WIDE * (self.weights - (0 if head else self.head)) - saved

    def adapter(self, rank: int, layers: int = 0) -> int:
        """Values of an adapter of the topmost `layers`, or of all."""
        return rank * self.sides * self.changed(layers) // self.depth

    def changed(self, layers: int) -> int:
        """How many layers an adapter of the topmost `layers` changes; 0 are all."""
        return min(layers or self.depth, self.depth)


def power_of_two(values: int) -> int:
    """The smallest that is not less; 0 for 0."""
    return 1 << (values - 1).bit_length() if values else 0


def _blocks(tensors: Sequence[tuple[str, Tensor]]) -> Counter[str]:
    """Values of each layer."""
    found: Counter[str] = Counter()
    for name, tensor in tensors:
        if layer := LAYER.match(name):
            found[layer.group()] += _values(tensor)
    return found


def _said(config: Mapping[str, Any], names: Sequence[str]) -> int:
    """Under the first of the names that there is; 0 for none."""
    return int(next((config[name] for name in names if config.get(name)), 0))


def _values(tensor: Tensor) -> int:
    return math.prod(tensor.shape)
