"""What traces and metrics cost the gateway: `make bench BENCH=tracing`.

Five chat services with all that `make bench BENCH=gateway` has on, on one core, asked for whole answers of ten words by
as many clients as it takes, in turns of less than a second, each round in another order, so that what else the machine
does meets all alike: one without traces and metrics (no receiver, metrics that count nothing, no scrape), and once more
the same, which tells noise from cost; one with metrics alone; one with both as they are by default, a hundredth of the
requests traced, a scrape as often as Prometheus asks for one, exemplars included; and one that traces every request.
The receiver decodes what it gets, on the clients' core.

What counts is user and system time of the service, all its threads included: that of all turns by the requests of all
turns, against the first of the bare ones, with the 95 % interval of a bootstrap over the rounds. The verdict is that of
`default`, and none at all (not met) while the second bare service differs from the first by more than NOISE.
"""

import argparse
import asyncio
import gc
import os
import random
import tempfile
import time
import urllib.request
from collections.abc import Sequence
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
LIMIT, NOISE = 0.03, 0.01
WARM_UP_TURNS = 2
SCRAPE_S = 15.0
"""Of turns of one service, between two scrapes."""
RESAMPLES = 2000
SCRAPE = {"accept": "application/openmetrics-text; version=1.0.0"}
CASES = {
    "bare": None,
    "bare again": None,
    "metrics": None,
    "default": ChatTracingSettings().sample,
    "every request": 1.0,
}
"""The share of the requests that is traced."""

Figures = dict[str, float | int | bool]


class Case:
    """A chat service of one of CASES, and what each of its turns took: CPU seconds, and requests."""

    def __init__(self, name: str, folder: Path, engine: int, collector: Receiver) -> None:
        folder.mkdir()
        sample = CASES[name]
        tracing = {} if sample is None else {"tracing": {"endpoint": collector.url, "sample": sample}}
        self.key = name.replace(" ", "_")
        self.bare = name.startswith("bare")
        self.chat = ChatFolder(folder, behind(folder, engine), limits={"max_concurrent": 512}, **tracing)
        self.turns: list[tuple[float, int]] = []
        self.seconds = 0.0
        self._client: HttpClient | None = None
        self._scraped_s = 0.0

    @property
    def module(self) -> str:
        return "tests.benches.support.uncounted" if self.bare else "services.chat"

    async def turn(self, server: Server, options: argparse.Namespace) -> None:
        if self._client is None:
            body = orjson.dumps({"messages": [{"role": "user", "content": prompt(WORDS, INTERVAL_US)}]})
            requests = [load.post("/v1/chat/completions", body, self.chat.headers(person)) for person in range(PEOPLE)]
            self._client = HttpClient(server.port, requests)
        due = not self.bare and self.seconds - self._scraped_s >= SCRAPE_S
        before, begun = server.cpu_s(), time.monotonic()
        scraping = asyncio.create_task(asyncio.to_thread(_scrape, server.port)) if due else None
        _, replies = await load.closed_loop(
            self._client.ask, at_once=options.at_once, seconds=options.seconds, warm_up_s=0.0
        )
        if scraping is not None:
            await scraping
            self._scraped_s = self.seconds
        self.turns.append((server.cpu_s() - before, len(replies)))
        self.seconds += time.monotonic() - begun
        load.expect_none(replies)

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()

    def cpu_us(self, rounds: Sequence[int]) -> float:
        """A request, over these rounds."""
        return 1e6 * sum(self.turns[each][0] for each in rounds) / sum(self.turns[each][1] for each in rounds)


def _scrape(port: int) -> None:
    request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers=SCRAPE)
    with urllib.request.urlopen(request, None, 10.0) as response:
        response.read()


async def measure(options: argparse.Namespace, folder: Path) -> Figures:
    with ExitStack() as stack:
        engine = stack.enter_context(stand_in(options.other_core))
        collector = stack.enter_context(receiver())
        cases = [Case(name, folder / name.replace(" ", "-"), engine, collector) for name in CASES]
        servers = {case.key: stack.enter_context(case.chat.serve(options.core, case.module)) for case in cases}
        for server in servers.values():
            until_ready(server, "/readyz", {})
        for number in range(options.rounds + WARM_UP_TURNS):
            if number % 10 == 0:
                note(f"round {number} of {options.rounds + WARM_UP_TURNS}")
            for case in random.Random(f"{options.seed} {number}").sample(cases, len(cases)):
                await case.turn(servers[case.key], options)
        for case in cases:
            await case.close()
        found = compared(cases, options.seed)
        found["spans_received"] = len(collector.spans)
        found["noise"] = abs(found["bare_again_costs"])
        found["ok"] = found["default_costs"] <= LIMIT and found["noise"] <= NOISE and found["spans_received"] > 0
        return found


def compared(cases: Sequence[Case], seed: int) -> Figures:
    """Each against the first: CPU of a request, how much more that is, and between what."""
    rounds, draw = range(WARM_UP_TURNS, len(cases[0].turns)), random.Random(seed)
    again = [draw.choices(rounds, k=len(rounds)) for _ in range(RESAMPLES)]
    found: Figures = {}
    for case in cases:
        requests, seconds = sum(count for _, count in case.turns), case.seconds
        found |= {f"{case.key}_cpu_us": round(case.cpu_us(rounds), 1), f"{case.key}_per_s": round(requests / seconds)}
        if case is not cases[0]:
            more = sorted(case.cpu_us(drawn) / cases[0].cpu_us(drawn) - 1 for drawn in again)
            found[f"{case.key}_costs"] = round(case.cpu_us(rounds) / cases[0].cpu_us(rounds) - 1, 4)
            found[f"{case.key}_low"], found[f"{case.key}_high"] = (round(more[at], 4) for at in (50, -51))
    return found


def table(found: Figures) -> str:
    rows = [f"{'':<16}{'CPU µs':>8}{'per s':>8}{'more CPU':>10}   95 %"]
    for name in CASES:
        key = name.replace(" ", "_")
        more = ""
        if f"{key}_costs" in found:
            costs, low, high = (100 * found[f"{key}_{which}"] for which in ("costs", "low", "high"))
            more = f"{costs:+8.1f} %   {low:+.1f} to {high:+.1f} %"
        rows.append(f"{name:<16}{found[f'{key}_cpu_us']:>8}{found[f'{key}_per_s']:>8}{more}")
    verdict = "met" if found["ok"] else "not met"
    told = f"default ≤ {100 * LIMIT:g} %, and the bare ones within {100 * NOISE:g} % of one another: {verdict}"
    return "\n".join([*rows, f"spans received: {found['spans_received']}", told])


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benches.tracing",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=80, help="turns of each service")
    parser.add_argument("--seconds", type=float, default=0.75, help="length of a turn")
    parser.add_argument("--seed", type=int, default=0, help="of the order in a round, and of the bootstrap")
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
