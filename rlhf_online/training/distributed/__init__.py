"""Data parallelism: several processes train together, each computing its share of every step.

    rank 0   log, lease, checkpoints, versions ──▶ orders (`orders`) ──▶ its own update ──▶ commit
                                                        │                 ▲   sums (`steps`)
    rank 1…  no file, no network but this ──────────────┴──▶ the same update

Each holds the whole models. torchrun starts them on one machine; gloo connects them, and carries what is told; NCCL
sums the gradients of GPUs. A loss of this project is a sum over answers, divided by the denominator of the whole step:
so the gradients of the parts add up to that of one process, and every process takes the same step.

Nothing waits for ever: before tensors are exchanged every process must come, and one that does not is named
(`group.meeting`). Then no process goes on: what was learned since the last commit is in memory alone, and is learned
again after the next start, by as many processes as there are then.

In a process on its own all of this does nothing.
"""

from rlhf_online.training.distributed.group import (
    agree,
    alone,
    is_main_process,
    mesh,
    own_device,
    process_group,
    texts,
)
from rlhf_online.training.distributed.orders import Order, next_order, order
from rlhf_online.training.distributed.steps import (
    all_reduce,
    fingerprint,
    least,
    out_of_memory,
    passes,
    rows,
    shard,
    together,
    total_norm,
)

__all__ = [
    "Order",
    "agree",
    "all_reduce",
    "alone",
    "fingerprint",
    "is_main_process",
    "least",
    "mesh",
    "next_order",
    "order",
    "out_of_memory",
    "own_device",
    "passes",
    "process_group",
    "rows",
    "shard",
    "texts",
    "together",
    "total_norm",
]
