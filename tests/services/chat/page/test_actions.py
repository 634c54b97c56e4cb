"""Everything that people do on the page, by mouse and by keys."""

from collections.abc import Sequence

import pytest
from playwright.async_api import expect

from rlhf_online.events import AnswerRef, Correction, Pairwise, Thumb, Withdrawal
from tests.support.chat_service import Service
from tests.support.chromium import Visitor, saying
from tests.support.fake_generation import EOS, Same, Token
from tests.support.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="session")


class InTurn(Same):
    """Each answer is another one, and the last one for good."""

    def __init__(self, *texts: str) -> None:
        super().__init__()
        self.texts = list(texts)

    def draw(self, max_tokens: int) -> Sequence[Token]:
        text = self.texts.pop(0) if len(self.texts) > 1 else self.texts[0]
        return [(11, text), (EOS, "")]


async def test_a_conversation_goes_on(site: Service, visitor: Visitor) -> None:
    await visitor.ask("How do I keep bread fresh?")
    site.engine.answers = saying("In a", " bag.")
    await visitor.ask("And then?")
    assert await visitor.texts() == ["How do I keep bread fresh?", "hello there", "And then?", "In a bag."]
    assert [message["content"] for message in site.engine.requests[-1]["messages"]] == [
        "How do I keep bread fresh?",
        "hello there",
        "And then?",
    ]
    first, second = site.sink.completions
    assert first.conversation_id == second.conversation_id
    assert first.person == second.person != ""


async def test_a_thumb_is_given_changed_and_taken_back(site: Service, visitor: Visitor) -> None:
    answer = await visitor.ask("?")
    ref = AnswerRef(completion_id=site.sink.completions[0].completion_id)
    await visitor.do("Good answer", "+")
    await expect(answer).to_contain_text("counted, thank you")
    await visitor.do("Bad answer", "-")
    await eventually(lambda: len(site.sink.feedback) == 2)
    await expect(answer.get_by_role("button", name="Bad answer")).to_have_attribute("aria-pressed", "true")
    await expect(answer).to_contain_text("counted, thank you")
    await visitor.do("Bad answer", "-")
    await expect(answer).to_contain_text("taken back")
    given, changed, back = site.sink.feedback
    assert [vote.kind for vote in (given, changed, back)] == [
        Thumb(answer=ref, up=True),
        Thumb(answer=ref, up=False),
        Withdrawal(answer=ref),
    ]
    ids = [e.event_id for e in site.sink.envelopes if e.event in (given, changed)]
    assert [changed.replaces, back.replaces] == ids
    assert given.source == "page"
    assert given.conversation_id == site.sink.completions[0].conversation_id
    assert given.response_ms > 0


async def test_an_answer_is_voted_on_while_it_is_written(site: Service, visitor: Visitor) -> None:
    await site.engine.hold()
    await visitor.say("?")
    await site.engine.allow(1)
    await visitor.do("Good answer", "+")
    await eventually(lambda: site.sink.feedback != [])
    assert site.sink.completions == []
    await site.engine.release()
    await visitor.answered()
    [vote], [completion] = site.sink.feedback, site.sink.completions
    assert vote.kind == Thumb(answer=AnswerRef(completion_id=completion.completion_id), up=True)
    await expect(visitor.answer.get_by_role("button", name="Good answer")).to_have_attribute("aria-pressed", "true")


async def test_a_vote_says_why(site: Service, visitor: Visitor) -> None:
    await visitor.ask("?")
    await visitor.do("Bad answer", "-")
    await eventually(lambda: site.sink.feedback != [])
    await visitor.do("Say why", "y")
    tag = visitor.page.get_by_role("checkbox", name="Incomplete")
    if visitor.by == "mouse":
        await tag.check()
    else:
        await tag.press("Space")
    await visitor.page.get_by_role("textbox", name="Why?").focus()
    await visitor.fill("Why?", "too short", confirm="Save")
    await eventually(lambda: len(site.sink.feedback) == 2)
    first, second = site.sink.feedback
    assert (first.reason, first.reasons) == ("", ())
    assert (second.reason, second.reasons) == ("too short", ("incomplete",))
    assert second.kind == first.kind
    assert second.replaces == site.sink.envelopes[1].event_id


async def test_a_better_answer_is_written_from_the_answers_text(site: Service, visitor: Visitor) -> None:
    answer = await visitor.ask("?")
    await visitor.do("Write it better", "b")
    await expect(visitor.page.get_by_role("textbox", name="Your better version")).to_have_value("hello there")
    await visitor.fill("Your better version of the answer", "Hello, and **welcome**.", confirm="Save")
    better = answer.locator(".corrected")
    await expect(better).to_contain_text("counted, thank you")
    await expect(better.locator("strong")).to_have_text("welcome")
    await visitor.do("Write it better", "b")
    await visitor.fill("Your better version of the answer", "Welcome.", confirm="Save")
    await eventually(lambda: len(site.sink.feedback) == 2)
    await expect(better).to_contain_text("counted, thank you")
    back = better.get_by_role("button", name="Take back")
    if visitor.by == "mouse":
        await back.click()
    else:
        await back.focus()
        await visitor.page.keyboard.press("Enter")
    await expect(better).to_be_hidden()
    await eventually(lambda: len(site.sink.feedback) == 3)
    ref = AnswerRef(completion_id=site.sink.completions[0].completion_id)
    assert [vote.kind for vote in site.sink.feedback] == [
        Correction(answer=ref, text="Hello, and **welcome**."),
        Correction(answer=ref, text="Welcome."),
        Withdrawal(answer=ref),
    ]
    assert [vote.replaces for vote in site.sink.feedback[1:]] == [e.event_id for e in site.sink.envelopes[1:3]]


async def test_an_answer_is_stopped_and_can_still_be_voted_on(site: Service, visitor: Visitor) -> None:
    site.engine.answers = saying("one", " two", " three")
    await site.engine.hold()
    await visitor.say("?")
    await site.engine.allow(2)
    await expect(visitor.answer).to_contain_text("one two")
    await visitor.do("Stop", "Escape", where=lambda: visitor.page.locator("#composer"))
    await site.engine.aborted.wait()
    await expect(visitor.answer).to_contain_text("stopped")
    await visitor.do("Bad answer", "-")
    await eventually(lambda: site.sink.feedback != [])
    [completion] = site.sink.completions
    assert (completion.answers[0].text, completion.answers[0].finish_reason) == ("one two", "abort")
    assert site.sink.feedback[0].answers() == (AnswerRef(completion_id=completion.completion_id),)


async def test_another_answer_is_a_variant_beside_the_first(site: Service, visitor: Visitor) -> None:
    await visitor.ask("?")
    site.engine.answers = saying("another")
    await visitor.do("Another answer", "r")
    await visitor.answered()
    assert await visitor.texts() == ["?", "another"]
    await visitor.ask("more")
    await visitor.press("k")  # the answer above
    if visitor.by == "keys":
        await visitor.page.keyboard.press("k")
    await visitor.do("Previous variant", "h", where=lambda: visitor.page.locator(".answer").first)
    assert await visitor.texts() == ["?", "hello there"]
    await visitor.do("Next variant", "l")
    assert await visitor.texts() == ["?", "another", "more", "another"]
    assert site.engine.requests[0]["messages"] == site.engine.requests[1]["messages"]


async def test_an_edited_message_is_sent_again_and_the_first_is_kept(site: Service, visitor: Visitor) -> None:
    await visitor.ask("How do I kep bread?")
    site.engine.answers = saying("In a bag.")
    await visitor.do("Edit and send again", "e", where=lambda: visitor.page.locator(".message").first)
    await visitor.fill("Edit and send again", "How do I keep bread?", confirm="Send")
    await visitor.answered()
    assert await visitor.texts() == ["How do I keep bread?", "In a bag."]
    assert len(site.engine.requests[-1]["messages"]) == 1
    await visitor.press("k")
    if visitor.by == "keys":
        await visitor.page.keyboard.press("k")
    await visitor.do("Previous variant", "h", where=lambda: visitor.page.locator(".message").first)
    assert await visitor.texts() == ["How do I kep bread?", "hello there"]


async def test_a_blind_pair(site: Service, visitor: Visitor) -> None:
    """Without names until the vote, which can be changed and taken back; both bad is said of each answer as well."""
    pair = await visitor.ask("?", pair=True)
    await expect(pair).not_to_contain_text("policy-")

    def said() -> list[Pairwise]:
        return [vote.kind for vote in site.sink.feedback if isinstance(vote.kind, Pairwise)]

    for count, (name, key) in enumerate({"Left": "1", "Right": "2", "About the same": "3", "Both bad": "4"}.items()):
        await visitor.do(name, key)
        await eventually(lambda count=count: len(said()) == count + 1)
        await expect(pair.get_by_role("button", name=name)).to_have_attribute("aria-pressed", "true")
        await expect(pair).to_contain_text("counted, thank you")
    await expect(pair.get_by_text("policy-000000")).to_have_count(2)
    await eventually(lambda: len(site.sink.feedback) == 6)
    assert [vote.could_know for vote in site.sink.feedback if isinstance(vote.kind, Pairwise)] == [False, *[True] * 3]
    left, right = shown = site.sink.feedback[0].shown
    assert set(shown) == {AnswerRef(completion_id=completion.completion_id) for completion in site.sink.completions}
    assert said() == [
        Pairwise(chosen=left, rejected=right),
        Pairwise(chosen=right, rejected=left),
        Pairwise(chosen=left, rejected=right, tie=True),
        Pairwise(chosen=left, rejected=right, tie=True),
    ]
    thumbs = [vote.kind for vote in site.sink.feedback if isinstance(vote.kind, Thumb)]
    assert {(thumb.answer, thumb.up) for thumb in thumbs} == {(left, False), (right, False)}
    await visitor.do("Both bad", "4")
    await eventually(lambda: sum(isinstance(vote.kind, Withdrawal) for vote in site.sink.feedback) == 3)
    await expect(pair).to_contain_text("taken back")


async def test_the_chosen_answer_of_a_pair_goes_on(site: Service, visitor: Visitor) -> None:
    await visitor.ask("?")
    site.engine.answers = InTurn("one", "other")
    await visitor.do("Compare two answers", "p")
    pair = await visitor.answered()
    right = await pair.locator(".part .markdown").last.inner_text()
    await visitor.do("Right", "2")
    await eventually(lambda: site.sink.feedback != [])
    await visitor.ask("go on")
    assert site.engine.requests[-1]["messages"][1] == {"role": "assistant", "content": right}


async def test_a_pair_that_is_chosen_from_while_it_is_written_is_written_to_its_end(
    site: Service, visitor: Visitor
) -> None:
    await site.engine.hold()
    await visitor.say("?", pair=True)
    begun = visitor.answer.locator(".part .markdown > *")
    while await begun.count() < 2:
        await site.engine.allow(1)
    await visitor.do("Right", "2")
    await eventually(lambda: site.sink.feedback != [])
    await site.engine.release()
    await visitor.answered()
    await visitor.page.reload()
    await expect(visitor.answer.locator(".part .markdown")).to_have_text(["hello there", "hello there"])


async def test_code_and_answers_are_copied(site: Service, visitor: Visitor) -> None:
    site.engine.answers = saying("Do:\n\n```sh\n", "ls -l\n", "```\n")
    answer = await visitor.ask("?")
    code = answer.locator(".code").get_by_role("button", name="Copy", exact=True)
    if visitor.by == "mouse":
        await code.click()
    else:
        await code.focus()
        await visitor.page.keyboard.press("Enter")
    await expect(code).to_have_class("icon done")
    assert await visitor.page.evaluate("navigator.clipboard.readText()") == "ls -l"
    await visitor.do("Copy the answer", "c")
    await expect(answer.get_by_role("button", name="Copy the answer")).to_have_class("icon done")
    assert await visitor.page.evaluate("navigator.clipboard.readText()") == "Do:\n\n```sh\nls -l\n```\n"


async def test_several_conversations(site: Service, visitor: Visitor) -> None:
    side = visitor.page.get_by_role("navigation")
    await visitor.ask("first")
    await visitor.do("New conversation", "n", where=lambda: side)
    await expect(visitor.page.get_by_role("heading", name="What would you like to know?")).to_be_visible()
    await visitor.ask("second")
    one, two = site.sink.completions
    assert one.conversation_id != two.conversation_id
    await visitor.do("first", "]", where=lambda: side)
    assert await visitor.texts() == ["first", "hello there"]
    await visitor.page.reload()
    assert await visitor.texts() == ["first", "hello there"]
    gone = side.get_by_role("button", name="Remove “first” from this browser")
    if visitor.by == "mouse":
        await side.get_by_text("first").hover()
        await gone.click()
    else:
        await gone.focus()
        await visitor.page.keyboard.press("Enter")
    await expect(side.get_by_role("listitem")).to_have_count(1)
    await visitor.page.get_by_role("button", name="Undo").press("Enter")
    assert await visitor.texts() == ["first", "hello there"]
    await expect(side.get_by_role("listitem")).to_have_count(2)


async def test_the_sheet_of_keys(site: Service, visitor: Visitor) -> None:
    await visitor.do("Keyboard", "?", where=lambda: visitor.page.get_by_role("navigation"))
    sheet = visitor.page.get_by_role("dialog", name="Keyboard")
    await expect(sheet).to_contain_text("Write it better")
    if visitor.by == "mouse":
        await sheet.get_by_role("button", name="Close").click()
    else:
        await visitor.page.keyboard.press("Escape")
    await expect(sheet).to_be_hidden()


async def test_letters_are_no_shortcuts_where_somebody_writes_or_does_not_want_them(
    site: Service, visitor: Visitor
) -> None:
    await visitor.ask("?")
    await visitor.page.get_by_role("textbox", name="Your message").focus()
    await visitor.page.keyboard.type("+-rn")
    await expect(visitor.page.get_by_role("textbox", name="Your message")).to_have_value("+-rn")
    await visitor.press("?")
    await visitor.page.get_by_role("checkbox").uncheck()
    await visitor.page.keyboard.press("Escape")
    await visitor.press("r")
    await visitor.page.reload()
    await visitor.press("+")
    assert await visitor.texts() == ["?", "hello there"]
    assert len(site.engine.requests) == 1
    assert site.sink.feedback == []
