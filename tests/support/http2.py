"""Clients of a gRPC server in HTTP/2's own frames: one pings as fast as it is answered, where gRPC's would wait; others
take up connections and do nothing with them.
"""

import asyncio
from contextlib import suppress

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS, PING, GOAWAY = 4, 6, 7
ACK = 1


async def ping(address: str, times: int) -> str:
    """Ping so often on a connection without a call. Returns why the server ended it, "" if it did not."""
    reader, writer = await asyncio.open_connection(*address.rsplit(":", 1))
    try:
        writer.write(PREFACE + _frame(SETTINGS) + _frame(PING, bytes(8)))
        while times:
            head = await reader.readexactly(9)
            payload = await reader.readexactly(int.from_bytes(head[:3], "big"))
            if head[3] == GOAWAY:
                return payload[8:].decode()
            if head[3] == PING and head[4] & ACK:
                times -= 1
                writer.write(_frame(PING, bytes(8)))
        return ""
    finally:
        writer.close()


async def most_at_once(address: str, tried: int) -> int:
    """How many connections the server takes, of so many that come one after another and stay."""
    taken, writers = 0, list[asyncio.StreamWriter]()
    try:
        for _ in range(tried):
            reader, writer = await asyncio.open_connection(*address.rsplit(":", 1))
            writers.append(writer)
            writer.write(PREFACE + _frame(SETTINGS))
            with suppress(ConnectionError):
                taken += bool(await reader.read(1))
        return taken
    finally:
        for writer in writers:
            writer.close()


def _frame(kind: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, 0]) + bytes(4) + payload
