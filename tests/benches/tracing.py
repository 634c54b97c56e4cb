"""What traces and metrics cost the gateway: `make bench BENCH=tracing`.

Four chat services with all that `make bench BENCH=gateway` has on, on one core, asked in turns for whole answers of ten
words by as many clients as it takes: one without either (no receiver of traces, metrics that count nothing, no
scrape); one with metrics alone; one with both as they are by default, a hundredth of the requests traced and a scrape
in each round (some five times as often as is usual), exemplars included; and one that traces every request. The
receiver decodes what it gets, on the clients' core. What counts is user and system time of the service a request, all
its threads included, the median over the rounds of what one takes more than the bare one of the same round.
"""

import argparse
import asyncio
import gc
import os
import random
import statistics
import tempfile
import urllib.request
from contextlib import ExitStack
from pathlib import Path

import orjson
import uvloop

from rlhf_online import process
from rlhf_online.config import ChatTracingSettings
from tests.benches.support import load
from tests.benches.support.load import HttpClient
from tests.benches.support.reports import note
from tests.benches.support.servers import ChatFolder, Server, behind, stand_in, until_ready
from tests.benches.support.stand_in import prompt
from tests.support.otlp import Receiver, receiver

PEOPLE, WORDS, INTERVAL_US = 1000, 10, 5_000
LIMIT = 0.03
SCRAPE_S = 2.0
"""After the beginning of a round."""
SCRAPE = {"accept": "application/openmetrics-text; version=1.0.0"}
CASES = {
    "bare": None,
    "metrics": None,
    "default": ChatTracingSettings().sample,
    "every request": 1.0,
}
"""The share of the requests that is traced."""

Figures = dict[str, float | int | bool]


class Case:
    """A chat service of one of CASES, and what its requests took in each round."""

    def __init__(self, name: str, folder: Path, engine: int, collector: Receiver) -> None:
        folder.mkdir()
        sample = CASES[name]
        tracing = {} if sample is None else {"tracing": {"endpoint": collector.url, "sample": sample}}
        self.name = name
        self.chat = ChatFolder(folder, behind(folder, engine), limits={"max_concurrent": 512}, **tracing)
        self.cpu_us: list[float] = []
        self.per_s: list[float] = []

    @property
    def module(self) -> str:
        return "tests.benches.support.uncounted" if self.name == "bare" else "services.chat"

    async def round(self, server: Server, options: argparse.Namespace) -> None:
        body = orjson.dumps({"messages": [{"role": "user", "content": prompt(WORDS, INTERVAL_US)}]})
        requests = [load.post("/v1/chat/completions", body, self.chat.headers(person)) for person in range(PEOPLE)]
        client = HttpClient(server.port, requests)
        scraping = asyncio.create_task(_scrape(server.port)) if self.name != "bare" else None
        before = server.cpu_s()
        rate, replies = await load.closed_loop(client.ask, at_once=options.at_once, seconds=options.seconds)
        self.cpu_us.append(1e6 * (server.cpu_s() - before) / len(replies))
        self.per_s.append(rate)
        if scraping is not None:
            await scraping
        await client.close()
        load.expect_none(replies)


async def _scrape(port: int) -> None:
    request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers=SCRAPE)
    await asyncio.sleep(SCRAPE_S)
    with await asyncio.to_thread(urllib.request.urlopen, request, None, 10.0) as response:
        await asyncio.to_thread(response.read)


async def measure(options: argparse.Namespace, folder: Path) -> Figures:
    with ExitStack() as stack:
        engine = stack.enter_context(stand_in(options.other_core))
        collector = stack.enter_context(receiver())
        cases = [Case(name, folder / name.replace(" ", "-"), engine, collector) for name in CASES]
        servers = {case.name: stack.enter_context(case.chat.serve(options.core, case.module)) for case in cases}
        for server in servers.values():
            until_ready(server, "/readyz", {})
        for number in range(options.rounds):
            note(f"round {number + 1} of {options.rounds}")
            for case in random.Random(number).sample(cases, len(cases)):
                await case.round(servers[case.name], options)
        bare = cases[0]
        found: Figures = {}
        for case in cases:
            more = [one / other - 1 for one, other in zip(case.cpu_us, bare.cpu_us, strict=True)]
            key = case.name.replace(" ", "_")
            found[f"{key}_cpu_us"] = round(statistics.median(case.cpu_us), 1)
            found[f"{key}_per_s"] = round(statistics.median(case.per_s))
            if case is not bare:
                found[f"{key}_costs"] = round(statistics.median(more), 4)
        found["spans_received"] = len(collector.spans)
        found["ok"] = found["default_costs"] <= LIMIT and found["spans_received"] > 0
        return found


def table(found: Figures) -> str:
    rows = [f"{'':<16}{'CPU µs':>8}{'per s':>8}{'more CPU':>10}"]
    for name in CASES:
        key = name.replace(" ", "_")
        more = f"{100 * found[f'{key}_costs']:+.1f} %" if f"{key}_costs" in found else ""
        rows.append(f"{name:<16}{found[f'{key}_cpu_us']:>8}{found[f'{key}_per_s']:>8}{more:>10}")
    verdict = "met" if found["ok"] else "not met"
    return "\n".join([*rows, f"spans received: {found['spans_received']}", f"default ≤ {100 * LIMIT:g} %: {verdict}"])


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benches.tracing",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=4.0, help="length of one measurement")
    parser.add_argument("--at-once", type=int, default=64, help="requests in progress")
    parser.add_argument("--core", type=int, default=0, help="the core of what is measured")
    parser.add_argument("--other-core", type=int, default=1, help="the core of everything else")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    options = parser.parse_args()
    process.raise_open_files()
    os.sched_setaffinity(0, {options.other_core})
    gc.freeze()
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-tracing-") as folder:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            found = runner.run(measure(options, Path(folder)))
    print(orjson.dumps(found).decode() if options.json else table(found))
    return 0 if found["ok"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
