"""Processes as the system sees them."""

import os
from pathlib import Path

import psutil


def peak_kib() -> int:
    """This process's peak of resident memory; `ru_maxrss` would count what its parent had before it was started."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))


def alive(pid: int) -> bool:
    """Whether the process runs; one that has ended, but that nobody has waited for, does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def group(leader: int) -> dict[int, str]:
    """The processes of a process group: id → command line."""
    members = {}
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == leader:
                members[process.pid] = " ".join(process.cmdline())
        except (ProcessLookupError, psutil.Error):
            continue  # it has just ended
    return members
