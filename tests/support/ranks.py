"""Processes that train together, as torchrun would start them, forked off a server that has imported torch before.

`run(3, work, …)` calls `work(…)`, a function of a module, in each of three: `RANK` in the environment tells which.
"""

import os
import pickle
import signal
import tempfile
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import torch
from torch.distributed.rendezvous import rendezvous

from tests.support.forked import _server
from tests.support.ports import reserve

WITHIN_S, GRACE_S = 400.0, 20.0


class Rank:
    """One of them."""

    def __init__(self, rank: int, size: int, port: int, work: Callable[..., Any], arguments: Sequence[Any]) -> None:
        descriptor, name = tempfile.mkstemp()
        os.close(descriptor)
        self._found = Path(name)
        environment = {
            **{"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size},
            **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_USE_AGENT_STORE": "True"},
        }
        self.process = _server().Process(target=_run, args=(self._found, environment, work, tuple(arguments)))
        self.process.start()

    def outcome(self) -> Any:
        """What its work gave or raised; the signal that ended it. It has ended."""
        self.process.join()
        written = self._found.read_bytes()
        self._found.unlink()
        if (code := self.process.exitcode) is not None and code < 0:
            return signal.Signals(-code)
        return pickle.loads(written)


class Ranks:
    """All of them, and the store in which they find one another, which torchrun would keep."""

    def __init__(self, size: int, work: Callable[..., Any], *arguments: Any) -> None:
        port = reserve()
        self._store = next(rendezvous(f"tcp://127.0.0.1:{port}", rank=0, world_size=1))
        self.each = [Rank(rank, size, port, work, arguments) for rank in range(size)]

    def outcomes(self) -> list[Any]:
        """Of each rank. Once one has failed the others have GRACE_S, and then SIGKILL, as torchrun has it; one that
        stands still has it at once."""
        running, within_s = [rank.process for rank in self.each], WITHIN_S
        while running and wait([process.sentinel for process in running], within_s):
            for process in [process for process in running if process.exitcode is not None]:
                running.remove(process)
                within_s = within_s if process.exitcode == 0 else GRACE_S
            for process in running if within_s == GRACE_S else ():
                if _stands_still(process.pid):
                    process.kill()
        for process in running:
            process.kill()
        return [rank.outcome() for rank in self.each]


def run(size: int, work: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What `work` gave in each of `size` processes, or the exception that it raised there."""
    return Ranks(size, work, *arguments).outcomes()


def _stands_still(pid: int | None) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile, and the server has seen to it
        return False


def _run(out: Path, environment: dict[str, Any], work: Callable[..., Any], arguments: Sequence[Any]) -> None:
    os.environ.update({name: str(value) for name, value in environment.items()})
    torch.set_num_threads(1)
    try:
        found = work(*arguments)
    except Exception as error:
        found = error
    out.write_bytes(pickle.dumps(found))
    os._exit(1 if isinstance(found, Exception) else 0)
