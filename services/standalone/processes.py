"""Child processes that nothing survives: each in a group of its own, logged to a file, ended with all its descendants.

On Linux this process adopts whatever its children leave behind (PR_SET_CHILD_SUBREAPER), so that an engine whose chat
service was killed can still be found and ended.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from rlhf_online.process import die_with_parent

PR_SET_CHILD_SUBREAPER = 36
POLL_S = 0.05


class Child:
    """One child process, started again and again."""

    def __init__(self, name: str, command: Sequence[str], log: Path) -> None:
        self.name = name
        self.log = log
        self.started: list[float] = []
        """Monotonic times of the starts."""
        self._command = list(command)
        self._process: subprocess.Popen[bytes] | None = None
        self._log_from = 0

    def start(self) -> None:
        """Start it, its output appended to the log. It must not run."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._log_from = log.tell()
            # Its own session: Ctrl-C in the terminal reaches only this process, which stops the children in order.
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent,
                # All share the cores: a thread that waits for its siblings must sleep, not spin.
                env={"OMP_WAIT_POLICY": "passive"} | os.environ,
            )
        self.started.append(time.monotonic())

    @property
    def pid(self) -> int | None:
        """Its process id, None while it does not run."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def exit_code(self) -> int | None:
        """How it ended (−signal if it was killed), None if it runs or never did."""
        return self._process.poll() if self._process else None

    def terminate(self) -> None:
        """Ask it to end."""
        if self.pid is not None and self._process is not None:
            self._process.terminate()

    def kill(self) -> None:
        """End its whole process group at once; what it left in other groups is adopted (`end_orphans`)."""
        if self.pid is not None and self._process is not None:
            kill_group(self._process.pid)
            self._process.wait()

    def tail(self, lines: int = 15) -> str:
        """The last lines of its output since the last start."""
        with self.log.open("rb") as log:
            log.seek(self._log_from)
            return "\n".join(log.read().decode(errors="replace").splitlines()[-lines:])


def adopt_orphans() -> None:
    """From now on, descendants whose parents end become children of this process (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def orphans(known: Sequence[int]) -> list[int]:
    """Living children of this process that are not in `known`; those that have ended are reaped."""
    living = []
    for pid in (child.pid for child in psutil.Process().children()):
        if pid in known:
            continue
        try:
            reaped, _ = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            continue
        if reaped == 0:
            living.append(pid)
    return living


def end_orphans(known: Sequence[int], *, timeout_s: float) -> list[int]:
    """Ask adopted processes to end, kill those that have not within `timeout_s`; returns all that were there.

    What an adopted process leaves behind in its turn is adopted and ended too.
    """
    asked: set[int] = set()
    deadline = time.monotonic() + timeout_s
    while living := orphans(known):
        late = time.monotonic() > deadline
        for pid in living:
            if late:
                kill_group(pid)
            elif pid not in asked:
                _send(pid, signal.SIGTERM)
        asked.update(living)
        time.sleep(POLL_S)
    return sorted(asked)


def kill_group(pid: int) -> None:
    """SIGKILL to the process and, if it leads a process group, to all of that."""
    try:
        if os.getpgid(pid) == pid:
            os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    _send(pid, signal.SIGKILL)


def _send(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass
