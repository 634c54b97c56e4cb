"""How long the console's views take in Chromium with 100,000 votes and 1,000 versions:
`python -m tests.benches.console_page [--json]`.

From the click on a view's name to the frame in which it is painted, as the page itself measures it, all versions in
the charts; and from the page's address to its first view, with everything that it fetches.
"""

import argparse
import asyncio
import statistics
import tempfile
from pathlib import Path

from playwright.async_api import Page, expect

from rlhf_online.eventlog.local import LocalLog
from rlhf_online.state import StateDir
from rlhf_online.versions import open_registry
from services.chat.console.tally import Tally
from tests.benches.support.figures import show
from tests.support.chat_service import running
from tests.support.chromium import chromium
from tests.support.full_console import POLICIES, VOTES, fill, publish

VIEWS = ("live", "versions", "compare")
MEASURED = """name => new Promise((resolve) => {
  const look = () => {
    const [found] = performance.getEntriesByName(name);
    found ? resolve(found.duration) : requestAnimationFrame(look);
  };
  look();
})"""
LAST = f"policy-{POLICIES - 1:06d}"


async def painted_ms(page: Page, view: str) -> float:
    """Open a view, and wait until it is painted."""
    await page.evaluate("performance.clearMeasures()")
    await page.locator(f"#views a[href='#{view}']").click()
    return await page.evaluate(MEASURED, f"view:{view}")


async def measure(folder: Path, count: int) -> dict[str, float | int | str]:
    state = StateDir(folder / "state")
    state.root.mkdir()
    publish(open_registry(state.versions).store)
    with LocalLog(state.log) as log:
        tally = Tally(state.log)
        fill(tally)
        tally.close()
        async with running(folder, log=log) as service, chromium() as browser:
            page = await browser.new_page(viewport={"width": 1280, "height": 900})
            await page.goto(f"{service.url}/docs")
            await page.evaluate("key => sessionStorage.setItem('rlhf:key', key)", state.operator_token())
            await page.goto(f"{service.url}/console")
            await expect(page.locator(".card").first).to_contain_text(LAST, timeout=60_000)
            first_ms = await page.evaluate("performance.getEntriesByType('measure').at(-1).startTime")
            await painted_ms(page, "versions")
            await page.get_by_role("combobox", name="Versions in the charts").select_option("all")
            found = {view: [] for view in VIEWS}
            for _ in range(count):
                for view in VIEWS:
                    found[view].append(await painted_ms(page, view))
    figures: dict[str, float | int | str] = {"votes": VOTES, "versions": 2 * POLICIES, "first_view_ms": round(first_ms)}
    for view, times in found.items():
        figures |= {f"{view}_p50_ms": round(statistics.median(times)), f"{view}_max_ms": round(max(times))}
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20, help="times that each view is opened")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        show(asyncio.run(measure(Path(folder), options.count)), as_json=options.json)


if __name__ == "__main__":
    main()
