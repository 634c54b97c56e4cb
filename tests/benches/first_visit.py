"""How soon somebody who has never been here has chatted and voted, in an empty browser.

`make bench BENCH=first_visit`: from the address to the word that the vote counts, the person's own time left out. The
engine is a stand-in that writes at once: what a model takes for its answer comes on top. Needs Chromium (`make page`).
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from pathlib import Path

from tests.benches.support.figures import show
from tests.support.chat_service import running
from tests.support.chromium import chromium
from tests.support.first_visit import chat_and_vote


async def measure(visits: int) -> dict[str, float]:
    """Seconds of `visits` visits, each of an empty browser profile; the first is also the browser's first page."""
    seconds: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        async with chromium() as browser, running(Path(folder)) as service:
            for _ in range(visits):
                context = await browser.new_context(locale="en-GB")
                page = await context.new_page()
                began_s = time.monotonic()
                await chat_and_vote(page, service.url)
                seconds.append(time.monotonic() - began_s)
                await context.close()
            assert len(service.sink.feedback) == visits
    return {
        "visits": visits,
        "first visit, s": round(seconds[0], 2),
        "visit p50, s": round(statistics.median(seconds), 2),
        "visit max, s": round(max(seconds), 2),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--visits", type=int, default=20, help="how many")
    parser.add_argument("--json", action="store_true", help="one object")
    options = parser.parse_args()
    show(asyncio.run(measure(options.visits)), as_json=options.json)
