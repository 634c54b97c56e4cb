"""A real browser, and a person in front of the page who uses the mouse or the keyboard."""

import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

from playwright.async_api import Browser, ConsoleMessage, Locator, Page, async_playwright, expect

from tests.support.fake_generation import EOS, Same, Token

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    "--no-sandbox",  # tests run as root in containers
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SHOTS = Path(__file__).resolve().parents[2] / "build" / "page"
By = Literal["mouse", "keys"]

PATIENCE_MS = 60_000
"""As long as others of this machine's tests may keep a page waiting."""

expect.set_options(timeout=PATIENCE_MS)


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """The browser of this machine, which must have one."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            yield browser
        finally:
            await browser.close()


def saying(*parts: str) -> Same:
    """An engine's answer of these tokens."""
    tokens: Sequence[Token] = [(11 + i, part) for i, part in enumerate(parts)]
    return Same([*tokens, (EOS, "")])


class Visitor:
    """Somebody who uses the page `by` mouse or by keys. `complaints`: errors of scripts, and breaches of the policy."""

    def __init__(self, page: Page, by: By = "mouse") -> None:
        self.page = page
        self.by: By = by
        self.complaints: list[str] = []
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", self._heard)
        page.set_default_timeout(PATIENCE_MS)

    async def visit(self, url: str, *, ready: bool = True) -> "Visitor":
        await self.page.goto(url)
        if ready:
            await expect(self.page.locator("#state")).to_have_class("ready")
        return self

    async def say(self, text: str, *, pair: bool = False) -> None:
        """Send a message."""
        field = self.page.get_by_role("textbox", name="Your message")
        if self.by == "keys":
            await self.press("/")
            await self.page.keyboard.type(text)
            await self.page.keyboard.press("Control+Enter" if pair else "Enter")
            return
        await field.fill(text)
        two = self.page.get_by_role("button", name="Two answers", exact=True)
        if (await two.get_attribute("aria-pressed") == "true") != pair:
            await two.click()
        await self.page.get_by_role("button", name="Send", exact=True).click()

    async def ask(self, text: str, *, pair: bool = False) -> Locator:
        """Send a message and wait for the whole answer."""
        await self.say(text, pair=pair)
        return await self.answered()

    async def answered(self) -> Locator:
        """The last answer, whole."""
        await expect(self.page.get_by_role("button", name="Send", exact=True)).to_be_visible()
        await expect(self.answer).to_have_attribute("aria-busy", "false")
        return self.answer

    @property
    def answer(self) -> Locator:
        """The last one."""
        return self.page.locator(".answer").last

    async def do(self, name: str, key: str, *, where: Callable[[], Locator] | None = None) -> None:
        """Press the button of that name, by default the last answer's, or the key that does the same."""
        if self.by == "keys":
            return await self.press(key)
        place = where() if where else self.answer
        await place.hover()
        await place.get_by_role("button", name=name, exact=True).first.click()

    async def press(self, key: str) -> None:
        """A key, outside of text fields."""
        await self.leave_field()
        await self.page.keyboard.press(key)

    async def leave_field(self) -> None:
        """To where letters are shortcuts. Escape does it where an answer is; nothing is being written then."""
        if await self.page.evaluate("document.activeElement.id === 'input' && !document.querySelector('.turn')"):
            await self.page.keyboard.press("Tab")
        elif await self.page.evaluate("document.activeElement.id === 'input'"):
            await self.page.evaluate("document.querySelector('.turn:last-child').focus()")

    async def fill(self, name: str, text: str, *, confirm: str) -> None:
        """Write into the field that has just been opened, and confirm by the button of that name or by a key."""
        field = self.page.get_by_role("textbox", name=name, exact=True)
        await expect(field).to_be_focused()
        if self.by == "keys":
            await self.page.keyboard.press("Control+A")
            await self.page.keyboard.type(text)
            await self.page.keyboard.press("Control+Enter")
            return
        await field.fill(text)
        await self.page.locator("form:not(#composer)").get_by_role("button", name=confirm, exact=True).click()

    @property
    def shown(self) -> Locator:
        """What is said, turn by turn."""
        return self.page.locator(".said, .answer .part > .markdown")

    async def texts(self) -> list[str]:
        return await self.shown.all_inner_texts()

    async def shot(self, name: str) -> None:
        """A screenshot, into build/page."""
        SHOTS.mkdir(parents=True, exist_ok=True)
        await self.page.screenshot(path=SHOTS / f"{name}.png")

    def _heard(self, message: ConsoleMessage) -> None:
        said: Any = message.text
        if "Content Security Policy" in said or "Trusted" in said:
            self.complaints.append(said)
