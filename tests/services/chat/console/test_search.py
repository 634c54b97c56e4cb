"""Operators find words in people's conversations, and nobody else does."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from rlhf_online.eventlog.local import LocalLog
from services.chat.console import search
from tests.support.chat_service import Service, running


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    log = LocalLog(tmp_path / "state" / "log")
    async with running(tmp_path, log=log) as made:
        yield made
    await asyncio.to_thread(log.close)


async def look(service: Service, path: str, **query: str) -> tuple[int, dict[str, Any]]:
    headers = {"Authorization": f"Bearer {service.state.operator_token()}"}
    async with service.session.get(service.url + path, params=query, headers=headers) as response:
        return response.status, orjson.loads(await response.read())


async def ask(service: Service, text: str, user: str = "ann", conversation: str = "", *before: str) -> str:
    messages = [{"role": role, "content": said} for role, said in zip(("user", "assistant"), before, strict=False)]
    messages.append({"role": "user", "content": text})
    named = {"conversation_id": conversation} if conversation else {}
    status, answer = await service.post("/v1/chat/completions", {"messages": messages, "user": user, **named})
    assert status == 200
    return answer["id"]


async def found(service: Service, query: str, **more: str) -> list[str]:
    status, answer = await look(service, "/v1/console/conversations", query=query, **more)
    assert status == 200
    return [one["completion_id"] for one in answer["found"]]


async def test_words_are_found_in_whosesoever_conversations_the_newest_first(service: Service) -> None:
    ann, bea = await ask(service, "How do SWALLOWS fly?"), await ask(service, "why swallows", "bea")
    await ask(service, "something else")
    assert await found(service, "Swallows") == [bea, ann]
    assert await found(service, "100%_") == [], "no pattern, but words"
    status, answer = await look(service, "/v1/console/conversations", query="do swallows")
    [one] = answer["found"]
    assert (status, answer["next"], one["snippet"]) == (200, "", "How do SWALLOWS fly?")
    assert one["person"] == service.state.person_hash()("ann"), "a name is not told"
    status, read = await look(service, f"/v1/console/conversations/{one['person']}/{one['conversation_id']}")
    assert (status, read["exchanges"][0]["completion_id"]) == (200, ann)


async def test_what_was_said_before_is_found_where_it_was_said(service: Service) -> None:
    first = await ask(service, "swallows", "ann", "talk")
    await ask(service, "go on", "ann", "talk", "swallows", "they fly")
    assert await found(service, "swallows") == [first]


async def test_a_request_reads_a_bounded_part_and_says_where_to_go_on(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [await ask(service, f"swallows {number}") for number in range(5)]
    monkeypatch.setattr(search, "SEARCHED", 2)
    monkeypatch.setattr(search, "BATCH", 2)
    pages, after = [], ""
    while True:
        _, answer = await look(service, "/v1/console/conversations", query="swallows", after=after)
        pages.append([one["completion_id"] for one in answer["found"]])
        if not (after := answer["next"]):
            break
    assert [len(page) for page in pages] == [2, 2, 1] and [name for page in pages for name in page] == asked[::-1]
    assert await found(service, "swallows", limit="1") == asked[-1:]


async def test_what_is_erased_is_not_found(service: Service) -> None:
    await ask(service, "swallows", "ann", "talk")
    async with service.session.delete(service.url + "/v1/conversations/talk?user=ann") as response:
        assert response.status == 200
    assert await found(service, "swallows") == []
    person = service.state.person_hash()("ann")
    assert (await look(service, f"/v1/console/conversations/{person}/talk"))[0] == 404
    assert (await look(service, f"/v1/console/conversations/{person}/talk", after="x"))[0] == 404


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({}, "query"),
        ({"query": "  "}, "query"),
        ({"query": "a", "after": "x"}, "after"),
        ({"query": "a", "limit": "0"}, "limit"),
        ({"query": "a" * 201}, "query"),
    ],
)
async def test_a_search_that_cannot_be_made_names_the_field(
    service: Service, query: dict[str, str], param: str
) -> None:
    status, refusal = await look(service, "/v1/console/conversations", **query)
    assert (status, refusal["error"]["param"]) == (400, param)
