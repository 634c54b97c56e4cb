"""What the gateway costs: answers a second and CPU an answer, with a fake engine and the real local log.

    python tests/benches/gateway.py [--answers 3000] [--tokens 10] [--concurrent 64]

The service runs in a process of its own, so its CPU time is its own; the fake engine and the clients share another.
"""

import argparse
import asyncio
import multiprocessing
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import aiohttp
import orjson

from rlhf_online.config import ChatSettings
from rlhf_online.engine.vllm import EngineClient
from rlhf_online.eventlog import open_sink
from rlhf_online.state import StateDir
from rlhf_online.versions import open_registry
from services.chat.service import Ports, serve, wire
from tests.support.chat_host import ChatHost
from tests.support.fake_generation import Same
from tests.support.fake_vllm import FakeVllm


async def service(folder: Path, pipe: Connection, log: str) -> None:
    """Serve, with the event log at `log`, until the parent says something.

    Then tell the CPU seconds used since the port was open.
    """
    state = StateDir(folder / "state")
    ports = {"http_port": 0, "grpc_port": 0}
    settings = ChatSettings.model_validate({"state_dir": state.root, "log": {"url": log}, **ports})
    host = ChatHost(FakeVllm(), EngineClient(f"unix:{folder / 'engine.sock'}"))
    sink = open_sink(settings.log, state.log)
    stop = asyncio.Event()
    started = 0.0

    async def opened(ports: Ports) -> None:
        nonlocal started
        started = time.process_time()
        pipe.send(ports.http)

    asyncio.get_running_loop().add_reader(pipe.fileno(), stop.set)
    await serve(wire(settings, state, open_registry(state.versions), host, sink), stop, opened)
    pipe.send(time.process_time() - started)
    sink.close()
    await host.client.close()


def child(folder: Path, pipe: Connection, log: str = "file:") -> None:
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(service(folder, pipe, log))


async def drive(port: int, *, answers: int, concurrent: int, stream: bool) -> float:
    """Seconds for so many answers."""
    body = orjson.dumps({"messages": [{"role": "user", "content": "name three metal"}], "stream": stream})
    room = asyncio.Semaphore(concurrent)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def one() -> None:
            async with room, session.post(f"http://127.0.0.1:{port}/v1/chat/completions", data=body) as response:
                await response.read()
                assert response.status == 200

        started = time.perf_counter()
        await asyncio.gather(*(one() for _ in range(answers)))
        return time.perf_counter() - started


async def measure(options: argparse.Namespace, *, stream: bool) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        engine = FakeVllm(Same([(20 + i, " word") for i in range(options.tokens)]))
        await engine.start(folder / "engine.sock")
        ours, theirs = multiprocessing.Pipe()
        process = multiprocessing.get_context("spawn").Process(target=child, args=(folder, theirs))
        process.start()
        port = await asyncio.to_thread(ours.recv)
        seconds = await drive(port, answers=options.answers, concurrent=options.concurrent, stream=stream)
        ours.send("stop")
        cpu_s = await asyncio.to_thread(ours.recv)
        await asyncio.to_thread(process.join)
        await engine.stop()
    kind = "streamed" if stream else "whole"
    print(
        f"{kind:9} {options.answers / seconds:6.0f} answers/s   {1000 * cpu_s / options.answers:5.2f} ms CPU an answer"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", type=int, default=3000)
    parser.add_argument("--tokens", type=int, default=10)
    parser.add_argument("--concurrent", type=int, default=64)
    options = parser.parse_args()
    for stream in (False, True):
        asyncio.run(measure(options, stream=stream))


if __name__ == "__main__":
    main()
