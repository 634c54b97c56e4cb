"""New weights under load, in a real vLLM: `make bench BENCH=swap`, `ARGS="--first 5 --json"`.

The chat service starts vLLM on the tiny model, as `rlhf-online up` does, and 32 streams at once ask it for answers of
48 tokens, one after the other, while version after version is promoted. Nothing may fail, be cut short, or be unlogged.

    full       the product's swap of all weights: 50 of them, spread over 10,000 requests or more
    rollback   as full, each followed by a roll-back: from the operator's request to the last token of the bad version
    lora       the product's swap of adapters; the gap between two tokens with swaps and without, in turns
    lora_rollback   as rollback, with adapters
    three      rollback with three chat services on one store; their engines are stand-ins that write a token in 10 ms
    plain      vLLM's `reload_weights` alone, at the engine's own socket: tokens that neither version would have written
    restart    the engine is killed and started again on the live version

Which is a bad version's last token the spans of the answers tell; its moment is that at which the event arrived here.
"""

import argparse
import asyncio
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from bisect import bisect_left
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, cast

import aiohttp
import httptools
import numpy as np
import orjson
import psutil
import uvloop

from rlhf_online.engine.child import socket_path
from rlhf_online.engine.vllm import EngineClient
from rlhf_online.models.first_probe import first_probe
from rlhf_online.simulation.tiny_model import write_tiny_model
from rlhf_online.state import StateDir
from rlhf_online.versions import open_registry
from rlhf_online.versions.genesis import genesis
from rlhf_online.versions.registry import Registry
from tests.benches.support import load
from tests.benches.support.figures import p99
from tests.benches.support.reports import note
from tests.benches.support.servers import ChatFolder, Server, call, until_ready
from tests.support import adapters
from tests.support.engine import publish, recompute_all
from tests.support.events import events, streamed
from tests.support.waiting import eventually

AT_ONCE, TOKENS = 32, 48
REQUESTS_A_SWAP = 200
SWAPS = 50
PERIODS, SWAPS_A_PERIOD = 6, 2
"""Of swaps of adapters, as often as of all weights, and of none, in turns."""
ROLLBACKS = 10
WATCHED, WATCHED_TOKENS = 6, 110
EXACT = 1e-3
PAUSE_P50_S, PAUSE_P99_S, GAP_RATIO, ROLLBACK_S, THREE_S = 0.1, 0.3, 1.2, 2.0, 10.0
"""What is asked for."""
CHAT = "/v1/chat/completions"
MODES = ("full", "rollback", "lora", "lora_rollback", "three", "plain", "restart")


@dataclass
class Answer:
    """One as it arrived: its pieces' moments, how many events had come by then, and what was wrong with it."""

    at: list[float] = field(default_factory=list)
    come: list[int] = field(default_factory=list)
    spans: list[dict[str, Any]] = field(default_factory=list)
    tokens: int = 0
    failure: str = ""
    cut_short: bool = False


class Connection(asyncio.Protocol):
    """One request after another; keeps the moment of each piece and looks at the whole in the end."""

    def __init__(self, tokens: int) -> None:
        self.answer = Answer()
        self._tokens = tokens
        self._body = bytearray()
        self._parser = httptools.HttpResponseParser(self)
        self._ended: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._ended is not None and not self._ended.done():
            self.answer.failure = f"the connection ended ({exc})"
            self._ended.set_result(None)

    async def ask(self, request: bytes) -> Answer:
        self.answer, self._body = Answer(), bytearray()
        self._ended = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        await self._ended
        return self.answer

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self.answer.at.append(time.monotonic())
        self.answer.come.append((self.answer.come or [0])[-1] + body.count(b"data: "))
        self._body += body

    def on_message_complete(self) -> None:
        self._judge(self._parser.get_status_code())
        self._parser = httptools.HttpResponseParser(self)
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)

    def _judge(self, status: int) -> None:
        body = bytes(self._body)
        if status != 200 or b'"error"' in body or not body.endswith(b"data: [DONE]\n\n"):
            self.answer.failure = f"{status} {body[-200:].decode(errors='replace')}"
            return
        last = events(body)[-1]
        self.answer.spans = last["rlhf"]["versions"][0]
        self.answer.tokens = last["usage"]["completion_tokens"]
        wrong = bool(self._tokens) and self.answer.tokens != self._tokens
        self.answer.cut_short = wrong or not last["rlhf"]["logged"]


class Load:
    """Streams that ask again and again; `answers` are those that have ended. Each has `tokens`, if not 0."""

    def __init__(self, server: Server, chat: ChatFolder, *, at_once: int = AT_ONCE, tokens: int = TOKENS) -> None:
        self._tokens = tokens
        self.answers: list[Answer] = []
        self._port = server.port
        body = {"messages": [{"role": "user", "content": "name three metal"}], "stream": True, "max_tokens": TOKENS}
        body |= {"ignore_eos": True, "stream_options": {"include_usage": True}}
        self._requests = [load.post(CHAT, orjson.dumps(body), chat.headers(person)) for person in range(at_once)]
        self._stop = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "Load":
        self._tasks = [asyncio.create_task(self._stream(request)) for request in self._requests]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop.set()
        await asyncio.gather(*self._tasks)

    async def _stream(self, request: bytes) -> None:
        loop = asyncio.get_running_loop()
        while not self._stop.is_set():
            _, connection = await loop.create_connection(lambda: Connection(self._tokens), "127.0.0.1", self._port)
            while not self._stop.is_set():
                answer = await connection.ask(request)
                self.answers.append(answer)
                if answer.failure:
                    break
            connection.transport.abort()

    async def reach(self, count: int) -> None:
        """Wait until so many have ended."""
        await eventually(lambda: len(self.answers) >= count)


@dataclass
class Bed:
    """A running chat service with its engine, and versions to promote in turns."""

    state: StateDir
    server: Server
    chat: ChatFolder
    registry: Registry
    versions: list[str]

    async def ready(self) -> dict[str, Any]:
        with suppress(OSError):
            return json.loads(await asyncio.to_thread(call, self.server.port, "/readyz", None, {}))
        return {}

    async def serves(self, version: str) -> None:
        while True:
            if (await self.ready()).get("serving") == version:
                return
            await asyncio.sleep(0.02)

    async def promote(self, number: int) -> str:
        """Make the next of the versions live, and wait until it serves."""
        version = self.versions[number % len(self.versions)]
        if version == self.registry.live("policy"):
            version = self.versions[(number + 1) % len(self.versions)]
        self.registry.promote(version)
        await self.serves(version)
        return version

    def swaps(self) -> list[dict[str, Any]]:
        """How those of this service's life went, but for the first, which had nothing to pause."""
        return [swap for swap in self.state.read_status("chat")["swaps"] if swap["previous"]]


@asynccontextmanager
async def bed(folder: Path, *, tuning: str, versions: int = 6) -> AsyncIterator[Bed]:
    """With its own state below `folder`."""
    state, model = StateDir(folder / "state"), folder / "base"
    registry = open_registry(state.versions)
    write_tiny_model(model, weights_seed=3 if tuning == "lora" else None)
    if tuning == "lora":
        genesis(registry, model, tuning="lora", probe_of=first_probe)
        names = [
            adapters.publish(registry, adapters.adapter(model, seed), promote=False) for seed in range(1, versions + 1)
        ]
    else:
        names = [publish(registry, seed, promote=False) for seed in range(versions)]
    registry.promote(names[0])
    engine = {"model": str(model), "max_model_len": 128, "kv_cache_gib": 0.25, "threads": 1, "tuning": tuning}
    chat = ChatFolder(folder, engine)
    with chat.serve(None) as server:
        await asyncio.to_thread(until_ready, server, "/readyz", {})
        yield Bed(state, server, chat, registry, names)


def faults(answers: Sequence[Answer]) -> dict[str, Any]:
    failed = [answer.failure for answer in answers if answer.failure]
    cut = sum(answer.cut_short for answer in answers)
    return {"requests": len(answers), "failed": len(failed), "cut_short": cut, "first_failure": (failed or [""])[0]}


def gaps(answers: Sequence[Answer]) -> list[float]:
    """Seconds between two pieces of one answer."""
    return [b - a for answer in answers for a, b in zip(answer.at, answer.at[1:], strict=False)]


def spread(values: Sequence[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {
        "p50_s": round(statistics.median(ordered), 4),
        "p99_s": round(ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)], 4),
        "max_s": round(ordered[-1], 4),
    }


async def full(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    async with bed(folder, tuning="full") as one, Load(one.server, one.chat) as streams:
        await streams.reach(AT_ONCE)
        begin, before = time.monotonic(), len(streams.answers)
        for number in range(options.first):
            await one.promote(number + 1)
            await streams.reach(before + (number + 1) * REQUESTS_A_SWAP)
        seconds = time.monotonic() - begin
        swaps = one.swaps()
    found = faults(streams.answers)
    pause = spread([swap["pause_s"] for swap in swaps])
    crossed = sum(len(answer.spans) > 1 for answer in streams.answers)
    return {
        "swaps": len(swaps),
        **found,
        "answers_across_a_swap": crossed,
        "tokens_per_s": round(found["requests"] * TOKENS / seconds),
        **{f"pause_{name}": value for name, value in pause.items()},
        **{f"waited_{name}": value for name, value in spread([swap["wait_s"] for swap in swaps]).items()},
        **{f"gap_{name}": value for name, value in spread(gaps(streams.answers)).items()},
        "ok": found["failed"] == found["cut_short"] == 0
        and len(swaps) == options.first
        and all(swap["ok"] for swap in swaps)
        and found["requests"] >= options.first * REQUESTS_A_SWAP
        and pause["p50_s"] <= PAUSE_P50_S
        and pause["p99_s"] <= PAUSE_P99_S,
    }


async def rollback(options: argparse.Namespace, folder: Path, tuning: str = "full") -> dict[str, Any]:
    """Each version that is promoted is rolled back, by the API, under the streams."""
    count = min(options.first, ROLLBACKS)
    last_token_s, served_s = [], []
    async with bed(folder, tuning=tuning, versions=count + 1) as one, Load(one.server, one.chat) as streams:
        headers = {"authorization": f"Bearer {one.state.operator_token()}", "content-type": "application/json"}
        for number in range(count):
            bad = await one.promote(number + 1)
            await streams.reach(len(streams.answers) + AT_ONCE)
            asked = time.monotonic()
            body = {"reason": "the bench"}
            await asyncio.to_thread(call, one.server.port, "/v1/versions/rollback", body, headers)
            await one.serves(str(one.registry.live("policy")))
            served_s.append(time.monotonic() - asked)
            await streams.reach(len(streams.answers) + 2 * AT_ONCE)  # all that were in flight have ended
            last_token_s.append(max(0.0, last_token(streams.answers, bad) - asked))
    found = faults(streams.answers)
    return {
        "rollbacks": count,
        **found,
        **{f"served_{name}": value for name, value in spread(served_s).items()},
        **{f"last_bad_token_{name}": value for name, value in spread(last_token_s).items()},
        "ok": found["failed"] == found["cut_short"] == 0 and max(last_token_s) <= ROLLBACK_S,
    }


async def three(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """A version that all three serve is rolled back by one of them."""
    count = min(options.first, ROLLBACKS)
    last_token_s, served_s = [], []
    async with AsyncExitStack() as stack:
        registry = open_registry(folder / "versions")
        good = publish(registry, 0)
        beds = [await stack.enter_async_context(_stand_in(folder, number, registry)) for number in range(3)]
        loads = [await stack.enter_async_context(Load(one.server, one.chat, at_once=8, tokens=0)) for one in beds]
        headers = {"authorization": f"Bearer {beds[0].state.operator_token()}", "content-type": "application/json"}
        for number in range(count):
            bad = publish(registry, 1 + number)
            await asyncio.gather(*(one.serves(bad) for one in beds))
            await asyncio.gather(*(each.reach(len(each.answers) + 16) for each in loads))
            asked = time.monotonic()
            await asyncio.to_thread(call, beds[0].server.port, "/v1/versions/rollback", {"reason": "it"}, headers)
            await asyncio.gather(*(one.serves(good) for one in beds))
            served_s.append(time.monotonic() - asked)
            await asyncio.gather(*(each.reach(len(each.answers) + 16) for each in loads))
            last_token_s.append(max(0.0, max(last_token(each.answers, bad) for each in loads) - asked))
    found = faults([answer for each in loads for answer in each.answers])
    return {
        "rollbacks": count,
        **found,
        **{f"served_{name}": value for name, value in spread(served_s).items()},
        **{f"last_bad_token_{name}": value for name, value in spread(last_token_s).items()},
        "ok": found["failed"] == found["cut_short"] == 0 and max(last_token_s) <= THREE_S,
    }


@asynccontextmanager
async def _stand_in(folder: Path, number: int, registry: Registry) -> AsyncIterator[Bed]:
    """A chat service before a stand-in for an engine, on the versions below `folder`."""
    own = folder / f"pod-{number}"
    write_tiny_model(own / "base", weights_seed=0)
    state = StateDir(own / "state")
    state.close_to_others()
    state.versions.symlink_to(folder / "versions")
    socket = own / "engine.sock"
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "tests.support.engine_process", str(socket))
    try:
        await eventually(socket.exists)
        engine = {"mode": "external", "url": f"unix:{socket}", "model": str(own / "base"), "tuning": "full"}
        chat = ChatFolder(own, engine)
        with chat.serve(None) as server:
            await asyncio.to_thread(until_ready, server, "/readyz", {})
            yield Bed(state, server, chat, registry, [])
    finally:
        process.kill()
        await process.wait()


def last_token(answers: Sequence[Answer], version: str) -> float:
    """The moment at which the last token arrived that the version wrote."""
    latest = 0.0
    for answer in answers:
        ends = [span["first_token"] for span in answer.spans[1:]] + [answer.tokens]
        for span, end in zip(answer.spans, ends, strict=True):
            if span["policy_version"] == version and answer.at:
                # The first event is the role, each of the following has a token, or several if they came at once.
                piece = bisect_left(answer.come, end + 1)
                latest = max(latest, answer.at[min(piece, len(answer.at) - 1)])
    return latest


async def lora(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    still: list[list[float]] = []
    swapped: list[list[float]] = []
    count = 0
    async with bed(folder, tuning="lora") as one, Load(one.server, one.chat) as streams:
        await streams.reach(4 * AT_ONCE)
        for period in range(2 * max(2, PERIODS * options.first // SWAPS)):
            seen = len(streams.answers)
            for number in range(SWAPS_A_PERIOD):
                if period % 2:
                    count += 1
                    await one.promote(count)
                await streams.reach(seen + (number + 1) * REQUESTS_A_SWAP)
            (swapped if period % 2 else still).append(gaps(streams.answers[seen:]))
        swaps = one.swaps()
    found = faults(streams.answers)
    ratios = [p99(with_swaps) / p99(without) for with_swaps, without in zip(swapped, still, strict=True)]
    ratio = statistics.median(ratios)
    return {
        "swaps": count,
        **found,
        "paused_s": round(sum(swap["pause_s"] for swap in swaps), 4),
        **{f"gap_still_{name}": value for name, value in spread([*chain.from_iterable(still)]).items()},
        **{f"gap_swapping_{name}": value for name, value in spread([*chain.from_iterable(swapped)]).items()},
        "gap_p99_ratio": round(ratio, 3),
        "gap_p99_ratios": f"{min(ratios):.3f}-{max(ratios):.3f}",
        "ok": found["failed"] == found["cut_short"] == 0
        and ratio <= GAP_RATIO
        and all(swap["ok"] and not swap["pause_s"] for swap in swaps),
    }


async def plain(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """`reload_weights` without more, and the product's swap, as often: what answers in flight hold of each."""
    count = max(2, min(6, options.first))
    found: dict[str, Any] = {}
    async with bed(folder, tuning="full") as one:
        client = EngineClient(f"unix:{socket_path(one.state.run)}")

        async def bare(version: str) -> None:
            body = {"method": "reload_weights", "kwargs": {"weights_path": str(one.registry.path(version))}}
            await client.post("/collective_rpc", body, timeout_s=60.0)

        async def ours(version: str) -> None:
            one.registry.promote(version)
            await one.serves(version)

        live = one.versions[0]
        for name, change in (("ours", ours), ("plain", bare)):
            tokens = neither = 0
            for number in range(count):
                new = one.versions[(number + 1) % 2]
                written, wrong = await _watched(client, one.registry, live, new, change)
                tokens, neither, live = tokens + written, neither + wrong, new
            found |= {f"{name}_tokens_in_flight": tokens, f"{name}_tokens_of_neither_version": neither}
            if name == "ours" and live != one.versions[0]:
                await ours(live := one.versions[0])
        await client.close()
    found["ok"] = found["ours_tokens_of_neither_version"] == 0
    return {"swaps": count, **found}


async def _watched(
    client: EngineClient, registry: Registry, old: str, new: str, change: Callable[[str], Awaitable[None]]
) -> tuple[int, int]:
    """Tokens of answers that were in flight while the weights changed, and how many neither version would write."""
    answers: list[tuple[list[int], list[float]]] = [([], []) for _ in range(WATCHED)]
    prompts = [[1, 20 + number, 3] for number in range(WATCHED)]
    running = [asyncio.create_task(_stream(client, *each)) for each in zip(prompts, answers, strict=True)]
    await eventually(lambda: all(len(tokens) > 5 for tokens, _ in answers))
    await change(new)
    await asyncio.gather(*running)
    sequences = [prompt + tokens for prompt, (tokens, _) in zip(prompts, answers, strict=True)]
    by = [await asyncio.to_thread(recompute_all, registry.path(version), sequences) for version in (old, new)]
    neither = 0
    for (_, told), by_old, by_new in zip(answers, *by, strict=True):
        off_old, off_new = (np.abs(np.subtract(told, row[2:])) > EXACT for row in (by_old, by_new))
        neither += int((off_old & off_new).sum())
    return WATCHED * WATCHED_TOKENS, neither


async def _stream(client: EngineClient, prompt: list[int], answer: tuple[list[int], list[float]]) -> None:
    body = {"model": "policy", "prompt": prompt, "stream": True, "max_tokens": WATCHED_TOKENS, "ignore_eos": True}
    body |= {"logprobs": 0, "return_token_ids": True, "temperature": 1.0}
    async with client.session.post(client.base + "/v1/completions", json=body) as response:
        async for event in streamed(cast("aiohttp.ClientResponse", response)):
            choice = event["choices"][0]
            answer[0].extend(choice["token_ids"])
            answer[1].extend(choice["logprobs"]["token_logprobs"])


async def restart(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """What it costs to serve another version by starting the engine again."""
    async with bed(folder, tuning="full") as one, Load(one.server, one.chat) as streams:
        await streams.reach(2 * AT_ONCE)
        seen, began = len(streams.answers), time.monotonic()
        for child in psutil.Process(one.server.process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                os.kill(child.pid, signal.SIGKILL)
        await streams.reach(seen + AT_ONCE)
        await one.serves(one.versions[0])
        away_s = time.monotonic() - began
        await streams.reach(len(streams.answers) + AT_ONCE)
    return {"restarts": 1, **faults(streams.answers[seen:]), "away_s": round(away_s, 1), "ok": True}


async def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {"streams_at_once": AT_ONCE, "tokens_an_answer": TOKENS}
    modes: dict[str, Callable[[argparse.Namespace, Path], Awaitable[dict[str, Any]]]] = {
        "full": full,
        "rollback": rollback,
        "lora": lora,
        "lora_rollback": lambda options, folder: rollback(options, folder, "lora"),
        "three": three,
        "plain": plain,
        "restart": restart,
    }
    for mode in options.only:
        note(mode)
        found[mode] = await modes[mode](options, folder / mode)
    return found | {"ok": all(found[mode]["ok"] for mode in options.only)}


def table(report: dict[str, Any]) -> str:
    lines = []
    for mode, figures in report.items():
        if isinstance(figures, dict):
            lines += ["", mode, *(f"  {name:<36}{value}" for name, value in figures.items() if value != "")]
        else:
            lines.append(f"{mode:<38}{figures}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first", type=int, default=SWAPS, help="how many swaps")
    parser.add_argument("--only", nargs="+", choices=MODES, default=MODES)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-swap-") as folder:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            report = runner.run(measure(options, Path(folder)))
    print(json.dumps(report) if options.json else table(report))
    return 0 if report["ok"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
