#!/bin/sh
# grpcio 1.85.1, client and server of grpc.aio: many calls at once over one channel.
# Expected: with the server option grpc.max_concurrent_streams the client, which is told that number, lets further calls
#       wait; and without it a server takes as many as maximum_concurrent_rpcs says, by default any number.
# Seen: with it some calls end as UNAVAILABLE ("RST_STREAM with error code 7", refused) though the client knows the number;
#       without it, of some thousands that arrive together, those beyond 1,000 that wait for the server's event loop may
#       end as CANCELLED, which nobody did: grpc.server.max_pending_requests and its _hard_limit say how many may wait.
# It bites programs that send all their calls over one channel, as gRPC advises, to a server whose loop was busy for a
# moment.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check grpcio==1.85.1
cat > "$work/calls.py" <<'PY'
import asyncio
from collections import Counter

import grpc.aio


async def answer(request, context):
    await asyncio.sleep(0.01)
    return request


async def outcomes(calls, at_once, options):
    server = grpc.aio.server(options=options)
    handler = grpc.unary_unary_rpc_method_handler(answer)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("s", {"m": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    turn, seen = asyncio.Semaphore(at_once), Counter()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary("/s/m")

        async def one():
            async with turn:
                try:
                    await call(b"x")
                    seen["answered"] += 1
                except grpc.aio.AioRpcError as error:
                    seen[error.code().name] += 1

        await asyncio.gather(*(one() for _ in range(calls)))
    await server.stop(None)
    return seen


WAIT = [("grpc.server.max_pending_requests", 8192), ("grpc.server.max_pending_requests_hard_limit", 8192)]
bounded = asyncio.run(outcomes(4000, 500, [("grpc.max_concurrent_streams", 256)]))
pending = asyncio.run(outcomes(8000, 3000, []))
told = asyncio.run(outcomes(8000, 3000, WAIT))
print("Expected: every call is answered, or waits")
print("Seen: 500 at once, grpc.max_concurrent_streams 256 ->", dict(bounded))
print("Seen: 3,000 at once, no option ->", dict(pending))
print("Seen: 3,000 at once,", WAIT[0][0], "8192 ->", dict(told))
raise SystemExit(not (bounded["UNAVAILABLE"] and pending["CANCELLED"] and told == {"answered": 8000}))
PY
"$work/venv/bin/python" "$work/calls.py"
