"""What the gateway costs: `make bench BENCH=gateway`, with LiteLLM's proxy beside it `ARGS="--litellm"`.

The chat service, started as ever, with keys, signed end users, limits and the local log (fsync) on, has one core to
itself; the engine's stand-in and the clients share another. What is told as "added" is the difference to the stand-in,
asked directly in the same way, in turns with the gateway: requests are due at random moments (a Poisson process), and a
latency counts from the moment that a request was due. Answers are ten words, one every 5 ms, each a chunk of the
engine's. Figures are medians over the rounds, percentiles those of a round. CPU is user and system time of the gateway
alone, whatever else the machine does. Four things in the same run say what this machine takes for itself: a bare loop
that writes and fsyncs as much as an answer's event; a relay in the gateway's place, which passes bytes on unread; the
health over gRPC, which asks nobody; and how many times as much CPU the same Python takes for a core that has slept.
"""

import argparse
import asyncio
import gc
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import orjson
import uvloop

from rlhf_online import process
from tests.benches.support import load
from tests.benches.support.figures import p99
from tests.benches.support.grpc_load import GrpcClient, HealthClient
from tests.benches.support.load import HttpClient, Reply, latencies_ms
from tests.benches.support.reports import note
from tests.benches.support.servers import (
    MASTER_KEY,
    ROOT,
    ChatFolder,
    Server,
    behind,
    litellm,
    relay,
    stand_in,
    until_ready,
)
from tests.benches.support.stand_in import prompt

PEOPLE = 1000
WORDS, INTERVAL_US = 10, 5_000
LONG = 50
CHAT = "/v1/chat/completions"
STREAMS, STREAM_WORDS, STREAM_INTERVAL_US = 1000, 20, 500_000
LITELLM_RATE = 40.0
EVENT_BYTES = 1024
STARTS = 3
HEAVY = ("torch", "transformers", "vllm", "kafka", "peft")

TARGETS: dict[str, tuple[str, float]] = {
    "added_p50_ms": ("<=", 1.0),
    "added_p99_ms": ("<=", 5.0),
    "added_first_p50_ms": ("<=", 1.0),
    "added_first_p99_ms": ("<=", 5.0),
    "added_chunk_p50_us": ("<=", 60.0),
    "grpc_added_p50_ms": ("<=", 1.0),
    "grpc_added_p99_ms": ("<=", 5.0),
    "saturated_per_s": (">=", 1200.0),
    "streams_failed": ("<=", 0.0),
    "streams_kib_each": ("<=", 60.0),
    "start_to_vote_s": ("<=", 1.5),
    "idle_rss_mib": ("<=", 120.0),
    "heavy_imports": ("<=", 0.0),
    "litellm_p50_ratio": (">=", 8.0),
}

Figures = dict[str, float | int | str]
Client = HttpClient | GrpcClient | HealthClient


class Bench:
    """`engine` is the stand-in's port, `relay` the relay's."""

    def __init__(self, options: argparse.Namespace, folder: Path, engine: int, relay: int, chat: ChatFolder) -> None:
        self.options = options
        self.folder = folder
        self.engine = engine
        self.relay = relay
        self.chat = chat
        self.found: Figures = {}
        self._lists: dict[str, list[float]] = {}

    def note(self, name: str, value: float) -> None:
        """One of several values of which the median is told."""
        self._lists.setdefault(name, []).append(value)

    def result(self) -> Figures:
        """Medians of what was noted, and what ratios follow from them."""
        medians = {name: round(statistics.median(values), 3) for name, values in self._lists.items()}
        if "litellm_beside_added_p50_ms" in medians:
            ratio = medians["litellm_beside_added_p50_ms"] / medians["gateway_beside_added_p50_ms"]
            self.found["litellm_p50_ratio"] = round(ratio, 1)
        return {**medians, **self.found}

    def http(self, port: int, *, stream: bool, words: int = WORDS, interval_us: int = INTERVAL_US) -> HttpClient:
        body = orjson.dumps({"messages": [{"role": "user", "content": prompt(words, interval_us)}], "stream": stream})
        requests = [load.post(CHAT, body, self.chat.headers(person)) for person in range(PEOPLE)]
        return HttpClient(port, requests)

    async def measured(
        self, client: HttpClient | GrpcClient | HealthClient, rate: float, seed: int
    ) -> dict[str, float]:
        """Latencies in the open loop."""
        replies = await self.asked(client, rate, seed)
        load.expect_none(replies)
        return latencies_ms(replies)

    async def asked(self, client: HttpClient | GrpcClient | HealthClient, rate: float, seed: int) -> list[Reply]:
        await load.open_loop(client.ask, rate=rate, seconds=1.0, seed=seed)
        replies = await load.open_loop(client.ask, rate=rate, seconds=self.options.seconds, seed=seed)
        await client.close()
        return replies

    async def round(self, server: Server, number: int) -> None:
        """The stand-in directly, the relay and the gateway, whole and streamed, HTTP and gRPC."""
        rate = self.options.rate
        for stream in (False, True):
            direct = await self.measured(self.http(self.engine, stream=stream), rate, number)
            least = await self.measured(self.http(self.relay, stream=stream), rate, number)
            before = server.cpu_s()
            ours = await self.measured(self.http(server.port, stream=stream), rate, number)
            cpu_us = 1e6 * (server.cpu_s() - before) / (rate * (self.options.seconds + 1.0))
            grpc = GrpcClient(server.grpc_port, self.chat.headers, PEOPLE, prompt(WORDS, INTERVAL_US), stream=stream)
            twin = await self.measured(grpc, rate, number)
            if not stream:
                health = await self.measured(HealthClient(server.grpc_port), rate, number)
                self.note("grpc_health_p50_ms", health["p50"])
                self.note("grpc_health_p99_ms", health["p99"])
                self.note("direct_p50_ms", direct["p50"])
                self.note("direct_p99_ms", direct["p99"])
            self.added("relay_", direct, least, stream=stream)
            self.added("", direct, ours, stream=stream)
            self.added("grpc_", direct, twin, stream=stream)
            self.note("streamed_cpu_us" if stream else "whole_cpu_us", cpu_us)

    def added(self, prefix: str, direct: dict[str, float], ours: dict[str, float], *, stream: bool) -> None:
        names = {"p50": "p50_ms", "p99": "p99_ms"}
        if stream:
            names = {f"first_{name}": f"first_{told}" for name, told in names.items()}
            self.note(f"{prefix}added_chunk_p50_us", 1000 * (ours["chunk_p50"] - direct["chunk_p50"]))
        for name, told in names.items():
            self.note(f"{prefix}added_{told}", ours[name] - direct[name])

    def disk(self, writes: int = 300) -> None:
        """What a write and its fsync take when nothing else is done."""
        data = os.urandom(EVENT_BYTES)
        took: list[float] = []
        with (self.folder / "bare").open("wb", buffering=0) as file:
            for _ in range(writes):
                before = time.perf_counter()
                file.write(data)
                os.fdatasync(file.fileno())
                took.append(1000 * (time.perf_counter() - before))
        self.note("bare_fsync_p50_ms", statistics.median(took))
        self.note("bare_fsync_p99_ms", p99(took))

    async def saturated(self, server: Server) -> None:
        """As many requests as it takes; a chunk's CPU is what longer answers take more of."""
        cpu_us: dict[str, float] = {}
        for name, stream, words in (
            ("saturated", False, WORDS),
            ("saturated_streamed", True, WORDS),
            ("saturated_long", True, LONG),
        ):
            client = self.http(server.port, stream=stream, words=words)
            before = server.cpu_s()
            at_once, seconds = self.options.at_once, self.options.seconds
            rate, replies = await load.closed_loop(client.ask, at_once=at_once, seconds=seconds)
            cpu_us[name] = 1e6 * (server.cpu_s() - before) / len(replies)
            await client.close()
            load.expect_none(replies)
            self.found |= {f"{name}_per_s": round(rate), f"{name}_cpu_us": round(cpu_us[name])}
        more = cpu_us["saturated_long"] - cpu_us["saturated_streamed"]
        self.found["chunk_cpu_us"] = round(more / (LONG - WORDS), 1)

    async def streams(self, server: Server) -> None:
        """Many streams at once: failures, and what memory grew by while all of them were open."""
        before = server.rss_mib()
        client = self.http(server.port, stream=True, words=STREAM_WORDS, interval_us=STREAM_INTERVAL_US)
        running = asyncio.create_task(load.at_once(client.ask, STREAMS))
        highest = before
        while not running.done():
            await asyncio.sleep(0.25)
            highest = max(highest, server.rss_mib())
        replies = await running
        await client.close()
        failed = load.failures(replies)
        self.found |= {"streams_at_once": STREAMS, "streams_failed": len(failed)}
        self.found["streams_kib_each"] = round(1024 * (highest - before) / STREAMS, 1)
        if failed:
            self.found["streams_first_failure"] = failed[0]

    async def beside_litellm(self, server: Server, rounds: int) -> None:
        """Added p50 of both, at a rate that LiteLLM keeps up with, and what it manages at most."""
        with litellm(self.folder / "litellm", self.engine, self.options.core) as theirs:
            headers = {"authorization": f"Bearer {MASTER_KEY}"}
            asked = {"model": "base", "messages": [{"role": "user", "content": prompt(WORDS, INTERVAL_US)}]}
            requests = [load.post(CHAT, orjson.dumps(asked), headers)]
            failed = 0
            for number in range(rounds):
                direct = await self.measured(self.http(self.engine, stream=False), LITELLM_RATE, number)
                ours = await self.measured(self.http(server.port, stream=False), LITELLM_RATE, number)
                replies = await self.asked(HttpClient(theirs.port, requests), LITELLM_RATE, number)
                answered = [reply for reply in replies if not reply.failure]
                failed += len(replies) - len(answered)
                for name, found in (("gateway", ours), ("litellm", latencies_ms(answered))):
                    self.note(f"{name}_beside_added_p50_ms", found["p50"] - direct["p50"])
                    self.note(f"{name}_beside_added_p99_ms", found["p99"] - direct["p99"])
            client = HttpClient(theirs.port, requests)
            rate, replies = await load.closed_loop(client.ask, at_once=64, seconds=self.options.seconds)
            await client.close()
            failed += len(load.failures(replies))
            self.found |= {"litellm_saturated_per_s": round(rate), "litellm_failed": failed}
            self.found["litellm_rate_per_s"] = LITELLM_RATE


def start_up(chat: ChatFolder) -> Figures:
    """How soon a chat process takes votes, and what it holds when it has nothing to do."""
    took, held = [], []
    for _ in range(STARTS):
        begin = time.monotonic()
        with chat.serve(None) as server:
            chat.vote(server)
            took.append(time.monotonic() - begin)
            held.append(server.rss_mib())
    script = f"import sys, services.chat.service\nprint(sum(name in sys.modules for name in {HEAVY}))"
    imported = subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, capture_output=True).stdout
    return {
        "start_to_vote_s": round(statistics.median(took), 3),
        "idle_rss_mib": round(statistics.median(held), 1),
        "heavy_imports": int(imported),
    }


def asleep(core: int) -> Figures:
    """How much dearer the same code is after a sleep than back to back."""
    command = [sys.executable, "-m", "tests.benches.support.sleeping", "--core", str(core)]
    took = orjson.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout)
    return {
        f"{code}_after_{sleep}_ms_asleep_x": round(of[f"after_{sleep}_ms_of_sleep"] / of["back_to_back"], 1)
        for code, of in took.items()
        for sleep in (1, 5)
    }


async def measure(options: argparse.Namespace, folder: Path) -> Figures:
    with ExitStack() as stack:
        engine = stack.enter_context(stand_in(options.other_core))
        limits = {"max_concurrent": 2 * STREAMS}
        chat = ChatFolder(folder, behind(folder, engine), limits=limits)
        hop = stack.enter_context(relay(engine, options.core))
        bench = Bench(options, folder, engine, hop, chat)
        note("starting the chat service")
        bench.found |= start_up(chat) | asleep(options.core)
        server = stack.enter_context(chat.serve(options.core))
        until_ready(server, "/readyz", {})
        for number in range(options.rounds):
            note(f"round {number + 1} of {options.rounds}")
            bench.disk()
            await bench.round(server, number)
        note("as many requests as it takes")
        await bench.saturated(server)
        note(f"{STREAMS} streams at once")
        await bench.streams(server)
        if options.litellm:
            note("beside LiteLLM's proxy")
            await bench.beside_litellm(server, options.rounds)
        return bench.result()


def table(found: Figures) -> str:
    """A line a figure, its target beside it."""
    rows = []
    for name, value in found.items():
        sign, target = TARGETS.get(name, ("", 0.0))
        told = "" if not sign else f"{sign} {target:g}"
        rows.append(f"{name:<32}{value:>12}   {told:<10}{'' if not sign or met(name, value) else 'not met'}".rstrip())
    return "\n".join(rows)


def met(name: str, value: float | int | str) -> bool:
    assert not isinstance(value, str), name
    sign, target = TARGETS[name]
    return value <= target if sign == "<=" else value >= target


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benches.gateway",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8.0, help="length of one measurement")
    parser.add_argument("--rate", type=float, default=200.0, help="requests a second of the open loop")
    parser.add_argument("--at-once", type=int, default=128, help="requests in progress where it is saturated")
    parser.add_argument("--core", type=int, default=0, help="the core of what is measured")
    parser.add_argument("--other-core", type=int, default=1, help="the core of everything else")
    parser.add_argument("--litellm", action="store_true", help="and LiteLLM's proxy, installed below build/ if need be")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    options = parser.parse_args()
    process.raise_open_files()
    os.sched_setaffinity(0, {options.other_core})
    gc.freeze()
    gc.disable()
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-gateway-") as folder:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            found = runner.run(measure(options, Path(folder)))
    print(orjson.dumps(found).decode() if options.json else table(found))


if __name__ == "__main__":
    main()
