"""Ports: free, or held by the service that they are for."""

import errno
import os
import socket
from pathlib import Path

from rlhf_online.doctor.finding import Finding, ok, refuse


def port(host: str, number: int, setting: str, module: str) -> Finding:
    """`module` is what the service's command line names, 'services.chat'; `setting` where the number stands."""
    about = f"port {number}"
    if number == 0:
        return ok("ports", f"{setting} = 0: the system chooses")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, number))
            probe.listen(1)
            return ok(about, f"{setting}: free on {host}")
        except OSError as error:
            code, why = error.errno, error.strerror or str(error)
    if code == errno.EADDRINUSE:
        process, command = _listener(number)
        if module in command:
            return ok(about, f"{setting}: {module} listens there (process {process})")
        name = Path(command[0]).name if command else "one that cannot be seen from here"
        held = f"is held by {name}" + (f" (process {process})" if process else "")
        return refuse(about, f"{setting}: {held}", f"stop it, or give another {setting}")
    if code == errno.EACCES:
        return refuse(about, f"{setting}: may not be opened by user {os.geteuid()}", "give one above 1023")
    return refuse(about, f"{setting}: {host} cannot be listened on ({why})", "mend host: an address of this machine")


def _listener(number: int) -> tuple[int, list[str]]:
    """The process that listens on the port and its command line; (0, []) if it cannot be seen from here."""
    inodes = set[str]()
    for table in ("tcp", "tcp6"):
        try:
            lines = Path("/proc/net", table).read_text().splitlines()[1:]
        except OSError:
            continue
        for fields in map(str.split, lines):
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == number:
                inodes.add(f"socket:[{fields[9]}]")
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if inodes & {os.readlink(opened) for opened in (folder / "fd").iterdir()}:
                command = (folder / "cmdline").read_bytes().decode(errors="replace")
                return int(folder.name), command.rstrip("\0").split("\0")
        except OSError:  # another user's, or gone
            continue
    return 0, []
