"""Processes as the system sees them."""

import os

import psutil


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
