"""Which version wrote which token, for answers in flight while the weights change."""

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest

from rlhf_online.events import VersionSpan
from services.chat.access.caller import Caller
from services.chat.completions import upstream
from services.chat.completions.chat_request import parse_chat
from services.chat.completions.in_flight import Choice
from services.chat.completions.responses import provenance
from tests.support.chat_service import ASK, Service, running
from tests.support.events import events
from tests.support.fake_generation import Same
from tests.support.waiting import eventually

OLD, NEW, NEWER = "policy-000000", "policy-000001", "policy-000002"


def spans(*pairs: tuple[str, int]) -> tuple[VersionSpan, ...]:
    return tuple(VersionSpan(policy_version=version, first_token=token) for version, token in pairs)


async def stream(service: Service, **fields: Any) -> dict[str, Any]:
    """The last event of a streamed answer."""
    body = orjson.dumps({**ASK, "stream": True, **fields})
    async with service.session.post(service.url + "/v1/chat/completions", data=body) as response:
        return events(await response.read())[-1]


async def begun(service: Service, tokens: int, **fields: Any) -> "asyncio.Task[dict[str, Any]]":
    """A stream of which exactly `tokens` tokens have been written by the engine (not necessarily read yet)."""
    await service.engine.hold()
    task = asyncio.create_task(stream(service, **fields))
    if tokens:
        await service.engine.allow(tokens)
    else:
        await service.engine.asked.wait()
    return task


async def test_an_answer_across_a_swap_is_split_at_the_token(service: Service) -> None:
    service.engine.answers = Same([(20 + i, f" {i}") for i in range(10)])
    task = await begun(service, 4)
    await service.host.swap(NEW)
    await service.engine.release()
    last = await task
    (answer,) = service.sink.completions[0].answers
    assert answer.logprobs == (-1.0,) * 4 + (-2.0,) * 6
    assert answer.spans == spans((OLD, 0), (NEW, 4))
    assert last["system_fingerprint"] == NEW
    assert last["rlhf"]["versions"] == [
        [{"policy_version": OLD, "first_token": 0}, {"policy_version": NEW, "first_token": 4}]
    ]


async def test_each_of_several_answers_has_its_own_boundary(service: Service) -> None:
    service.engine.answers = Same([(20 + i, f" {i}") for i in range(4)])
    task = await begun(service, 5, n=2)  # written in turn: three of the first, two of the second
    await service.host.swap(NEW)
    await service.engine.release()
    await task
    answers = service.sink.completions[0].answers
    assert [answer.spans for answer in answers] == [spans((OLD, 0), (NEW, 3)), spans((OLD, 0), (NEW, 2))]
    assert [answer.logprobs.count(-1.0) for answer in answers] == [3, 2]


async def test_two_swaps_in_one_answer(service: Service) -> None:
    service.engine.answers = Same([(20 + i, f" {i}") for i in range(6)])
    task = await begun(service, 1)
    await service.host.swap(NEW)
    await service.engine.allow(2)
    await service.host.swap(NEWER)
    await service.engine.release()
    await task
    (answer,) = service.sink.completions[0].answers
    assert answer.logprobs == (-1.0, -2.0, -2.0, -3.0, -3.0, -3.0)
    assert answer.spans == spans((OLD, 0), (NEW, 1), (NEWER, 3))


async def test_two_swaps_without_a_token_between(service: Service) -> None:
    task = await begun(service, 1)
    await service.host.swap(NEW)
    await service.host.swap(NEWER)
    await service.engine.release()
    await task
    assert service.sink.completions[0].answers[0].spans == spans((OLD, 0), (NEWER, 1))


async def test_an_answer_not_begun_belongs_to_the_new_version_alone(service: Service) -> None:
    task = await begun(service, 0)
    await service.host.swap(NEW)
    await service.engine.release()
    await task
    assert service.sink.completions[0].answers[0].spans == spans((NEW, 0))


@pytest.mark.parametrize("ok", [True, False])
async def test_a_request_that_arrives_while_paused(service: Service, ok: bool) -> None:
    """It belongs to whichever version is resumed."""
    tasks = []

    async def arrive() -> None:
        tasks.append(asyncio.create_task(stream(service)))
        await service.engine.asked.wait()

    service.host.while_paused = arrive
    await service.host.swap(NEW, ok=ok)
    await tasks[0]
    assert service.sink.completions[0].answers[0].spans == spans((NEW if ok else OLD, 0))


async def test_an_undone_swap_leaves_no_span(service: Service) -> None:
    service.engine.answers = Same([(20 + i, f" {i}") for i in range(6)])
    task = await begun(service, 2)
    await service.host.swap(NEW, ok=False)
    await service.engine.allow(1)
    await service.host.swap(NEWER)
    await service.engine.release()
    await task
    (answer,) = service.sink.completions[0].answers
    assert answer.spans == spans((OLD, 0), (NEWER, 3))
    assert answer.logprobs.count(-1.0) == 3


async def test_requests_after_an_undone_swap_belong_to_the_old_version(service: Service) -> None:
    await service.host.swap(NEW, ok=False)
    await stream(service)
    assert service.sink.completions[0].answers[0].spans == spans((OLD, 0))


async def test_a_whole_answer_across_a_swap_is_split_as_exactly(service: Service) -> None:
    service.engine.answers = Same([(20 + i, f" {i}") for i in range(10)])
    await service.engine.hold()
    task = asyncio.create_task(service.ask())
    await service.engine.allow(3)
    await service.host.swap(NEW)
    await service.engine.release()
    _, reply = await task
    assert [span["first_token"] for span in reply["rlhf"]["versions"][0]] == [0, 3]
    assert service.sink.completions[0].answers[0].spans == spans((OLD, 0), (NEW, 3))


async def test_a_client_that_reads_too_slowly_makes_the_boundary_unknown(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it leaves unread fills its room, so tokens may lie in the engine's socket: the log says unknown."""
    monkeypatch.setattr(upstream, "UNREAD_BYTES", 0)
    chat = service.chat
    asked = parse_chat({**ASK, "stream": True}, chat.settings.limits, chat.settings.engine)
    await service.engine.hold()
    opening = asyncio.create_task(chat.gateway.open(asked, Caller(roles=frozenset())))
    await service.engine.allow(1)
    generation = await opening
    await service.host.swap(NEW)
    await service.engine.release()
    read = [chunk async for arrived in chat.gateway.read(generation) for chunk in arrived]
    await chat.gateway.settle(generation)
    chat.gateway.end(generation)
    assert "".join(chunk["choices"][0]["delta"]["content"] for chunk in read if chunk["choices"]) == "hello there"
    (answer,) = service.sink.completions[0].answers
    assert answer.spans == ()
    assert len(answer.token_ids) == len(answer.logprobs) == 3
    assert provenance(generation)["versions"] == [
        [{"policy_version": OLD, "first_token": 0}, {"policy_version": NEW, "first_token": None}]
    ]
    assert await service.metric("rlhf_chat_uncertain_answers_total") == 1


async def test_adapters_have_no_boundary(tmp_path: Path) -> None:
    """With LoRA a request names its adapter and keeps it to the end."""
    async with running(tmp_path, engine={"tuning": "lora"}) as service:
        service.host.model_name = OLD
        task = await begun(service, 1)
        service.host.serving = service.host.model_name = NEW
        await service.engine.release()
        await task
        await stream(service)
        first, second = service.sink.completions
        assert first.answers[0].spans == spans((OLD, 0))
        assert second.answers[0].spans == spans((NEW, 0))
        assert [request["model"] for request in service.engine.requests] == [OLD, NEW]


@pytest.mark.parametrize("ok", [True, False])
async def test_an_adapter_that_failed_and_is_replaced_has_one_and_no_other_has(tmp_path: Path, ok: bool) -> None:
    async with running(tmp_path, engine={"tuning": "lora"}) as service:
        service.engine.answers = Same([(20 + i, f" {i}") for i in range(6)])
        service.host.serving = service.host.model_name = NEW
        service.host.adapters = (OLD,)
        await service.engine.hold()
        tasks = [asyncio.create_task(stream(service, **fields)) for fields in ({"model": OLD}, {})]
        await eventually(lambda: len(service.engine.requests) == 2)
        await service.engine.allow(4)
        await eventually(lambda: all(each.tokens for each in service.chat.gateway.flight.generations))
        service.host.adapters = ()
        service.host.serving = service.host.model_name = OLD  # the roll-back: from now on OLD writes
        await service.engine.pause()
        for listener in service.host.on_pause:
            await listener(NEW, OLD)
        if not ok:
            for listener in service.host.on_restore:
                await listener(NEW, OLD)
        await service.engine.resume()
        await service.engine.release()
        await asyncio.gather(*tasks)
        await stream(service)
        found = {
            (completion.answers[0].spans, len(completion.answers[0].token_ids))
            for completion in service.sink.completions
        }
        across = next(span for span, _ in found if span[0].policy_version == NEW)
        assert len(found) == 2 and (spans((OLD, 0)), 6) in found, "what another adapter writes is left alone"
        assert across == (spans((NEW, 0), (OLD, across[-1].first_token)) if ok else spans((NEW, 0)))
        assert not ok or 0 < across[-1].first_token < 6
        assert [request["model"] for request in service.engine.requests] == [OLD, NEW, OLD]


def test_a_switch_that_is_undone_leaves_the_spans_exact() -> None:
    choice = Choice(index=0, spans=spans((OLD, 0)), token_ids=[1, 2])
    choice.switch_version(NEW, exact=False)
    assert (choice.spans, choice.spans_exact) == (spans((OLD, 0), (NEW, 2)), False)
    choice.undo_switch(OLD)
    assert (choice.spans, choice.spans_exact) == (spans((OLD, 0)), True)
