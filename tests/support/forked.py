"""`python -m MODULE …` as a process that is forked off a server which has imported torch and the like before.

A trainer spends most of its start on imports, which nobody wants to wait for a hundred times. Everything else is as in
a process that was started by itself: the module's `main` runs from its first line, and a SIGKILL ends it anywhere.
"""

import multiprocessing
import os
import runpy
import sys
from collections.abc import Sequence
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

IMPORTED = ["services.trainer.wiring", "services.reward.server", "services.chat.service", "rlhf_online.eventlog.kafka"]


class Forked:
    """One process at a time, which can be started again and again. What it says is appended to `output`."""

    def __init__(self, module: str, arguments: Sequence[str], output: Path) -> None:
        self._module, self._arguments, self.output = module, list(arguments), output
        self._process: ForkServerProcess | None = None
        self._context = _server()

    @property
    def pid(self) -> int:
        assert self._process is not None and self._process.pid is not None
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; the negative number of the signal that ended it."""
        assert self._process is not None
        return self._process.exitcode

    def start(self) -> None:
        assert self._process is None
        self._process = self._context.Process(target=_run, args=(self._module, self._arguments, str(self.output)))
        self._process.start()

    def kill(self) -> int:
        """SIGKILL, and wait; the exit code, which tells whether it had ended by itself before."""
        assert self._process is not None
        self._process.kill()
        return self._wait(None)

    def stop(self, timeout_s: float = 60.0) -> int:
        """SIGTERM, and SIGKILL to one that takes more than `timeout_s`; the exit code."""
        assert self._process is not None
        self._process.terminate()
        return self._wait(timeout_s)

    def abandon(self) -> None:
        """SIGKILL, if it runs at all."""
        if self._process is not None:
            self.kill()

    def _wait(self, timeout_s: float | None) -> int:
        process, self._process = self._process, None
        assert process is not None
        process.join(timeout_s)
        if process.exitcode is None:
            process.kill()
            process.join()
        code = process.exitcode
        process.close()
        assert code is not None
        return code


def _server() -> ForkServerContext:
    """Of this process, and begun by the first who asks; it ends when this process does."""
    # gRPC reads this when it is imported; nothing in the server uses gRPC, so its fork handlers have nothing to do.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    forkserver.ensure_running()
    return context


def _run(module: str, arguments: list[str], output: str) -> None:
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
