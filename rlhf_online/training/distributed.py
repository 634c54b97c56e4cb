"""Data parallelism: several processes take one optimiser step together, each on its shard, with the summed gradient.

A loss of this project is a sum over answers, divided by the denominator of the whole step: so the gradients of the
parts add up to that of one process, and with the same seed every process takes the same steps. Each holds the whole
model. torchrun starts them; gloo connects CPUs, NCCL connects GPUs.

In a process on its own all of this does nothing.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import distributed, nn

T = TypeVar("T")


@contextmanager
def process_group(device: torch.device) -> Iterator[torch.device]:
    """Join the process group that torchrun started, if it did; yields this process's own device."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield device
        distributed.barrier()
    finally:
        distributed.destroy_process_group()


def is_main_process() -> bool:
    """Whether this is rank 0, which writes and reports."""
    return not distributed.is_initialized() or distributed.get_rank() == 0


def shard(items: Sequence[T]) -> tuple[Sequence[T], float]:
    """This process's shard of a step's items, and its weight: 0 for a placeholder item, where there are fewer items
    than processes, else 1."""
    if not distributed.is_initialized():
        return items, 1.0
    own = items[distributed.get_rank() :: distributed.get_world_size()]
    return (own, 1.0) if own else (items[:1], 0.0)


def all_reduce(parameters: Iterable[nn.Parameter], figures: Mapping[str, float]) -> dict[str, float]:
    """Replace each gradient by the sum over all processes, and return the sums of the figures.

    Every process must name the same parameters, in one order, and the same figures.
    """
    if not distributed.is_initialized():
        return dict(figures)
    learning = list(parameters)
    device = learning[0].device
    reached = torch.tensor([parameter.grad is not None for parameter in learning], dtype=torch.float32, device=device)
    distributed.all_reduce(reached)
    # One at a time: all in one tensor would be a second copy of the whole gradient.
    for parameter, count in zip(learning, reached.tolist(), strict=True):
        if count:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            distributed.all_reduce(parameter.grad)
    names = sorted(figures)
    told = torch.tensor([figures[name] for name in names], dtype=torch.float64, device=device)
    distributed.all_reduce(told)
    return dict(zip(names, told.tolist(), strict=True))
