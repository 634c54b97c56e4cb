"""Open WebUI in front of the service, driven by a real browser: what a person sees there, and what the service gets.

    make bench BENCH=open_webui [ARGS="--json"]

Fetches Open WebUI from PyPI into build/open-webui (some 6 GB: it depends on torch) and starts it against the real chat
service with a fake engine: as it comes, and as docs/operate.md advises. Prints a row for each thing that a person does;
screenshots go to build/open-webui/shots. Needs Chromium (`make page` installs Debian's). Exit code 1 if a thing that is
expected to work does not.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from playwright.async_api import Browser, Locator, Page

from rlhf_online.wire import peek
from tests.support.chat_service import Service, running
from tests.support.chromium import chromium, saying
from tests.support.ports import reserve
from tests.support.waiting import eventually

VERSION = "0.12.4"
FOLDER = Path(__file__).resolve().parents[2] / "build" / "open-webui"
ANSWER = ("Zinc", " is", " a", " metal", ".")
START_S, STEP_MS, QUIET_S = 600.0, 30_000, 4.0
"""Until it serves (its first start makes a database), a step in the browser, and what it asks for by itself."""
SETTINGS = {
    "WEBUI_AUTH": "False",
    "WEBUI_SECRET_KEY": "of a bench, on loopback, for minutes",
    "ENABLE_OLLAMA_API": "False",
    "OFFLINE_MODE": "True",
    "HF_HUB_OFFLINE": "1",
    "RAG_EMBEDDING_ENGINE": "openai",
    "OPENAI_API_KEYS": "none",
}
ADVISED = {
    "DEFAULT_MODEL_PARAMS": json.dumps({"function_calling": "legacy"}),
    "ENABLE_TITLE_GENERATION": "False",
    "ENABLE_FOLLOW_UP_GENERATION": "False",
    "ENABLE_TAGS_GENERATION": "False",
}
Row = dict[str, Any]


def install() -> Path:
    """The command `open-webui` of VERSION."""
    python = FOLDER / "venv" / "bin" / "python"
    if not python.exists():
        uv = str(Path(sys.executable).with_name("uv"))
        subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(FOLDER / "venv")], check=True)
        subprocess.run([uv, "pip", "install", "--python", str(python), f"open-webui=={VERSION}"], check=True)
    return python.with_name("open-webui")


@asynccontextmanager
async def open_webui(service: Service, folder: Path, settings: dict[str, str]) -> AsyncIterator[str]:
    """Its address, once it serves. `service` is where its models are."""
    port = reserve()
    command = [str(install()), "serve", "--host", "127.0.0.1", "--port", str(port)]
    place = {"DATA_DIR": str(folder / "data"), "OPENAI_API_BASE_URLS": f"{service.url}/v1"}
    (folder / "data").mkdir(parents=True)
    with (folder / "output").open("wb") as output:
        environment = {**os.environ, **SETTINGS, **place, **settings}
        process = await asyncio.create_subprocess_exec(
            *command, env=environment, cwd=folder, stdout=output, stderr=output
        )
    try:
        url, until = f"http://127.0.0.1:{port}", time.monotonic() + START_S
        async with httpx.AsyncClient(trust_env=False) as client:
            while True:
                try:
                    if (await client.get(f"{url}/health")).is_success:
                        break
                except httpx.TransportError:
                    pass
                if process.returncode is not None or time.monotonic() > until:
                    raise SystemExit(f"Open WebUI did not start:\n{(folder / 'output').read_text()[-2000:]}")
                await asyncio.sleep(0.5)
        yield url
    finally:
        process.terminate()
        await process.wait()


class Person:
    """Somebody at Open WebUI. `rows` say what was done, whether it worked, and what the service was asked meanwhile."""

    def __init__(self, page: Page, service: Service, settings: str) -> None:
        self.page = page
        self.service = service
        self.settings = settings
        self.rows: list[Row] = []

    async def step(self, what: str, act: Callable[[], Awaitable[str]]) -> None:
        """Do it; what it returns, or the error, stands in the table."""
        asked, logged = len(self.service.engine.requests), len(self.service.sink.records)
        try:
            works, seen = True, await act()
        except Exception as error:  # whatever the browser says: a row of the table
            works, seen = False, str(error).splitlines()[0]
        await asyncio.sleep(QUIET_S)
        name = f"{self.settings} {what}".replace(" ", "-").replace(",", "")
        await self.page.screenshot(path=FOLDER / "shots" / f"{name}.png")
        requests = self.service.engine.requests[asked:]
        tasks = sum("### Task:" in str(request["messages"][-1]["content"]) for request in requests)
        kinds = [peek(record).kind.__name__ for record in self.service.sink.records[logged:]]
        row: Row = {"settings": self.settings, "what": what, "works": works, "seen": seen}
        row |= {"asked": len(requests), "of_its_own": tasks, "with_tools": sum("tools" in r for r in requests)}
        self.rows.append(row | {"logged": {kind: kinds.count(kind) for kind in sorted(set(kinds))}})

    async def say(self, text: str) -> None:
        await self.page.locator("#chat-input").click()
        await self.page.keyboard.type(text)
        await self.page.keyboard.press("Enter")

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True).last

    async def ask(self) -> str:
        await self.say("is zinc a metal?")
        return await self.answered()

    async def answered(self) -> str:
        shown = self.page.get_by_text("".join(ANSWER)).last
        await shown.wait_for()
        await self.button("Good Response").wait_for()
        return await shown.inner_text()

    async def refused(self) -> str:
        """Asks, and is shown the service's own sentence."""
        await self.say("is zinc a metal?")
        shown = self.page.get_by_text("tool_call_parser").first
        await shown.wait_for()
        return await shown.inner_text()

    async def stop(self) -> str:
        """In the middle of an answer, which the engine is then told."""
        engine = self.service.engine
        engine.aborted.clear()
        await engine.hold()
        try:
            await self.say("and iron?")
            await engine.allow(2)
            await self.page.get_by_text("".join(ANSWER[:2])).last.wait_for()
            await self.page.locator("button:has(svg rect), button[aria-label*='top' i]").last.click()
            await eventually(engine.aborted.is_set)
        finally:
            await engine.release()
        return "the engine stopped"

    async def regenerate(self) -> str:
        before = len(self.service.engine.requests)
        await self.button("Regenerate").click()
        again = self.page.get_by_text("Try Again")
        if await again.count():
            await again.first.click()
        await eventually(lambda: len(self.service.engine.requests) > before)
        return await self.answered()

    async def rate(self) -> str:
        await self.button("Good Response").click()
        await self.page.get_by_role("button", name="Rate 9 out of 10").last.click()
        await self.page.get_by_role("button", name="Save", exact=True).last.click()
        return "kept by Open WebUI"


Visit = tuple[str, dict[str, str], dict[str, Any], tuple[tuple[str, Callable[[Person], Awaitable[str]]], ...]]
VISITS: tuple[Visit, ...] = (
    ("as it comes", {}, {}, (("asks, no tool_call_parser set", Person.refused),)),
    ("as it comes", {}, {"tool_call_parser": "hermes"}, (("asks, with a tool_call_parser", Person.ask),)),
    (
        "as advised",
        ADVISED,
        {},
        (
            ("asks", Person.ask),
            ("regenerates", Person.regenerate),
            ("gives a thumb", Person.rate),
            ("stops an answer", Person.stop),
        ),
    ),
)
"""Settings of Open WebUI by name and as its environment, of the service's engine, and what a person does."""


async def pay(visit: Visit, browser: Browser, folder: Path) -> list[Row]:
    name, environment, engine, steps = visit
    async with running(folder / "service", engine=engine) as service, open_webui(service, folder, environment) as url:
        service.version(live=True)
        service.engine.answers = saying(*ANSWER)
        context = await browser.new_context(locale="en-GB", viewport={"width": 1200, "height": 800})
        page = await context.new_page()
        page.set_default_timeout(STEP_MS)
        person = Person(page, service, name)
        await page.add_locator_handler(page.get_by_text("Okay, Let's Go!"), Locator.click)
        await page.goto(url, timeout=10 * STEP_MS)
        await page.locator("#chat-input").wait_for(timeout=10 * STEP_MS)
        for what, act in steps:
            await person.step(what, partial(act, person))
        await context.close()
        return person.rows


async def measure() -> list[Row]:
    (FOLDER / "shots").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as root:
        async with chromium() as browser:
            return [row for i, visit in enumerate(VISITS) for row in await pay(visit, browser, Path(root, str(i)))]


def table(rows: list[Row]) -> str:
    lines = ["| Open WebUI | somebody | works | sees | requests | of its own | with tools | logged |"]
    lines.append("| --- | --- | --- | --- | ---: | ---: | ---: | --- |")
    for row in rows:
        logged = ", ".join(f"{count} {kind}" for kind, count in row["logged"].items()) or "nothing"
        lines.append(
            f"| {row['settings']} | {row['what']} | {'yes' if row['works'] else 'NO'} | {row['seen'][:120]} | "
            f"{row['asked']} | {row['of_its_own']} | {row['with_tools']} | {logged} |"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    options = parser.parse_args()
    install()
    rows = asyncio.run(measure())
    print(json.dumps({"open_webui": VERSION, "rows": rows}) if options.json else table(rows))
    return 0 if all(row["works"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
