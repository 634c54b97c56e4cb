"""What traces and metrics cost the gateway: `make bench BENCH=tracing`.

A chat service with all that `make bench BENCH=gateway` has on, on one core, is asked for whole answers of ten words by
as many clients as it takes, in turns of less than a second, before each of which it is switched to one of CASES
(`support.switched`), each round in another order: without traces and metrics (nothing is traced, metrics count nothing,
no scrape), and once more the same, which tells noise from cost; with metrics alone; with both as they are by default, a
hundredth of the requests traced, a scrape as often as Prometheus asks for one, exemplars included; and with every
request traced. The receiver decodes what it gets, on the clients' core. All cases are one process, for two processes of
the same service differ by up to 6 %; and there are several of it, one after another.

What counts is user and system time of the service, all its threads included: that of a case's turns by their requests,
against the bare ones of the same process, with the 95 % interval of a bootstrap over the rounds. The verdict is that of
`default`, and none at all (not met) while the second bare one differs from the first by more than NOISE.
"""

import argparse
import asyncio
import gc
import os
import random
import signal
import statistics
import tempfile
import urllib.request
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import orjson
import uvloop

from rlhf_online import process
from tests.benches.support import load
from tests.benches.support.load import HttpClient
from tests.benches.support.reports import note
from tests.benches.support.servers import ChatFolder, Server, behind, stand_in, until_ready
from tests.benches.support.stand_in import prompt
from tests.benches.support.switched import CASES
from tests.support.otlp import receiver

PEOPLE, WORDS, INTERVAL_US = 1000, 10, 5_000
LIMIT, NOISE = 0.03, 0.01
WARM_UP_TURNS = 2
SWITCHED_S = 0.1
"""Of a turn, before what counts: Python finds again what it may skip."""
SCRAPE_S = 15.0
"""Of turns of one case, between two scrapes."""
RESAMPLES = 2000
SCRAPE = {"accept": "application/openmetrics-text; version=1.0.0"}
BARE, AGAIN = "bare", "bare again"

Figures = dict[str, float | int | bool]
Turn = tuple[float, int]
"""CPU seconds, and requests."""
Round = dict[str, Turn]


class Service:
    """A chat service that is switched, and asked."""

    def __init__(self, server: Server, chat: ChatFolder, options: argparse.Namespace) -> None:
        body = orjson.dumps({"messages": [{"role": "user", "content": prompt(WORDS, INTERVAL_US)}]})
        requests = [load.post("/v1/chat/completions", body, chat.headers(person)) for person in range(PEOPLE)]
        self._server, self._options = server, options
        self._client = HttpClient(server.port, requests)
        self._unscraped_s = dict.fromkeys(CASES, 0.0)

    async def round(self, order: random.Random) -> Round:
        return {case: await self._turn(case) for case in order.sample(list(CASES), len(CASES))}

    async def _turn(self, case: str) -> Turn:
        server, seconds = self._server, self._options.seconds
        server.process.send_signal(signal.SIGRTMIN + list(CASES).index(case))
        await self._ask(SWITCHED_S)
        before = server.cpu_s()
        self._unscraped_s[case] += seconds
        due = CASES[case] is not None and self._unscraped_s[case] >= SCRAPE_S
        scraping = asyncio.create_task(asyncio.to_thread(_scrape, server.port)) if due else None
        answered = await self._ask(seconds)
        if scraping is not None:
            await scraping
            self._unscraped_s[case] = 0.0
        return server.cpu_s() - before, answered

    async def _ask(self, seconds: float) -> int:
        at_once = self._options.at_once
        _, replies = await load.closed_loop(self._client.ask, at_once=at_once, seconds=seconds, warm_up_s=0.0)
        load.expect_none(replies)
        return len(replies)

    async def close(self) -> None:
        await self._client.close()


def _scrape(port: int) -> None:
    request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers=SCRAPE)
    with urllib.request.urlopen(request, None, 10.0) as response:
        response.read()


async def measure(options: argparse.Namespace, folder: Path) -> Figures:
    with ExitStack() as stack:
        engine = stack.enter_context(stand_in(options.other_core))
        collector = stack.enter_context(receiver())
        processes = [
            await rounds_of(number, options, folder / str(number), engine, collector.url)
            for number in range(options.processes)
        ]
        found = compared(processes, options.seed)
        found["spans_received"] = len(collector.spans)
    found["noise"] = abs(found["bare_again_costs"])
    found["ok"] = found["default_costs"] <= LIMIT and found["noise"] <= NOISE and found["spans_received"] > 0
    return found


async def rounds_of(number: int, options: argparse.Namespace, folder: Path, engine: int, collector: str) -> list[Round]:
    """Of one process, those of the warm-up left out."""
    order = random.Random(f"{options.seed} {number}")
    settings = {"limits": {"max_concurrent": 512}, "tracing": {"endpoint": collector}}
    await asyncio.to_thread(folder.mkdir)
    chat = ChatFolder(folder, behind(folder, engine), **settings)
    with chat.serve(options.core, "tests.benches.support.switched") as server:
        until_ready(server, "/readyz", {})
        service = Service(server, chat, options)
        try:
            note(f"process {number + 1} of {options.processes}")
            return [await service.round(order) for _ in range(options.rounds + WARM_UP_TURNS)][WARM_UP_TURNS:]
        finally:
            await service.close()


def compared(processes: Sequence[Sequence[Round]], seed: int) -> Figures:
    """Each case against the bare one: CPU of a request, how much more that is, and between what."""
    draw = random.Random(seed)
    again = [[draw.choices(rounds, k=len(rounds)) for rounds in processes] for _ in range(RESAMPLES)]
    found: Figures = {}
    for case in CASES:
        key = case.replace(" ", "_")
        found[f"{key}_cpu_us"] = round(statistics.fmean(cpu_us(case, rounds) for rounds in processes), 1)
        if case != BARE:
            more = sorted(costs(case, drawn) for drawn in again)
            found[f"{key}_costs"] = round(costs(case, processes), 4)
            found[f"{key}_low"], found[f"{key}_high"] = (round(more[at], 4) for at in (50, -51))
    return found


def costs(case: str, processes: Sequence[Sequence[Round]]) -> float:
    """How much more than the bare one, as a share of that; the mean over the processes. The bare ones are two, but for
    the second of them."""
    bare = (BARE,) if case == AGAIN else (BARE, AGAIN)
    return statistics.fmean(
        cpu_us(case, rounds) / statistics.fmean(cpu_us(name, rounds) for name in bare) - 1 for rounds in processes
    )


def cpu_us(case: str, rounds: Sequence[Round]) -> float:
    """A request, over these rounds of a process."""
    return 1e6 * sum(each[case][0] for each in rounds) / sum(each[case][1] for each in rounds)


def table(found: Figures) -> str:
    rows = [f"{'':<16}{'CPU µs':>8}{'more CPU':>10}   95 %"]
    for name in CASES:
        key = name.replace(" ", "_")
        more = ""
        if f"{key}_costs" in found:
            costs, low, high = (100 * found[f"{key}_{which}"] for which in ("costs", "low", "high"))
            more = f"{costs:+8.1f} %   {low:+.1f} to {high:+.1f} %"
        rows.append(f"{name:<16}{found[f'{key}_cpu_us']:>8}{more}")
    verdict = "met" if found["ok"] else "not met"
    told = f"default ≤ {100 * LIMIT:g} %, and the bare ones within {100 * NOISE:g} % of one another: {verdict}"
    return "\n".join([*rows, f"spans received: {found['spans_received']}", told])


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benches.tracing",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=25, help="turns of each case in a process")
    parser.add_argument("--processes", type=int, default=3, help="chat services, one after another")
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
