"""The least that a hop in Python costs: `python -m tests.benches.support.relay PORT` prints a port of its own.

What comes on a connection goes to PORT on one of its own, byte for byte, and back. Nothing is read of it: no request,
no key, no log. What a gateway's event loop adds on this machine is at least what this adds.
"""

import argparse
import asyncio
import gc
import os
from typing import cast

import uvloop

from rlhf_online import process


class Side(asyncio.Protocol):
    """One side of a connection; what it receives is written to the other."""

    def __init__(self, other: "Side | None" = None) -> None:
        self.other = other
        self.transport: asyncio.Transport | None = None
        self._before: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass of it
        if self.other is not None:
            self.other.joined(self)

    def joined(self, other: "Side") -> None:
        """The other side is open: it gets what came before."""
        self.other = other
        assert other.transport is not None
        other.transport.writelines(self._before)

    def data_received(self, data: bytes) -> None:
        if self.other is None or self.other.transport is None:
            self._before.append(data)
        else:
            self.other.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()


async def serve(port: int) -> None:
    """Until killed."""
    loop = asyncio.get_running_loop()
    opening: set[asyncio.Task[object]] = set()

    def accepted() -> Side:
        side = Side()
        task = asyncio.ensure_future(loop.create_connection(lambda: Side(side), "127.0.0.1", port))
        opening.add(task)
        task.add_done_callback(opening.discard)
        return side

    server = await loop.create_server(accepted, "127.0.0.1", 0, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    gc.freeze()
    gc.disable()
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("port", type=int)
    parser.add_argument("--core", type=int, help="the core that it runs on; any by default")
    options = parser.parse_args()
    process.die_with_parent()
    process.raise_open_files()
    if options.core is not None:
        os.sched_setaffinity(0, {options.core})
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(options.port))


if __name__ == "__main__":
    main()
