"""The annotators' page in a real browser: by mouse and by keys, on a phone, in the dark, to a screen reader."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Locator, Page, Route, expect

from rlhf_online.eventlog.local import LocalLog
from rlhf_online.events import Feedback, Ranking, Thumb, Withdrawal
from tests.services.chat.annotation.test_annotation import add, asked, give, judge
from tests.services.chat.page.conftest import Visit
from tests.services.chat.page.test_looks import violations
from tests.support.chat_service import Service, running
from tests.support.chromium import By, Visitor
from tests.support.fake_generation import EOS, Same, Token

pytestmark = pytest.mark.asyncio(loop_scope="session")
GUIDELINES = (
    "# Be fair\n\n- **True** before kind <img src=x onerror=alert(1)>\n- see [the rules](javascript:alert(1))\n"
)


class Different(Same):
    """Each answer says another word."""

    def __init__(self) -> None:
        super().__init__()
        self.drawn = 0

    def draw(self, max_tokens: int) -> Sequence[Token]:
        self.drawn += 1
        return ((20 + self.drawn, f"**answer** {'abcdefghij'[self.drawn - 1]}"), (EOS, ""))


@pytest_asyncio.fixture(loop_scope="session")
async def queue(tmp_path: Path, browser: Browser) -> AsyncIterator[Service]:
    """A service with three answers to rank, and then one to call good or bad."""
    (path := tmp_path / "how.md").write_text(GUIDELINES)
    with LocalLog(tmp_path / "state" / "log") as log:
        async with running(tmp_path, log=log, annotation_guidelines=str(path)) as service:
            service.engine.answers = Different()
            three, one = await asked(service, n=3), await asked(service)
            await add(service, {"item_id": "three", "completion_id": three}, {"item_id": "one", "completion_id": one})
            yield service


def order(vote: Feedback) -> list[list[int]]:
    """The tiers, by the places at which the answers were shown."""
    assert isinstance(vote.kind, Ranking)
    return [[vote.shown.index(ref) for ref in tier] for tier in vote.kind.tiers]


async def drag(page: Page, letter: str, onto: str, part: float) -> None:
    """The answer of that letter to a place of another one's height: 0 is its upper edge, 1 its lower."""
    grip = await card(page, letter).locator(".grip").bounding_box()
    target = await card(page, onto).bounding_box()
    assert grip and target
    await page.mouse.move(grip["x"] + 5, grip["y"] + 5)
    await page.mouse.down()
    await page.mouse.move(grip["x"] + 5, target["y"] + target["height"] / 2, steps=3)
    await page.mouse.move(grip["x"] + 5, target["y"] + target["height"] * part, steps=3)
    await page.mouse.up()


def card(page: Page, letter: str) -> Locator:
    return page.get_by_role("group", name=f"Answer {letter},")


@pytest.mark.parametrize("by", ["mouse", "keys"])
async def test_a_skip_is_taken_back(queue: Service, visitors: Visit, by: str) -> None:
    """The item is there again with the note; not once somebody else has it."""
    page = (await visitors(f"{queue.url}/annotate", cast(By, by))).page

    async def use(name: str, key: str) -> None:
        if by == "mouse":
            await page.get_by_role("button", name=name, exact=True).click()
        else:
            await page.keyboard.press(key)

    await expect(card(page, "C")).to_be_visible()
    await page.get_by_label("Note").fill("no idea")
    if by == "keys":
        await page.keyboard.press("Escape")
    await use("Skip", "s")
    await expect(page.get_by_role("button", name="Bad answer")).to_be_visible()
    await use("Undo the last one", "u")
    await expect(card(page, "C")).to_be_visible()
    await expect(page.get_by_label("Note")).to_have_value("no idea")
    await expect(page.get_by_role("button", name="Undo the last one")).to_be_hidden()
    await use("Skip", "s")
    await expect(page.get_by_role("button", name="Bad answer")).to_be_visible()
    taken = await give(queue, "bob")
    assert taken is not None and taken["item_id"] == "three"
    await use("Undo the last one", "u")
    await expect(page.get_by_role("alert")).to_contain_text("others are at 'three' now")
    await expect(page.get_by_role("button", name="Undo the last one")).to_be_hidden()
    await expect(page.get_by_role("button", name="Bad answer")).to_be_visible()


async def test_how_far_people_agree_is_shown_with_its_interval(queue: Service, visitors: Visit) -> None:
    page = (await visitors(f"{queue.url}/annotate")).page
    await expect(page.locator("#how-far")).to_have_text("0 of 2 finished · 0 by you")
    for item_id in ("good", "bad"):
        await add(queue, {"item_id": item_id, "completion_id": await asked(queue), "people": 2})
    for person in ("ann", "bob"):
        while item := await give(queue, person):
            if len(item["answers"]) == 1:
                await judge(queue, item, person, item["item_id"] == "good")
            else:
                await judge(queue, item, person, 0, 1, 2)
    await page.reload()
    await expect(page.locator("#how-far")).to_contain_text("agreement α = 1.00 (95 %: 1.00 to 1.00)")


@pytest.mark.parametrize("by", ["mouse", "keys"])
async def test_an_item_is_ranked_and_the_next_one_comes(queue: Service, visitors: Visit, by: str) -> None:
    """Best is what stood third, the other two are level; then the single answer is bad, and called good after all."""
    visitor = await visitors(f"{queue.url}/annotate", cast(By, by))
    page = visitor.page
    await expect(page.get_by_text("secret words")).to_be_visible()
    await expect(page.get_by_role("button", name="Submit")).to_be_disabled()
    assert "policy-" not in await page.content()
    if by == "mouse":
        await drag(page, "C", "A", 0.1)
        await drag(page, "B", "A", 0.5)
        await page.get_by_label("Note").fill("C is right")
        await page.get_by_role("checkbox", name="Correct", exact=True).check()
        await page.get_by_role("button", name="Submit").click()
    else:
        await expect(card(page, "A")).to_be_focused()
        for key in ("2", "3", "1"):  # A, B, C: each rank goes to the next answer without one
            await page.keyboard.press(key)
        await expect(page.get_by_role("log").locator("p").last).to_have_text("Answer C, rank 1")
        await page.keyboard.press("j")  # to A, the second now
        await page.keyboard.press("ArrowDown")
        await expect(page.get_by_role("log").locator("p").last).to_have_text("Answer A, rank 2, level with B")
        await page.keyboard.press("n")
        await page.keyboard.type("C is right")
        await page.keyboard.press("Control+Enter")
    await expect(page.get_by_role("button", name="Bad answer")).to_be_visible()
    await expect(page.locator("#how-far")).to_have_text("1 of 2 finished · 1 by you")
    if by == "mouse":
        await page.get_by_role("button", name="Bad answer").click()
        await page.get_by_role("button", name="Submit").click()
        await page.get_by_role("button", name="Undo the last one").click()
        await expect(page.get_by_role("button", name="Bad answer")).to_have_attribute("aria-pressed", "true")
        await page.get_by_role("button", name="Good answer").click()
        await page.get_by_role("button", name="Submit").click()
    else:
        await page.keyboard.press("-")
        await page.keyboard.press("Control+Enter")
        await expect(page.locator("#nothing")).to_be_visible()
        await page.keyboard.press("u")
        await expect(page.get_by_role("button", name="Bad answer")).to_have_attribute("aria-pressed", "true")
        await page.keyboard.press("+")
        await page.keyboard.press("Control+Enter")
    await expect(page.get_by_text("Nothing is left for you")).to_be_visible()
    await expect(page.locator("#how-far")).to_have_text("2 of 2 finished · 2 by you")
    ranked, bad, back, good = queue.logged(Feedback)
    assert [sorted(tier) for tier in order(ranked)] == [[2], [0, 1]]
    assert ranked.reason == "C is right"
    assert ranked.reasons == (("correct",) if by == "mouse" else ())
    assert isinstance(bad.kind, Thumb) and not bad.kind.up
    assert isinstance(back.kind, Withdrawal)
    assert isinstance(good.kind, Thumb) and good.kind.up
    assert {vote.annotation_item for vote in (bad, good)} == {"one"}
    assert {vote.source for vote in (ranked, bad, good)} == {"annotate"}


async def test_a_vote_that_does_not_get_through_is_sent_again_and_is_one(queue: Service, visitors: Visit) -> None:
    visitor = await visitors(f"{queue.url}/annotate", "keys")
    page, lost = visitor.page, 0

    async def lose_the_reply(route: Route) -> None:
        nonlocal lost
        lost += 1
        if lost == 1:
            await route.fetch()
            await route.abort()
        else:
            await route.continue_()

    await page.route("**/v1/feedback", lose_the_reply)
    await expect(card(page, "A")).to_be_focused()
    for key in ("1", "1", "2", "Control+Enter"):
        await page.keyboard.press(key)
    await expect(page.get_by_role("alert")).to_contain_text("kept, will be sent again")
    await expect(page.get_by_role("button", name="Good answer")).to_be_visible()
    assert lost == 2
    assert [sorted(tier) for tier in order(queue.logged(Feedback)[0])] == [[0, 1], [2]]
    await expect(page.locator("#how-far")).to_have_text("1 of 2 finished · 1 by you")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("dark", {"viewport": {"width": 1200, "height": 800}, "color_scheme": "dark"}),
        ("phone", {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True, "locale": "de-AT"}),
    ],
)
async def test_nothing_keeps_an_annotator_out(
    queue: Service, visitors: Visit, name: str, options: dict[str, Any]
) -> None:
    """axe-core; nothing is wider than the screen; the guidelines are text, beside the item or, on a phone, below it."""
    visitor: Visitor = await visitors(f"{queue.url}/annotate", "keys", **options)
    page = visitor.page
    await expect(page.locator("#answers > :focus")).to_have_count(1)
    found = await violations(page)
    for key in ("1", "1", "2"):
        await page.keyboard.press(key)
    await visitor.shot(f"annotate-{name}")
    found += await violations(page)
    guidelines, item = page.locator("#guidelines"), page.locator("#item")
    await expect(guidelines.locator("strong")).to_have_text("True")
    await expect(guidelines).to_contain_text("<img src=x onerror=alert(1)>")
    await expect(guidelines.locator("a, img")).to_have_count(0)
    here, there = await item.bounding_box(), await guidelines.bounding_box()
    assert here and there
    assert (there["x"] > here["x"] + here["width"]) if name == "dark" else (there["y"] > here["y"] + here["height"])
    await page.keyboard.press("?")
    found += await violations(page)
    await page.keyboard.press("Escape")
    await page.keyboard.press("s")
    await expect(page.get_by_role("group", name="Answer" if name == "dark" else "Antwort", exact=True)).to_be_visible()
    await page.keyboard.press("s")
    await expect(page.locator("#nothing")).to_be_visible()
    await visitor.shot(f"annotate-{name}-nothing")
    found += await violations(page)
    assert found == []
    width = await page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert width[0] <= width[1]
