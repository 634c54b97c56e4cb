"""Helpers for processes: parent-death signal, priority, ending a child's process group, ready files, error exit."""

import asyncio
import ctypes
import gc
import os
import resource
import signal
import sys
from contextlib import suppress
from pathlib import Path

from rlhf_online.durable import write_json
from rlhf_online.errors import ConfigError, RlhfError

PR_SET_PDEATHSIG = 1
NICE = 10
SWITCH_S, YOUNG = 0.0005, 10_000
MANY_FILES = 1 << 16
OWN_FILES = 128
"""Descriptors that a service needs for files of its own: log, versions, pipes, libraries."""
FEWEST_CONNECTIONS = 16
LOWER_PRIORITY = "RLHF_ENGINE_LOW_PRIORITY"
"""Variable that tells the engine's process to lower its priority: where it shares its cores with the chat service."""


def die_with_parent(by: signal.Signals = signal.SIGTERM) -> None:
    """Have Linux send a signal when the parent ends, so that no child is orphaned; does nothing elsewhere."""
    if sys.platform != "linux":
        return
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, by)
    if os.getppid() != parent:  # it ended before the request was in place
        os.kill(os.getpid(), by)


def raise_open_files() -> None:
    """Let this process open as many files (and connections) as it may raise its own limit to, MANY_FILES at most."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MANY_FILES if hard == resource.RLIM_INFINITY else min(hard, MANY_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def open_files() -> int:
    """How many files this process may have open, MANY_FILES for no limit."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MANY_FILES if soft == resource.RLIM_INFINITY else soft


def connection_budget(open_files: int, kinds: int) -> int:
    """How many connections of each of so many kinds a service may have: all of them are open files.

    Raises ConfigError if so few may be opened that nobody could be served.
    """
    each = (open_files - OWN_FILES) // kinds
    if each < FEWEST_CONNECTIONS:
        raise ConfigError(
            f"this process may open {open_files} files, and needs {OWN_FILES + kinds * FEWEST_CONNECTIONS}: "
            "raise the limit (ulimit -n)"
        )
    return each


def favour_event_loop() -> None:
    """Keep other threads, and the search for garbage, from holding an event loop up. Call it once all is imported.

    A thread that computes keeps Python's lock for SWITCH_S after another one asks for it. What was imported stays: to
    look through it again and again, as the collector does, takes tens of milliseconds each time. What a request makes
    is mostly freed without it, so it comes after YOUNG objects; after 700, as by default, it takes 7 % of all CPU.
    """
    sys.setswitchinterval(SWITCH_S)
    gc.freeze()
    gc.set_threshold(YOUNG)


def lower_priority() -> None:
    """Set this process to nice 10, so that compute does not delay the processes that handle requests.

    A process that computes without a pause delays those that wake up for each token: on two cores streamed answers
    arrived in one piece, 0.2 s late. Linux schedules a session as one (autogroup), so its leader lowers that too.
    """
    os.nice(max(NICE - os.nice(0), 0))
    if os.getsid(0) == os.getpid():
        try:
            Path("/proc/self/autogroup").write_text(str(NICE))
        except OSError:  # a kernel without autogroups
            pass


async def end_group(process: asyncio.subprocess.Process, grace_s: float) -> int:
    """End a child that leads its process group: SIGTERM, after the grace period SIGKILL to the group; its exit code."""
    if process.returncode is None:
        try:
            process.terminate()
            await asyncio.wait_for(process.wait(), grace_s)
        except (ProcessLookupError, TimeoutError):
            pass
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    return await process.wait()


def write_ready_file(ready_file: Path | None, **ports: int) -> None:
    """Write `{"pid": …, **ports}` to `ready_file`, atomically."""
    if ready_file is not None:
        write_json(ready_file, {"pid": os.getpid(), **ports})


def report_error(error: RlhfError) -> int:
    """Print the error to stderr; returns the exit code."""
    print(f"error: {error}", file=sys.stderr)
    return error.exit_code
