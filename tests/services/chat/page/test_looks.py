"""How the page looks and reads: on a phone, in the dark, in German, to a screen reader. Screenshots: build/page."""

import json
from typing import Any

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Page, expect

from tests.services.chat.page.conftest import Visit
from tests.support.chat_service import Service
from tests.support.chromium import Visitor, saying

pytestmark = pytest.mark.asyncio(loop_scope="session")

ANSWER = """Bread goes stale because its **starch recrystallises**, not because it dries out:

1. Keep it *cut side down* in a paper bag.
2. Freeze what you will not eat within two days, in slices.

| Place | Days |
| --- | --- |
| bread box | 2 – 3 |
| freezer | 60 |

```python
minutes = 1.5 * slices  # toast from frozen, a line that is wider than a telephone's screen is
```

> See [the chemistry](https://example.org/bread)."""


async def violations(page: Page) -> list[str]:
    """What axe-core finds fault with, of all its rules but experimental ones."""
    result = await Axe().run(page)
    found: list[dict[str, Any]] = result.response["violations"]
    return [
        f"{one['id']}: {node['html'][:200]} {json.dumps(node['any'])[:300]}" for one in found for node in one["nodes"]
    ]


async def talk(site: Service, visitor: Visitor) -> None:
    """A conversation in which everything is to be seen."""
    site.engine.answers = saying(*ANSWER.replace(" ", "\0 ").split("\0"))
    await visitor.ask("How do I keep bread fresh?")
    await visitor.ask("And if it is already stale?", pair=True)
    await visitor.do("Right", "2")
    await expect(visitor.answer.get_by_text("policy-000000")).to_have_count(2)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("dark", {"viewport": {"width": 1200, "height": 800}, "color_scheme": "dark"}),
        ("phone", {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}),
    ],
)
async def test_nothing_keeps_anybody_out(site: Service, visitors: Visit, name: str, options: dict[str, Any]) -> None:
    """axe-core: in every state of the page; and nothing is wider than the screen."""
    site.host.audiences = {"brief": "", "lawyers": ""}
    visitor = await visitors(site.url, "keys", **options)
    page = visitor.page
    await expect(page.get_by_role("combobox", name="Answers for")).to_be_visible()
    found = await violations(page)
    await talk(site, visitor)
    await visitor.shot(f"{name}-pair")
    found += await violations(page)
    for _ in range(2):
        await page.keyboard.press("k")
    await visitor.do("Bad answer", "-")
    await visitor.do("Say why", "y")
    await page.get_by_role("checkbox", name="Incomplete").check()
    await visitor.shot(f"{name}-why")
    found += await violations(page)
    await page.keyboard.press("Escape")
    await visitor.press("b")
    found += await violations(page)
    await page.keyboard.press("Escape")
    await visitor.press("e")
    await visitor.shot(f"{name}-edit")
    found += await violations(page)
    await page.keyboard.press("Escape")
    await visitor.press("?")
    await visitor.shot(f"{name}-keys")
    found += await violations(page)
    assert found == []
    width = await page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert width[0] <= width[1]


async def test_on_a_phone_the_list_opens_and_closes(site: Service, visitors: Visit) -> None:
    """And what opens by hovering elsewhere is there without."""
    visitor = await visitors(site.url, viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    page, side = visitor.page, visitor.page.locator("#side")
    await visitor.ask("first")
    await expect(page.get_by_role("button", name="Edit and send again")).to_have_css("opacity", "1")
    await expect(side).to_be_hidden()
    menu = page.get_by_role("button", name="Conversations")
    await menu.tap()
    await expect(menu).to_have_attribute("aria-expanded", "true")
    await expect(side.get_by_text("first")).to_be_visible()
    await visitor.shot("phone-menu")
    assert await violations(page) == []
    await page.touchscreen.tap(340, 400)
    await expect(side).to_be_hidden()
    await menu.press("Enter")
    await side.get_by_role("button", name="New conversation").press("Enter")
    await expect(side).to_be_hidden()
    await expect(page.get_by_role("heading", name="What would you like to know?")).to_be_visible()


async def test_colours_follow_the_system(site: Service, visitors: Visit) -> None:
    visitor = await visitors(site.url)
    light = await visitor.page.evaluate("getComputedStyle(document.body).backgroundColor")
    await visitor.page.emulate_media(color_scheme="dark")
    assert (light, await visitor.page.evaluate("getComputedStyle(document.body).backgroundColor")) == (
        "rgb(255, 255, 255)",
        "rgb(23, 24, 26)",
    )


async def test_the_language_is_the_readers_and_can_be_changed(site: Service, visitors: Visit) -> None:
    visitor = await visitors(site.url)
    await visitor.ask("?")
    page = visitor.page
    await page.get_by_role("combobox", name="Language").select_option("Deutsch")
    await expect(page.get_by_role("button", name="Gute Antwort")).to_be_visible()
    await expect(page.locator("html")).to_have_attribute("lang", "de")
    await page.reload()
    await expect(page.get_by_role("button", name="Neues Gespräch")).to_be_visible()
    assert await violations(page) == []
    await visitor.shot("german")
    left = await page.evaluate(
        "() => { const words = document.body.innerText; return ['conversation', 'answer', 'Send', 'Keyboard']"
        ".filter((word) => words.includes(word)); }"
    )
    assert left == []


async def test_a_german_browser_is_greeted_in_german_and_a_french_one_in_english(
    site: Service, visitors: Visit
) -> None:
    for locale, greeting in (("de-AT", "Was möchten Sie wissen?"), ("fr-FR", "What would you like to know?")):
        visitor = await visitors(site.url, locale=locale)
        await expect(visitor.page.get_by_role("heading", name=greeting)).to_be_visible()


async def test_what_happens_to_the_data_is_said(site: Service, visitors: Visit) -> None:
    visitor = await visitors(site.url)
    await expect(visitor.page.locator("#data")).to_contain_text("stored by this service and the model learns from them")


async def test_an_answer_is_read_out_by_paragraphs_each_once(site: Service, visitors: Visit) -> None:
    """Not token by token; and the conversation itself is no live region, which would be read twice."""
    site.engine.answers = saying("One", " two.", "\n\nThree", " four.", "\n\nFive.")
    visitor = await visitors(site.url)
    said = visitor.page.get_by_role("log").locator("p")
    await site.engine.hold()
    await visitor.say("?")
    await site.engine.allow(2)
    await expect(visitor.answer).to_contain_text("One two.")
    await expect(said).to_have_text(["writing…"])
    await site.engine.allow(2)
    await expect(said).to_have_text(["writing…", "One two."])
    await site.engine.release()
    await visitor.answered()
    await expect(said).to_have_text(["writing…", "One two.", "Three four.", "Five.", "The answer is complete."])
    assert await visitor.page.locator("#thread[aria-live], .markdown[aria-live]").count() == 0


async def test_the_end_stays_in_sight_unless_the_reader_scrolls_up(site: Service, visitors: Visit) -> None:
    site.engine.answers = saying(*(f"line {i}\n\n" for i in range(60)))
    visitor = await visitors(site.url, viewport={"width": 900, "height": 600})
    await site.engine.hold()
    await visitor.say("?")
    await site.engine.allow(30)
    below = "thread.scrollHeight - thread.scrollTop - thread.clientHeight"
    await expect(visitor.answer).to_contain_text("line 29")
    assert await visitor.page.evaluate(below) < 80
    await visitor.page.locator("#thread").hover()
    await visitor.page.mouse.wheel(0, -400)
    await visitor.page.wait_for_function(f"{below} > 200")
    top = await visitor.page.evaluate("thread.scrollTop")
    await site.engine.release()
    await visitor.answered()
    assert await visitor.page.evaluate("thread.scrollTop") == top
