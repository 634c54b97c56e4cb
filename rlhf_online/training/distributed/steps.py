"""What processes share of a step: the items, the gradient's sum, and what went wrong in one of them.

All of this is called by every process, in the same order. In a process on its own `shard` gives it everything, and the
rest does what it would without the others.
"""

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

import structlog
import torch
from torch import Tensor, distributed, nn

from rlhf_online.errors import ConfigError, RanksFailed
from rlhf_online.models import sharding
from rlhf_online.training.distributed import group

T = TypeVar("T")
FINE, NOT_FINITE, OUT_OF_MEMORY, FAILED = range(4)
BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
NO_MEMORY = ("can't allocate memory", "CUDA error: out of memory")
"""What torch says of the host's memory, plain and pinned: it has no type of its own for that."""


def out_of_memory(error: BaseException) -> bool:
    """Whether torch found no memory."""
    return isinstance(error, torch.OutOfMemoryError) or any(said in str(error) for said in NO_MEMORY)


def shard(items: Sequence[T]) -> tuple[Sequence[T], float]:
    """This process's shard of a step's items, and its weight: 0 for a placeholder item, where there are fewer items
    than processes, else 1."""
    if group.alone():
        return items, 1.0
    own = items[distributed.get_rank() :: distributed.get_world_size()]
    return (own, 1.0) if own else (items[:1], 0.0)


def together(work: Callable[[], T], what: str, *, in_step: bool = False) -> T:
    """`work()`; where it fails in one process it fails in all. Nothing is exchanged in it, or, `in_step`, all make the
    same exchanges, as models that are sharded do: then the others cannot be told but by ending.

    Raises what it raised, out of memory where another was, RanksFailed where another failed otherwise.
    """
    if group.alone():
        return work()
    try:
        result, state = work(), FINE
        if isinstance(result, Tensor) and not bool(result.detach().isfinite().all()):
            state = NOT_FINITE
    except Exception as error:
        if in_step:
            raise _ending(error, what) from error
        group.gather([OUT_OF_MEMORY if out_of_memory(error) else FAILED], what)
        raise
    states = [round(values[0]) for values in group.gather([state], what)]
    if failed := [rank for rank, other in enumerate(states) if other == FAILED]:
        raise RanksFailed(f"{group.named(failed)} failed at {what}, and says why. {group.AGAIN}")
    if short := [rank for rank, other in enumerate(states) if other == OUT_OF_MEMORY]:
        raise torch.OutOfMemoryError(f"{group.named(short)} is out of memory at {what}")
    _tell_apart([other == FINE for other in states], what)
    return result


def least(value: int, what: str) -> int:
    """The smallest that any process says: what each can do."""
    return value if group.alone() else min(round(own) for (own,) in group.gather([value], what))


def _ending(error: Exception, what: str) -> Exception:
    if not out_of_memory(error):
        return error
    return ConfigError(
        f"out of memory at {what}, where models that are sharded cannot try again with less: start more ranks, "
        f"set recompute = true, or lower policy.micro_batch_tokens or rollout.max_tokens. {group.AGAIN}"
    )


def passes(groups: Sequence[T], weight: float, what: str, *, in_step: bool) -> list[tuple[T, float]]:
    """A step's micro-batches with the weight of each; `in_step` every process makes as many, of which the last are
    placeholders, of weight 0, in those that have fewer. Raises RanksFailed."""
    own = [(each, weight) for each in groups]
    if in_step and not group.alone():
        most = max(round(counts[0]) for counts in group.gather([len(own)], what))
        own += [(groups[0], 0.0)] * (most - len(own))
    return own


def rows(items: Sequence[T], compute: Callable[[Sequence[T]], Tensor], what: str, *, in_step: bool = False) -> Tensor:
    """`compute(items)`, which has a row for each item: each process computes a share of the rows, and gets all.

    A row's gradient goes to the process that computed it, so that the gradients of a loss that every process computes
    of all rows add up, over the processes, to that of the loss. What is no row's takes the whole gradient in each.
    `in_step` a process without a row takes part in the others' passes, and in their gradient.
    """
    count = len(items)
    if group.alone() or not count:
        return compute(items)
    rank, size = distributed.get_rank(), distributed.get_world_size()
    own = slice(count * rank // size, count * (rank + 1) // size)
    in_step = in_step and torch.is_grad_enabled()
    if own.start < own.stop:
        values = together(lambda: compute(items[own]), what, in_step=in_step)
    else:
        with torch.set_grad_enabled(in_step):
            values = together(lambda: compute(items[:1]), what, in_step=in_step)
    found = values.detach().new_zeros(count, *values.shape[1:])
    if own.start < own.stop:
        found[own] = values.detach()
    group.add_up([found], what)
    if own.start < own.stop and values.requires_grad:
        found[own] = values
    return found if own.start < own.stop or not in_step else found + values[:0].sum()


def all_reduce(parameters: Iterable[nn.Parameter], figures: Mapping[str, float]) -> dict[str, float]:
    """Replace each gradient by the sum over all processes, and return the sums of the figures.

    Every process must name the same parameters, in one order, and the same figures. Gradients of what is sharded are
    sums already. Raises RanksFailed.
    """
    if group.alone():
        return dict(figures)
    learning, names = [each for each in parameters if not sharding.is_sharded(each)], sorted(figures)
    own = [parameter.grad for parameter in learning if parameter.grad is not None]
    norm = float(nn.utils.get_total_norm(own)) if own else 0.0
    reached = [float(parameter.grad is not None) for parameter in learning]
    told = group.gather([norm, *(figures[name] for name in names), *reached], "a step")
    _tell_apart([all(map(math.isfinite, values)) for values in told], "a step")
    sums = [sum(values) for values in zip(*told, strict=True)]
    summed = []
    for parameter, count in zip(learning, sums[1 + len(names) :], strict=True):
        if count:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            summed.append(parameter.grad)
    group.add_up(summed, "a step's gradient")
    return dict(zip(names, sums[1 : 1 + len(names)], strict=True))


def total_norm(whole: Sequence[Tensor], cut: Sequence[Tensor]) -> Tensor:
    """The norm of gradients that every process has, and of those of which each has a piece. Raises RanksFailed."""
    if not cut:
        return nn.utils.get_total_norm(whole)
    told = group.gather([float(nn.utils.get_total_norm(cut))], "the gradient's norm")
    return torch.tensor(math.hypot(float(nn.utils.get_total_norm(whole)), *(norm for (norm,) in told)))


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """Of the names and of every bit: where two differ, the tensors do. What is sharded is there once, and left out."""
    tensors = {name: tensor for name, tensor in tensors.items() if not sharding.is_sharded(tensor)}
    bits = [tensor.detach().view(BITS[tensor.element_size()]).sum(dtype=torch.int64) for tensor in tensors.values()]
    sums = torch.stack(bits).tolist() if bits else []
    return hashlib.sha256(repr(list(zip(tensors, sums, strict=True))).encode()).hexdigest()


def _tell_apart(finite: Sequence[bool], what: str) -> None:
    """Name the processes that alone have numbers that are not finite: their machine may be what is wrong."""
    wrong = [rank for rank, fine in enumerate(finite) if not fine]
    if wrong and not all(not fine for fine in finite) and group.is_main_process():
        structlog.get_logger().warning("not finite on some ranks only", ranks=group.named(wrong), step=what)
