"""The processes that train together: their group, what they exchange, and which of them did not come.

Before each exchange a process writes into the store in which torchrun had them find one another that it has come; where
an exchange fails the others read there who has not. Invariants: who waits for another waits a bounded time, and says
for whom; only a rank above 0 that has nothing to do waits for as long as it takes, and it ends when rank 0 does.
Nothing that comes from another process is unpickled.
"""

import os
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.rendezvous import rendezvous

from rlhf_online.errors import ConfigError, RanksFailed

WITHIN_S = 600.0
IDLE = timedelta(days=365)
ENDS_S = 5.0
"""A process that ends closes its connections a moment before it can be seen to have ended."""
FAILED = "failed"
AGAIN = (
    "Nothing of this update is kept or published: once all ranks have started anew, training goes on from the last "
    "checkpoint"
)


class _Group:
    """What `process_group` sets up beside torch's default group, as that itself: once for the process.

    `members` are the host and process id of each rank; `meetings` counts the exchanges, and is the same in all. GPUs
    exchange tensors in `gradients`, a rank above 0 waits for orders in `idle`, and `mesh` exchanges pieces of weights.
    """

    def __init__(self) -> None:
        self.within_s = WITHIN_S
        self.members: list[tuple[str, int]] = []
        self.meetings = 0
        self.store: Any = None
        self.gradients: Any = None
        self.idle: Any = None
        self.mesh: DeviceMesh | None = None


_group = _Group()


@contextmanager
def process_group(device: torch.device, within_s: float = WITHIN_S) -> Iterator[torch.device]:
    """Join the process group that torchrun started, if it did; yields this process's own device.

    A process that the others wait for longer than `within_s` seconds counts as lost. Raises ConfigError for more
    processes than the machine has GPUs, RanksFailed where one does not join, or is not there at the end.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield device
        return
    device = own_device(device)
    _join(device, within_s)
    try:
        name = f"{socket.gethostname()} {os.getpid()}"
        _group.members = [
            (host, int(pid)) for host, _, pid in (said.rpartition(" ") for said in texts(name, "the start"))
        ]
        yield device
        texts("", "the end")
    except RanksFailed:
        raise
    except RuntimeError as error:
        lost = "gloo" in str(error) or "NCCL" in str(error)  # in an exchange of weights, which torch makes by itself
        if lost or any(_others()[:2]):
            raise _lost("an exchange of weights", _group.within_s, error) from error
        come(FAILED)
        raise
    except BaseException:
        come(FAILED)
        raise
    finally:
        distributed.destroy_process_group()
        _group.__init__()


def _join(device: torch.device, within_s: float) -> None:
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if sys.platform == "linux" and os.environ.get("LOCAL_WORLD_SIZE") == os.environ["WORLD_SIZE"]:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # no other machine is to reach them
    within = timedelta(seconds=within_s)
    try:
        store, rank, size = next(rendezvous("env://", timeout=within))
        distributed.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=within)
        _group.store, _group.within_s = store, within_s
        _group.idle = distributed.new_group(backend="gloo", timeout=IDLE if rank else within)
        if device.type == "cuda":
            _group.gradients = distributed.new_group(backend="nccl", timeout=within)
    except RuntimeError as error:
        raise RanksFailed(f"not all {os.environ['WORLD_SIZE']} ranks joined within {within_s:g} s: {error}") from error


def own_device(device: torch.device) -> torch.device:
    """The device of this process: of several that torchrun started each has a GPU of its own. Raises ConfigError."""
    if device.type != "cuda" or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return device
    local, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if local >= there:
        raise ConfigError(
            f"torchrun started {os.environ['LOCAL_WORLD_SIZE']} processes (--nproc-per-node) for {there} GPUs: start "
            "one a GPU, or set device = 'cpu'"
        )
    return torch.device("cuda", local)


def mesh(device: torch.device) -> DeviceMesh:
    """All processes, for models that are sharded on their devices. They exchange in a group of its own, by NCCL between
    GPUs, and else by gloo, also on a machine that has GPUs."""
    if _group.mesh is None:
        within = timedelta(seconds=_group.within_s)
        backend: Any = _group.gradients or distributed.new_group(backend="gloo", timeout=within)
        _group.mesh = DeviceMesh.from_group(backend, device.type)
    return _group.mesh


def alone() -> bool:
    """Whether this process trains on its own."""
    return not distributed.is_initialized()


def is_main_process() -> bool:
    """Whether this is rank 0, which writes and reports."""
    return alone() or distributed.get_rank() == 0


# Who did not come


def named(ranks: Sequence[int]) -> str:
    """These ranks, for people: "rank 1 (host, process 7)"."""
    members = [f" ({host}, process {pid})" for host, pid in _group.members] or [""] * distributed.get_world_size()
    return " and ".join(f"rank {rank}{members[rank]}" for rank in ranks)


@contextmanager
def meeting(what: str) -> Iterator[None]:
    """All come, and tensors are exchanged in the block. Raises RanksFailed, which names who did not come."""
    _group.meetings += 1
    begun = time.monotonic()
    try:
        come(str(_group.meetings))
        yield
    except RuntimeError as error:
        raise _lost(what, time.monotonic() - begun, error) from error


def come(where: str) -> None:
    """Let the others know that this process is there: at the exchange of that number, or FAILED."""
    _group.store.set(f"came/{distributed.get_rank()}", where)


def _others() -> tuple[list[int], list[int], list[int]]:
    """Which other ranks have ended, which have failed, and which have not come to where this one is."""
    others = [rank for rank in range(distributed.get_world_size()) if rank != distributed.get_rank()]
    came = {rank: _came(rank) for rank in others}
    failed = [rank for rank in others if came[rank] == FAILED]
    behind = [rank for rank in others if rank not in failed and int(came[rank]) < _group.meetings]
    return [rank for rank in others if not _runs(rank)], failed, behind


def _lost(what: str, waited_s: float, error: RuntimeError) -> RanksFailed:
    until = time.monotonic() + ENDS_S
    while not any((found := _others())[:2]) and time.monotonic() < until:
        time.sleep(0.05)
    gone, failed, behind = found
    if gone:
        why = f"{named(gone)} ended"
    elif failed:
        why = f"{named(failed)} failed, and says why"
    elif behind:
        why = f"{named(behind)} did not come within {waited_s:.3g} s"
    else:
        why = f"the ranks lost one another: {error}"
    return RanksFailed(f"{what}, shared by {distributed.get_world_size()} ranks: {_first(why)}. {AGAIN}")


def _first(why: str) -> str:
    """What the first process found that found anything wrong: the others may see no more than that it ended."""
    try:
        return _group.store.compare_set("why", "", why).decode()
    except RuntimeError:  # the store has ended, too
        return why


def _came(rank: int) -> str:
    """Which exchange the rank has come to."""
    try:
        key = f"came/{rank}"
        return _group.store.get(key).decode() if _group.store.check([key]) else "0"
    except RuntimeError:  # the store has ended, too
        return str(_group.meetings)


def _runs(rank: int) -> bool:
    """False if the rank's process has ended, as far as this machine can tell."""
    if not _group.members or _group.members[rank][0] != socket.gethostname() or not Path("/proc/self").exists():
        return True
    try:
        stat = Path(f"/proc/{_group.members[rank][1]}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


# What they exchange


def texts(text: str, what: str) -> list[str]:
    """What each process says, by rank. Raises RanksFailed."""
    own = torch.tensor(list(text.encode()), dtype=torch.uint8)
    with meeting(what):
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(distributed.get_world_size())]
        distributed.all_gather(sizes, torch.tensor([len(own)]))
        longest = max(1, *(int(size) for size in sizes))
        found = [torch.zeros(longest, dtype=torch.uint8) for _ in sizes]
        distributed.all_gather(found, torch.cat((own, torch.zeros(longest - len(own), dtype=torch.uint8))))
    return [bytes(said[: int(size)].tolist()).decode() for said, size in zip(found, sizes, strict=True)]


def agree(what: str, text: Callable[[], str]) -> None:
    """All processes must say the same of `what`. Raises RanksFailed that names those that do not, as rank 0 does.

    Does nothing in a process on its own.
    """
    if alone():
        return
    said = texts(text(), what)
    if others := [rank for rank, other in enumerate(said) if other != said[0]]:
        raise RanksFailed(
            f"{what} is another one for {named(others)} than for rank 0: have one kind of machine, one model and the "
            f"same software for all. {AGAIN}"
        )


def gather(values: Sequence[float], what: str) -> list[list[float]]:
    """The figures of each process, by rank, in float64. Raises RanksFailed."""
    own = torch.tensor(values, dtype=torch.float64)
    found = [torch.zeros_like(own) for _ in range(distributed.get_world_size())]
    with meeting(what):
        distributed.all_gather(found, own)
    return [tensor.tolist() for tensor in found]


def add_up(tensors: Sequence[Tensor], what: str) -> None:
    """Replace each tensor by its sum over all processes, which have met just before. Raises RanksFailed."""
    with meeting(what):
        # Each on its own: all in one tensor would be a second copy of the whole gradient.
        _finish(
            distributed.all_reduce(tensor, group=_group.gradients if tensor.is_cuda else None, async_op=True)
            for tensor in tensors
        )


def from_main_process(tensors: Sequence[Tensor], what: str) -> None:
    """Fill each tensor, on the CPU and contiguous, with that of rank 0. Raises RanksFailed."""
    with meeting(what):
        _finish(distributed.broadcast(tensor.reshape(-1).view(torch.uint8), src=0, async_op=True) for tensor in tensors)


def _finish(begun: Iterable[distributed.Work | None]) -> None:
    """Wait for exchanges, all of which are under way by then."""
    for work in list(begun):
        assert work is not None, "asynchronous, in a group"
        work.wait()


def wake(size: int, what: str) -> None:
    """Tell the ranks that wait for orders that one of `size` bytes comes. Raises RanksFailed."""
    with meeting(what):
        for rank in range(1, distributed.get_world_size()):
            distributed.send(torch.tensor([size]), dst=rank, group=_group.idle)


def wait_for_order() -> int:
    """Until rank 0 has an order, for as long as it takes: its size in bytes. Raises RanksFailed when rank 0 ends."""
    size = torch.zeros(1, dtype=torch.int64)
    with meeting("waiting for orders"):
        distributed.recv(size, src=0, group=_group.idle)
    return int(size)
