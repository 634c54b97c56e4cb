"""The product's alert rules in a real Prometheus, so quick that a test can wait for them.

`quick` writes a copy of each rule file in which every duration is SHARE times as long: the windows of ranges, `for`,
and what a metric of seconds is compared with. Nothing else differs, so what fires here is the rule that operators run.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from tests.support.prometheus import Prometheus, Target
from tests.support.waiting import eventually

RULES = Path(__file__).resolve().parents[2] / "helm" / "rlhf-online" / "files" / "alerts"
SHARE = 1 / 300
"""Five minutes are a second."""
SCRAPE_S = 0.25
LEAST_WINDOW_S = 3.0
"""A range of fewer scrapes could miss some, on a busy machine."""
SECONDS = {"m": 60, "h": 3600, "d": 86400}
FIRES_S = 240.0
"""A busy machine learns slowly."""


def quick(folder: Path, share: float = SHARE) -> list[Path]:
    """The rule files, made quick."""
    folder.mkdir(parents=True, exist_ok=True)
    made = [folder / path.name for path in sorted(RULES.glob("*.yaml"))]
    for path in made:
        path.write_text(quicker((RULES / path.name).read_text(), share))
    return made


def quicker(rules: str, share: float) -> str:
    """The content of a rule file, made quick."""

    def short(least_s: float, found: re.Match[str]) -> str:
        return f"{round(1000 * max(least_s, int(found[1]) * SECONDS[found[2]] * share))}ms"

    rules = re.sub(r"(?<=\[)(\d+)([mhd])(?=\])", partial(short, LEAST_WINDOW_S), rules)
    rules = re.sub(r"(?<=\bfor: )(\d+)([mhd])\b", partial(short, SCRAPE_S), rules)
    return re.sub(r"(?<=_seconds > )(\d+)\b", lambda found: f"{int(found[1]) * share:g}", rules)


class Alerts:
    """What fires in a running Prometheus."""

    def __init__(self, prometheus: Prometheus) -> None:
        self.prometheus = prometheus

    async def firing(self) -> list[dict[str, str]]:
        """The labels of each alert that fires now."""
        found = await asyncio.to_thread(self.prometheus.ask, "alerts", {})
        return [alert["labels"] for alert in found["alerts"] if alert["state"] == "firing"]

    async def fires(self, alert: str, **labels: str) -> None:
        """Wait until it does, with these labels."""
        await eventually(lambda: self._found(alert, labels), FIRES_S, f"{alert} {labels} to fire")

    async def ends(self, alert: str) -> None:
        """Wait until it does not fire any more."""

        async def gone() -> bool:
            return not await self._found(alert, {})

        await eventually(gone, 2 * FIRES_S, f"{alert} to end")

    async def scraped(self, jobs: int) -> None:
        """Wait until so many targets have been scraped, by when no alert may fire."""

        async def all_up() -> bool:
            return len(await asyncio.to_thread(self.prometheus.instant, "up == 1")) == jobs

        await eventually(all_up, FIRES_S, "the targets to be scraped")
        assert await self.firing() == []

    async def _found(self, alert: str, labels: dict[str, str]) -> bool:
        wanted = {"alertname": alert, **labels}
        return any(wanted.items() <= found.items() for found in await self.firing())


@asynccontextmanager
async def alerts(folder: Path, targets: Sequence[Target], share: float = SHARE) -> AsyncIterator[Alerts]:
    """A Prometheus with the quick rules that has scraped these targets, and in which nothing fires yet."""
    rules = quick(folder / "rules", share)
    every_s = max(SCRAPE_S, 60 * share)  # one scrape that takes longer would end what is pending
    made = await asyncio.to_thread(Prometheus, folder / "prometheus", targets, every_s=every_s, rules=rules)
    try:
        found = Alerts(made)
        await found.scraped(len(targets))
        yield found
    finally:
        await asyncio.to_thread(made.stop)
