"""The page while the engine loads, the service restarts or refuses, and beside other tabs."""

import asyncio
from pathlib import Path

import pytest
from playwright.async_api import Browser, Route, expect

from rlhf_online import keys
from rlhf_online.eventlog.local import LocalLog
from rlhf_online.events import AnswerRef, Completion, Feedback, Thumb
from rlhf_online.state import StateDir
from tests.services.chat.page.conftest import Visit
from tests.support.chat_process import chat_process
from tests.support.chat_service import Service, running
from tests.support.chromium import By, saying
from tests.support.proxy import Proxy
from tests.support.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.mark.parametrize("by", ["mouse", "keys"])
async def test_a_message_waits_for_an_engine_that_is_loading(site: Service, visitors: Visit, by: By) -> None:
    site.host.state = "starting"
    visitor = await visitors(site.url, by, ready=False)
    await expect(visitor.page.locator("#state")).to_contain_text("loading takes a minute or two")
    await visitor.say("?")
    await expect(visitor.answer).to_contain_text("Your message is kept and sent as soon as the model answers")
    assert site.engine.requests == []
    site.host.state = "ready"
    answer = await visitor.answered()
    await expect(answer).to_contain_text("hello there")
    assert len(site.engine.requests) == 1


async def test_who_does_not_want_to_wait_stops_and_sends_again(site: Service, visitors: Visit) -> None:
    site.host.state = "starting"
    visitor = await visitors(site.url, ready=False)
    await visitor.say("first")
    await visitor.do("Stop", "Escape", where=lambda: visitor.page.locator("#composer"))
    await expect(visitor.answer).to_contain_text("stopped")
    site.host.state = "ready"
    await visitor.ask("second")
    assert await visitor.texts() == ["second", "hello there"]
    assert [message["content"] for message in site.engine.requests[0]["messages"]] == ["second"]


async def test_a_service_that_is_killed_and_restarts_loses_nothing(
    tmp_path: Path, browser: Browser, visitors: Visit
) -> None:
    """The answer so far stays; what is voted and asked meanwhile is sent when the service is back, once."""
    with Proxy() as proxy:
        async with chat_process(tmp_path) as service:
            proxy.target = int(service.url.rpartition(":")[2])
            visitor = await visitors(f"http://{proxy.address}")
            await visitor.ask("first")
            service.engine.answers = saying("one", " two", " three")
            await service.engine.hold()
            await visitor.say("second")
            await service.engine.allow(2)
            await expect(visitor.answer).to_contain_text("one two")
            await service.kill()
            await expect(visitor.answer).to_contain_text("the connection broke in the middle of the answer")
            await expect(visitor.page.locator("#state")).to_contain_text("the service does not answer")
            first = visitor.page.locator(".answer").first
            await visitor.do("Good answer", "+", where=lambda: first)
            await expect(first).to_contain_text("kept, will be sent again")
            await visitor.say("third")
            await expect(visitor.answer).to_contain_text("Your message is kept")
            await service.engine.release()
            await service.start()
            proxy.target = int(service.url.rpartition(":")[2])
            await visitor.answered()
            await expect(first).to_contain_text("counted, thank you")
            assert await visitor.texts() == ["first", "hello there", "second", "one two", "third", "one two three"]
            events = [envelope.event for envelope in service.logged()]
    [vote] = [event for event in events if isinstance(event, Feedback)]
    asked = [event for event in events if isinstance(event, Completion)]
    assert vote.kind == Thumb(answer=AnswerRef(completion_id=asked[0].completion_id), up=True)
    assert asked[-1].messages[-1].content == "third"


async def test_a_vote_whose_reply_was_lost_is_the_same_vote(site: Service, visitors: Visit) -> None:
    """And a reload does not lose it."""
    visitor = await visitors(site.url)
    await visitor.ask("?")

    async def lose(route: Route) -> None:
        await route.fetch()
        await route.abort()

    await visitor.page.route("**/v1/feedback", lose, times=1)
    await visitor.do("Good answer", "+")
    await eventually(lambda: site.sink.feedback != [])
    await visitor.page.reload()
    await expect(visitor.answer).to_contain_text("counted, thank you")
    assert len(site.sink.feedback) == 2
    assert len({envelope.event_id for envelope in site.sink.envelopes if envelope.event in site.sink.feedback}) == 1


async def test_a_vote_that_is_refused_says_so_and_is_not_sent_again(site: Service, visitors: Visit) -> None:
    visitor = await visitors(site.url)
    await visitor.ask("?")
    site.chat.feedback.checks.add_completion(site.sink.completions[0], stored=False)
    await visitor.do("Good answer", "+")
    await expect(visitor.answer).to_contain_text("not counted: the completion")
    await expect(visitor.answer.get_by_role("button", name="Good answer")).to_have_attribute("aria-pressed", "false")


async def test_a_full_log_keeps_votes_waiting(site: Service, visitors: Visit) -> None:
    visitor = await visitors(site.url)
    await visitor.ask("?")
    site.sink.failing = "raise"
    await visitor.do("Good answer", "+")
    await expect(visitor.answer).to_contain_text("kept, will be sent again")
    site.sink.failing = ""
    await expect(visitor.answer).to_contain_text("counted, thank you")


async def test_two_tabs_show_the_same_votes_and_conversations(site: Service, visitors: Visit) -> None:
    one = await visitors(site.url)
    await one.ask("first")
    two = await visitors(site.url, beside=one)
    await two.page.get_by_role("navigation").get_by_role("button", name="first", exact=True).click()
    await one.do("Good answer", "+")
    await expect(two.answer).to_contain_text("counted, thank you")
    await two.do("Good answer", "+")
    await expect(one.answer).to_contain_text("taken back")
    await two.ask("second")
    await expect(one.answer).to_contain_text("hello there")
    assert await one.texts() == await two.texts() == ["first", "hello there", "second", "hello there"]
    await site.engine.hold()
    await asyncio.gather(one.say("left"), two.say("right"))
    await eventually(lambda: len(site.engine.requests) == 4)
    await site.engine.release()
    await asyncio.gather(one.answered(), two.answered())
    await expect(one.shown).to_have_text(["first", "hello there", "second", "hello there", "left", "hello there"])
    await expect(two.shown).to_have_text(["first", "hello there", "second", "hello there", "right", "hello there"])
    for tab in (one, two):
        await expect(tab.page.locator(".message").last).to_contain_text("of 2")
    assert len({completion.conversation_id for completion in site.sink.completions}) == 1


async def test_what_another_tab_wrote_away_is_written_again(site: Service, visitors: Visit) -> None:
    """Tabs in processes of their own may each read what is kept before the other's write has reached them."""
    one = await visitors(site.url)
    await one.ask("first")
    two = await visitors(site.url, beside=one)
    await two.page.get_by_role("navigation").get_by_role("button", name="first", exact=True).click()
    await site.engine.hold()
    await two.say("second")
    await expect(one.page.locator(".answer")).to_have_count(2)
    name = await one.page.evaluate("Object.keys(localStorage).find((key) => key.startsWith('rlhf:conversation:'))")
    stale = await one.page.evaluate("(name) => localStorage.getItem(name)", name)
    await site.engine.release()
    await two.answered()
    await expect(one.shown).to_have_text(["first", "hello there", "second", "hello there"])
    await one.page.evaluate("([name, text]) => localStorage.setItem(name, text)", [name, stale])
    await one.page.wait_for_function("([name, text]) => localStorage.getItem(name) !== text", arg=[name, stale])
    await one.page.reload()
    for tab in (one, two):
        await expect(tab.shown).to_have_text(["first", "hello there", "second", "hello there"])


async def test_an_answer_goes_on_behind_another_conversation(site: Service, visitors: Visit) -> None:
    visitor = await visitors(site.url)
    await site.engine.hold()
    await visitor.say("slow")
    await site.engine.allow(1)
    await expect(visitor.answer).to_contain_text("hello")
    side = visitor.page.get_by_role("navigation")
    await visitor.do("New conversation", "n", where=lambda: side)
    await visitor.do("slow", "]", where=lambda: side)
    await site.engine.release()
    await visitor.answered()
    await visitor.ask("more")
    assert await visitor.texts() == ["slow", "hello there", "more", "hello there"]


async def test_a_reload_keeps_what_was_written_so_far(site: Service, visitors: Visit) -> None:
    visitor = await visitors(site.url)
    await site.engine.hold()
    await visitor.say("?")
    await site.engine.allow(1)
    await expect(visitor.answer).to_contain_text("hello")
    await visitor.page.reload()
    await expect(visitor.answer).to_contain_text("the connection broke in the middle of the answer")
    await site.engine.release()
    await visitor.page.get_by_role("textbox", name="Your message").fill("half a mess")
    await visitor.page.reload()
    await expect(visitor.page.get_by_role("textbox", name="Your message")).to_have_value("half a mess")
    await visitor.do("Good answer", "+")
    await eventually(lambda: site.sink.feedback != [])
    assert site.sink.feedback[0].answers()[0].completion_id == site.sink.completions[0].completion_id


@pytest.mark.parametrize("by", ["mouse", "keys"])
async def test_a_key_is_asked_for_and_kept_until_the_tab_is_closed(
    tmp_path: Path, browser: Browser, visitors: Visit, by: By
) -> None:
    """Once for all that was refused meanwhile, again when it no longer holds, and never by another tab's word."""
    ann, token = keys.make("ann", ["chat", "feedback", "read"])
    state = StateDir(tmp_path / "state")
    state.root.mkdir()
    keys.add(state.keys, ann)
    async with running(tmp_path) as service:
        visitor = await visitors(service.url, by)
        dialog = visitor.page.get_by_role("dialog", name="A key is needed")
        confirm = dialog.get_by_role("button", name="Continue")
        await visitor.say("?")
        await expect(dialog).to_be_visible()
        await visitor.page.get_by_label("API key").fill("wrong")
        await (confirm.click() if by == "mouse" else visitor.page.keyboard.press("Enter"))
        await expect(dialog).to_contain_text("key")
        await expect(visitor.page.get_by_label("API key")).to_have_value("")
        await visitor.page.get_by_label("API key").fill(token)
        await (confirm.click() if by == "mouse" else visitor.page.keyboard.press("Enter"))
        await expect(await visitor.answered()).to_contain_text("hello there")
        await visitor.do("Good answer", "+")
        await expect(visitor.answer).to_contain_text("counted, thank you")
        await visitor.page.reload()
        await visitor.ask("more")
        await expect(dialog).to_be_hidden()
        assert {event.person for event in (*service.sink.completions, *service.sink.feedback)} == {
            service.chat.gateway.person_hash("ann")
        }
        other = await visitors(service.url, by, beside=visitor)
        await other.say("?")
        other_dialog = other.page.get_by_role("dialog", name="A key is needed")
        await expect(other_dialog).to_be_visible()
        cancel = other_dialog.get_by_role("button", name="Cancel")
        await (cancel.click() if by == "mouse" else other.page.keyboard.press("Escape"))
        await expect(other.answer).to_contain_text("no key was given")


@pytest.mark.parametrize("by", ["mouse", "keys"])
async def test_a_conversation_is_erased_at_the_service_too(
    tmp_path: Path, browser: Browser, visitors: Visit, by: By
) -> None:
    with LocalLog(tmp_path / "state" / "log") as log:
        async with running(tmp_path, log=log) as service:
            visitor = await visitors(service.url, by)
            await visitor.ask("a secret")
            user = await visitor.page.evaluate("JSON.parse(localStorage.getItem('rlhf:person'))")
            kept = f"/v1/conversations?user={user}"
            assert len((await service.get(kept))[1]["conversations"]) == 1
            for name in ("Remove “a secret” from this browser", "Erase it at the service, too"):
                button = visitor.page.get_by_role("button", name=name)
                await button.focus()
                await (button.click() if by == "mouse" else button.press("Enter"))
            await expect(visitor.page.locator("#toast")).to_contain_text("Erased")
            assert (await service.get(kept))[1]["conversations"] == []
            assert await visitor.page.evaluate("JSON.stringify({ ...localStorage }).includes('a secret')") is False


async def test_a_new_version_is_told(site: Service, visitors: Visit) -> None:
    visitor = await visitors(site.url)
    await site.host.swap("policy-000010")
    banner = visitor.page.locator("#banner")
    await expect(banner).to_have_text("A new version is live: policy-000010 answers from now on.")
    await site.host.swap("policy-000009")
    await expect(banner).to_have_text("An earlier version is live again: policy-000009 answers from now on.")


async def test_a_browser_that_keeps_nothing_works_for_the_visit(site: Service, visitors: Visit) -> None:
    visitor = await visitors(site.url, ready=False)
    await visitor.page.add_init_script(
        "for (const name of ['localStorage', 'sessionStorage'])"
        "Object.defineProperty(window, name, { get() { throw new DOMException('no', 'SecurityError'); } });"
    )
    await visitor.visit(site.url)
    await visitor.ask("first")
    await visitor.do("Good answer", "+")
    await expect(visitor.answer).to_contain_text("counted, thank you")
    await visitor.ask("second")
    assert await visitor.texts() == ["first", "hello there", "second", "hello there"]
