"""Orders: what rank 0 tells the others to do, so that each does to its models what rank 0 does to its own.

An order is a name, values in JSON's types, and tensors by name. Rank 0 gives it as it begins to do the same itself;
in a process on its own giving one does nothing, and neither does it on the other ranks, which are carrying one out.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from rlhf_online.training.distributed import group


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be done, by name, and with what."""

    name: str
    values: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)


def order(name: str, values: Callable[[], dict[str, Any]] = dict, tensors: Mapping[str, Tensor] | None = None) -> None:
    """Have the other ranks do it, too; `values` are asked for where there are others. Raises RanksFailed."""
    if group.alone() or not group.is_main_process():
        return
    given = {key: tensor.detach().cpu().contiguous() for key, tensor in (tensors or {}).items()}
    shapes = [[key, str(tensor.dtype).removeprefix("torch."), list(tensor.shape)] for key, tensor in given.items()]
    said = json.dumps({"name": name, "values": values(), "tensors": shapes}).encode()
    what = f"the order {name!r}"
    group.wake(len(said), what)
    text = torch.frombuffer(bytearray(said), dtype=torch.uint8)
    group.from_main_process([text], what)
    group.from_main_process(list(given.values()), what)


def next_order() -> Order:
    """The next order of rank 0, waited for as long as it takes. Raises RanksFailed."""
    text = torch.zeros(group.wait_for_order(), dtype=torch.uint8)
    group.from_main_process([text], "an order")
    said = json.loads(text.numpy().tobytes())
    tensors = {key: torch.empty(shape, dtype=getattr(torch, dtype)) for key, dtype, shape in said["tensors"]}
    group.from_main_process(list(tensors.values()), f"the order {said['name']!r}")
    return Order(said["name"], said["values"], tensors)
