"""Ports, chosen by the system, for what binds them later, or again and again."""

import socket


def reserve() -> int:
    """A port that nobody gets, until this process ends, but a listener that shares it (SO_REUSEADDR), as servers do.

    It is bound and never listens. A port that is let go until its server binds it may be another's by then.
    """
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("127.0.0.1", 0))
    port = holder.getsockname()[1]
    holder.detach()  # the descriptor stays open
    return port
