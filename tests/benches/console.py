"""How long the console's views take with 100,000 votes and 1,000 versions: `python -m tests.benches.console [--json]`.

Each view looks anew (a service looks at most once a second) and is written as JSON, as its handler does. The versions
lie in a folder, each with a manifest and a probe of some 500 tokens. `start_s`: the first look, which reads them all.
"""

import argparse
import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import orjson
from prometheus_client import CollectorRegistry

from rlhf_online.eventlog.local import LocalLog
from rlhf_online.metrics import ChatMetrics
from rlhf_online.state import StateDir
from rlhf_online.versions import open_registry
from services.chat.console import service
from services.chat.console.alarm import PredictionAlarm
from services.chat.console.gauges import Gauges
from services.chat.console.opinions import Opinions
from services.chat.console.panel import Panel
from services.chat.console.service import Console
from services.chat.console.tally import Tally
from services.chat.learning import Learning
from tests.benches.support.figures import p99, show
from tests.support.full_console import POLICIES, VOTES, fill, publish


class Engine:
    serving, state = "policy-000499", "ready"


async def times_ms(view: Callable[[], Awaitable[Any]], count: int) -> list[float]:
    """Of each call, its JSON included."""
    found = []
    for _ in range(count):
        begin = time.perf_counter()
        orjson.dumps(await view())
        found.append((time.perf_counter() - begin) * 1000)
    return found


async def measure(folder: Path, count: int) -> dict[str, float | int | str]:
    service.LOOK_S = 0.0
    state = StateDir(folder)
    registry, log, tally = open_registry(state.versions), LocalLog(state.log), Tally(state.log)
    fill(tally)
    publish(registry.store)
    opinions = Opinions(state.log)
    metrics = ChatMetrics(CollectorRegistry())
    panel = Panel(registry, Engine(), Learning(registry, state), state, tally, opinions, metrics.votes.to_live)
    console = Console(panel, tally, opinions, PredictionAlarm(metrics.prediction, state), Gauges(metrics))
    begin = time.perf_counter()
    await console.overview()
    figures: dict[str, float | int | str] = {"votes": VOTES, "versions": 2 * POLICIES}
    figures["start_s"] = round(time.perf_counter() - begin, 2)
    views = {"overview": console.overview, "versions": console.versions, "history": lambda: console.history({})}
    for name, view in views.items():
        found = sorted(await times_ms(view, count))
        figures |= {f"{name}_p50_ms": round(found[len(found) // 2], 1), f"{name}_p99_ms": round(p99(found), 1)}
    tally.close()
    log.close()
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100, help="calls of each view")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        show(asyncio.run(measure(Path(folder), options.count)), as_json=options.json)


if __name__ == "__main__":
    main()
