#!/bin/sh
# grpcio 1.85.1: the server option that lets clients ping often has another name than the option's C macro suggests.
# Expected: grpc.http2.min_recv_ping_interval_without_data_ms = 0 beside grpc.keepalive_permit_without_calls = 1, as
#       many Python servers set them, allows frequent pings.
# Seen: that name is ignored without a word, and the client is sent away with "too_many_pings";
#       grpc.http2.min_ping_interval_without_data_ms = 0 is what works.
# It bites servers of long calls, whose clients keep their connections alive by pings.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check grpcio==1.85.1
cat > "$work/pings.py" <<'PY'
import asyncio

import grpc.aio

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS, PING, GOAWAY, ACK = 4, 6, 7, 1
PINGS = 20
SEEN = {
    "grpc.http2.min_recv_ping_interval_without_data_ms": "too_many_pings",
    "grpc.http2.min_ping_interval_without_data_ms": "all answered",
}


def frame(kind, payload=b""):
    return len(payload).to_bytes(3, "big") + bytes([kind, 0]) + bytes(4) + payload


async def ping(port):
    """What becomes of a connection that pings as fast as it is answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(PREFACE + frame(SETTINGS) + frame(PING, bytes(8)))
    answered = 0
    while answered < PINGS:
        head = await reader.readexactly(9)
        payload = await reader.readexactly(int.from_bytes(head[:3], "big"))
        if head[3] == GOAWAY:
            return payload[8:].decode()
        if head[3] == PING and head[4] & ACK:
            answered += 1
            writer.write(frame(PING, bytes(8)))
    writer.close()
    return "all answered"


async def outcome(option):
    server = grpc.aio.server(options=[(option, 0), ("grpc.keepalive_permit_without_calls", 1)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        return await ping(port)
    finally:
        await server.stop(None)


seen = {option: asyncio.run(outcome(option)) for option in SEEN}
print("Expected: both names let a client ping", PINGS, "times")
for option, result in seen.items():
    print("Seen:", option, "->", result)
raise SystemExit(seen != SEEN)
PY
"$work/venv/bin/python" "$work/pings.py"
