"""What the service keeps of a person: seen from another browser, taken along, erased."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import orjson
import pytest
import pytest_asyncio
from playwright.async_api import Browser, Locator, expect

from rlhf_online import keys
from rlhf_online.eventlog.local import LocalLog
from rlhf_online.state import StateDir
from tests.services.chat.page.conftest import Visit
from tests.services.chat.page.test_looks import violations
from tests.support.chat_service import Service, running
from tests.support.chromium import By, Visitor, saying

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(loop_scope="session")
async def service(tmp_path: Path, browser: Browser) -> AsyncIterator[Service]:
    """One with a log on disk."""
    with LocalLog(tmp_path / "state" / "log") as log:
        async with running(tmp_path, log=log) as service:
            yield service


@pytest_asyncio.fixture(loop_scope="session", params=["mouse", "keys"])
async def visitor(request: pytest.FixtureRequest, service: Service, visitors: Visit) -> Visitor:
    return await visitors(service.url, cast(By, request.param))


async def push(visitor: Visitor, button: Locator) -> None:
    """A button that no letter stands for."""
    if visitor.by == "mouse":
        await button.hover()
        await button.click()
    else:
        await button.focus()
        await visitor.page.keyboard.press("Enter")


def kept(visitor: Visitor) -> Locator:
    return visitor.page.get_by_role("list", name="Kept by the service")


async def test_a_key_shows_its_persons_conversations_in_another_browser(
    tmp_path: Path, browser: Browser, visitors: Visit
) -> None:
    """With the votes, to go on with; and what was asked there is seen here."""
    ann, token = keys.make("ann", ["chat", "feedback"])
    state = StateDir(tmp_path / "state")
    state.root.mkdir()
    keys.add(state.keys, ann)
    with LocalLog(state.log) as log:
        async with running(tmp_path, log=log) as service:
            here, there = await visitors(service.url), await visitors(service.url, "keys")
            for visitor in (here, there):
                await push(visitor, visitor.page.get_by_role("button", name="Show what the service keeps"))
                await visitor.page.get_by_label("API key").fill(token)
                await visitor.page.keyboard.press("Enter")
                await expect(visitor.page.get_by_role("dialog")).to_be_hidden()
                if visitor is here:
                    await here.ask("first")
                    await here.do("Good answer", "+")
                    await expect(here.answer).to_contain_text("counted, thank you")
                    service.engine.answers = saying("bye")
            await push(there, kept(there).get_by_role("button", name="first", exact=True))
            await expect(there.answer.get_by_role("button", name="Good answer")).to_have_attribute(
                "aria-pressed", "true"
            )
            await expect(kept(there).get_by_role("listitem")).to_have_count(0)
            await there.ask("second")
            assert await there.texts() == ["first", "hello there", "second", "bye"]
            assert [message["content"] for message in service.engine.requests[-1]["messages"]] == [
                "first",
                "hello there",
                "second",
            ]
            await here.page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
            await expect(here.page.locator(".said")).to_have_text(["first", "second"])
            assert await here.texts() == ["first", "hello there", "second", "bye"]


async def test_what_was_removed_from_the_browser_comes_back_as_it_was(service: Service, visitor: Visitor) -> None:
    """Branches, a blind pair and its vote, why an answer is bad, a better one."""
    page = visitor.page
    await visitor.ask("first")
    service.engine.answers = saying("another")
    await visitor.do("Another answer", "r")
    await visitor.answered()
    await visitor.do("Bad answer", "-")
    await visitor.do("Write it better", "b")
    await visitor.fill("Your better version of the answer", "the best", confirm="Save")
    await expect(visitor.answer).to_contain_text("counted, thank you")
    await visitor.ask("second", pair=True)
    await visitor.do("Right", "2")
    await expect(visitor.answer.get_by_text("policy-000000")).to_have_count(2)
    before = await page.locator("#thread").inner_text()
    assert "2 of 2" in before and "the best" in before
    side = page.get_by_role("navigation")
    await push(visitor, side.get_by_role("button", name="Remove “first” from this browser"))
    await expect(page.get_by_role("heading", name="What would you like to know?")).to_be_visible()
    await expect(kept(visitor).get_by_role("listitem")).to_have_count(1)
    assert await violations(page) == []
    await page.evaluate(
        "for (const name of Object.keys(localStorage)) if (name !== 'rlhf:person') localStorage.removeItem(name)"
    )
    await page.reload()
    if visitor.by == "mouse":
        await push(visitor, kept(visitor).get_by_role("button", name="first", exact=True))
    else:
        await expect(kept(visitor).get_by_role("listitem")).to_have_count(1)
        await visitor.press("]")
    await expect(visitor.answer.get_by_role("button", name="Right")).to_have_attribute("aria-pressed", "true")
    await expect(page.locator("#thread")).to_have_text(before, use_inner_text=True)
    await expect(kept(visitor)).to_be_hidden()


async def test_all_that_is_kept_is_downloaded(service: Service, visitor: Visitor) -> None:
    await visitor.ask("mine")
    await visitor.do("Good answer", "+")
    await expect(visitor.answer).to_contain_text("counted, thank you")
    await service.ask(user="bob", conversation_id="his")
    async with visitor.page.expect_download() as arriving:
        await push(visitor, visitor.page.get_by_role("button", name="Download what the service keeps of you"))
    download = await arriving.value
    assert download.suggested_filename == "conversations.jsonl"
    saved = await download.path()
    items = [orjson.loads(line) for line in (await asyncio.to_thread(saved.read_bytes)).splitlines()]
    assert [item["object"] for item in items] == ["exchange", "vote"]
    assert items[0]["messages"] == [{"role": "user", "content": "mine"}]


async def test_what_the_service_keeps_is_erased_from_its_list(service: Service, visitor: Visitor) -> None:
    page = visitor.page
    await visitor.ask("a secret")
    side = page.get_by_role("navigation")
    await push(visitor, side.get_by_role("button", name="Remove “a secret” from this browser"))
    gone = kept(visitor).get_by_role("button", name="Erase “a secret” at the service")
    await push(visitor, gone)
    await push(visitor, page.locator("#toast").get_by_role("button", name="Cancel"))
    await expect(page.locator("#toast")).to_be_hidden()
    await push(visitor, gone)
    await push(visitor, page.locator("#toast").get_by_role("button", name="Erase", exact=True))
    await expect(page.locator("#toast")).to_contain_text("Erased")
    await expect(kept(visitor)).to_be_hidden()
    user = await page.evaluate("JSON.parse(localStorage.getItem('rlhf:person'))")
    assert (await service.get(f"/v1/conversations?user={user}"))[1]["conversations"] == []


async def test_what_programs_asked_is_shown_and_gone_on_with_as_it_was(service: Service, visitors: Visit) -> None:
    """Messages of other roles, several answers to one request, and a long list."""
    for number in range(51):
        await service.ask(user="page-ann", conversation_id=f"talk {number}")
    call = {"id": "call-1", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}
    asked = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "how many?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "3", "tool_call_id": "call-1"},
    ]
    await service.ask(user="page-ann", conversation_id="trip/1?&", messages=asked, n=2)
    visitor = await visitors(service.url)
    await visitor.page.evaluate("localStorage.setItem('rlhf:person', '\"page-ann\"')")
    await visitor.page.reload()
    await push(visitor, kept(visitor).get_by_role("button", name="how many?", exact=True))
    assert await visitor.texts() == ["how many?", "hello there"]
    await expect(visitor.answer).to_contain_text("1 of 2")
    await visitor.do("Next variant", "l")
    await visitor.do("Bad answer", "-")
    await expect(visitor.answer).to_contain_text("counted, thank you")
    await visitor.ask("more")
    answered = {"role": "assistant", "content": "hello there"}
    assert service.engine.requests[-1]["messages"] == [*asked, answered, {"role": "user", "content": "more"}]
    _, found = await service.get("/v1/conversations/trip/1%3F&?user=page-ann")
    assert found["exchanges"][0]["votes"][0]["thumb"]["answer"]["index"] == 1
    await expect(kept(visitor).get_by_role("listitem")).to_have_count(49)
    await push(visitor, visitor.page.get_by_role("button", name="More", exact=True))
    await expect(kept(visitor).get_by_role("listitem")).to_have_count(51)
