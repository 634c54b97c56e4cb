"""What a Kafka that is away costs those who chat: `python -m tests.benches.away [--rounds 6] [--seconds 10] [--json]`.

The chat service in a process of its own, an engine's stand-in beside it; a real broker behind a proxy, a process too,
that is healthy, holds every reply back for two seconds, or is cut. Each round measures the three in another
order, the healthy one once the spool is empty. Requests come at a steady rate, each an answer of 10 tokens that is
logged before it is sent; the latency is that of the whole reply. p50 and p99 are medians over the rounds, differences
and ratios those of one round's; `healthy_p99_spread_ms`, the range of the healthy rounds, is what cannot be told apart.
"""

import argparse
import asyncio
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import aiohttp
import orjson

from tests.benches.support.figures import p99, show
from tests.benches.support.servers import ChatFolder, behind, stand_in, until_ready
from tests.benches.support.stand_in import prompt
from tests.support.kafka_broker import Broker
from tests.support.proxy import Proxy

CONDITIONS = ("healthy", "far", "cut")
FAR_S = 2.0
SETTLE_S = 3.0
TOKENS = 10

Figures = dict[str, list[list[float]]]


def proxy_child(pipe: Connection) -> None:
    """Tell the port, learn the target's, then take conditions until None."""
    with Proxy() as proxy:
        pipe.send(proxy.port)
        proxy.target = pipe.recv()
        while (condition := pipe.recv()) is not None:
            proxy.delay_s = FAR_S if condition == "far" else 0.0
            proxy.cut = condition == "cut"


@contextmanager
def far_broker(folder: Path) -> Iterator[tuple[int, Connection]]:
    """The port of a broker behind a proxy, and the pipe that takes the proxy's condition."""
    pipe, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=proxy_child, args=(theirs,))
    process.start()
    port = pipe.recv()
    broker = Broker(folder, advertised=port)
    pipe.send(broker.port)
    try:
        broker.start()
        yield port, pipe
    finally:
        broker.stop()
        pipe.send(None)
        process.join()


class Load:
    """Requests at a steady rate to a chat service on `port`; `headers` say who asks."""

    def __init__(self, session: aiohttp.ClientSession, port: int, headers: dict[str, str], rate: float) -> None:
        self._session = session
        self._url = f"http://127.0.0.1:{port}"
        self._headers = headers
        self.rate = rate

    async def run(self, seconds: float) -> list[float]:
        """Each reply's latency, in seconds, from the moment that it was due."""
        begin = time.perf_counter()
        count = round(seconds * self.rate)
        return list(await asyncio.gather(*(self._ask(begin + number / self.rate) for number in range(count))))

    async def backlog(self) -> int:
        """Events that Kafka has not confirmed."""
        async with self._session.get(self._url + "/metrics") as response:
            lines = (await response.text()).splitlines()
        return round(next(float(line.split()[1]) for line in lines if line.startswith("rlhf_log_backlog_records ")))

    async def _ask(self, due: float) -> float:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        body = orjson.dumps({"messages": [{"role": "user", "content": prompt(TOKENS, 0)}]})
        url = self._url + "/v1/chat/completions"
        async with self._session.post(url, data=body, headers=self._headers) as response:
            reply = orjson.loads(await response.read())
        assert response.status == 200 and reply["rlhf"]["logged"]
        return time.perf_counter() - due


async def rounds(load: Load, line: Connection, count: int, seconds: float) -> Figures:
    """Latencies by condition and round."""
    found: Figures = {condition: [] for condition in CONDITIONS}
    await load.run(SETTLE_S)
    for number in range(count):
        turn = number % len(CONDITIONS)
        for condition in (*CONDITIONS[turn:], *CONDITIONS[:turn]):
            line.send(condition)
            await load.run(SETTLE_S)
            while condition == "healthy" and await load.backlog() > load.rate:
                await load.run(1.0)
            found[condition].append(await load.run(seconds))
            if condition != "healthy":
                assert await load.backlog() > 0, f"Kafka was to be {condition}, but nothing waits for it"
    return found


def summary(found: Figures) -> dict[str, float | int | str]:
    ms = {name: [1000 * p99(each) for each in found[name]] for name in CONDITIONS}
    values: dict[str, float | int | str] = {"replies_a_condition": sum(map(len, found["healthy"]))}
    for name in CONDITIONS:
        values[f"{name}_p50_ms"] = round(1000 * statistics.median(map(statistics.median, found[name])), 3)
        values[f"{name}_p99_ms"] = round(statistics.median(ms[name]), 3)
    for name in CONDITIONS[1:]:
        pairs = list(zip(ms[name], ms["healthy"], strict=True))
        values[f"{name}_p99_more_ms"] = round(statistics.median(a - b for a, b in pairs), 3)
        values[f"{name}_p99_ratio"] = round(statistics.median(a / b for a, b in pairs), 3)
    values["healthy_p99_spread_ms"] = f"{min(ms['healthy']):.2f}-{max(ms['healthy']):.2f}"
    return values


async def measure(options: argparse.Namespace, folder: Path) -> dict[str, float | int | str]:
    with far_broker(folder / "kafka") as (kafka, line), stand_in(None) as engine:
        limits = {"person": {"requests_per_minute": 0, "concurrent": 0}}
        log = {"url": f"kafka://127.0.0.1:{kafka}"}
        chat = ChatFolder(folder, behind(folder, engine), limits=limits, log=log)
        with chat.serve(None) as server:
            until_ready(server, "/readyz", {})
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
                load = Load(session, server.port, chat.headers(0), options.rate)
                found = await rounds(load, line, options.rounds, options.seconds)
    return summary(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=10.0, help="length of one measurement")
    parser.add_argument("--rate", type=float, default=100.0, help="requests a second")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-away-") as folder:
        show(asyncio.run(measure(options, Path(folder))), as_json=options.json)


if __name__ == "__main__":
    main()
