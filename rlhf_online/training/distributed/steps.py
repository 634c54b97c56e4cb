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

from rlhf_online.errors import RanksFailed
from rlhf_online.training.distributed import group

T = TypeVar("T")
FINE, NOT_FINITE, OUT_OF_MEMORY, FAILED = range(4)
BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def out_of_memory(error: BaseException) -> bool:
    """Whether torch found no memory: on a CPU it has no type of its own for that."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def shard(items: Sequence[T]) -> tuple[Sequence[T], float]:
    """This process's shard of a step's items, and its weight: 0 for a placeholder item, where there are fewer items
    than processes, else 1."""
    if group.alone():
        return items, 1.0
    own = items[distributed.get_rank() :: distributed.get_world_size()]
    return (own, 1.0) if own else (items[:1], 0.0)


def together(work: Callable[[], T], what: str) -> T:
    """`work()`, in which nothing is exchanged; where it fails in one process it fails in all.

    Raises what it raised, out of memory where another was, RanksFailed where another failed otherwise.
    """
    if group.alone():
        return work()
    try:
        result, state = work(), FINE
        if isinstance(result, Tensor) and not bool(result.detach().isfinite().all()):
            state = NOT_FINITE
    except Exception as error:
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


def rows(items: Sequence[T], compute: Callable[[Sequence[T]], Tensor], what: str) -> Tensor:
    """`compute(items)`, which has a row for each item: each process computes a share of the rows, and gets all.

    A row's gradient goes to the process that computed it, so that the gradients of a loss that every process computes
    of all rows add up, over the processes, to that of the loss. What is no row's takes the whole gradient in each.
    """
    count = len(items)
    if group.alone() or not count:
        return compute(items)
    rank, size = distributed.get_rank(), distributed.get_world_size()
    own = slice(count * rank // size, count * (rank + 1) // size)
    if own.start < own.stop:
        values = together(lambda: compute(items[own]), what)
    else:
        with torch.no_grad():
            values = together(lambda: compute(items[:1]), what)
    found = values.detach().new_zeros(count, *values.shape[1:])
    if own.start < own.stop:
        found[own] = values.detach()
    group.add_up([found], what)
    if own.start < own.stop and values.requires_grad:
        found[own] = values
    return found


def all_reduce(parameters: Iterable[nn.Parameter], figures: Mapping[str, float]) -> dict[str, float]:
    """Replace each gradient by the sum over all processes, and return the sums of the figures.

    Every process must name the same parameters, in one order, and the same figures. Raises RanksFailed.
    """
    if group.alone():
        return dict(figures)
    learning, names = list(parameters), sorted(figures)
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


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """Of the names and of every bit: where two differ, the tensors do."""
    bits = [tensor.detach().view(BITS[tensor.element_size()]).sum(dtype=torch.int64) for tensor in tensors.values()]
    sums = torch.stack(bits).tolist() if bits else []
    return hashlib.sha256(repr(list(zip(tensors, sums, strict=True))).encode()).hexdigest()


def _tell_apart(finite: Sequence[bool], what: str) -> None:
    """Name the processes that alone have numbers that are not finite: their machine may be what is wrong."""
    wrong = [rank for rank, fine in enumerate(finite) if not fine]
    if wrong and not all(not fine for fine in finite) and group.is_main_process():
        structlog.get_logger().warning("not finite on some ranks only", ranks=group.named(wrong), step=what)
