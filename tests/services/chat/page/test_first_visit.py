"""Somebody who has never been here chats and votes at once: nothing to read, to close or to choose first.

How long that takes: `make bench BENCH=first_visit`.
"""

from urllib.parse import urlsplit

import pytest
from playwright.async_api import Request

from rlhf_online.events import Thumb
from tests.services.chat.page.conftest import Visit
from tests.support.chat_service import Service
from tests.support.first_visit import chat_and_vote

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_an_empty_browser_chats_and_votes_in_three_steps(site: Service, visitors: Visit) -> None:
    visitor = await visitors("about:blank", ready=False)
    page, asked = visitor.page, list[str]()

    def sent(request: Request) -> None:
        address = urlsplit(request.url)
        assert address.netloc == urlsplit(site.url).netloc, "nothing comes from elsewhere"
        if not address.path.startswith("/page/"):
            asked.append(f"{request.method} {address.path}")

    page.on("request", sent)
    await chat_and_vote(page, site.url)
    [completion], [vote] = site.sink.completions, site.sink.feedback
    assert vote.kind == Thumb(answer=vote.answers()[0], up=True)
    assert vote.answers()[0].completion_id == completion.completion_id
    assert completion.messages[-1].content == "What is a gate?" and vote.person == completion.person != ""
    assert asked[0] == "GET /" and len(asked) <= 6, "few, so that they are soon answered"
    assert [one for one in asked if one.startswith("POST")] == ["POST /v1/chat/completions", "POST /v1/feedback"]
    assert await page.locator("dialog[open]").count() == 0
