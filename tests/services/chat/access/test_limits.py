"""What keys and people may ask, on a clock that the tests move, and as clients of both transports are told."""

import asyncio
import re
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import orjson
import pytest
from multidict import CIMultiDictProxy
from prometheus_client import CollectorRegistry

from rlhf_online import process
from rlhf_online.config import LimitSettings, Quota
from rlhf_online.metrics import ChatMetrics
from rlhf_online.proto.rlhf.v1 import chat_pb2, chat_pb2_grpc, events_pb2
from services.chat.access import limits
from services.chat.access.caller import Caller
from services.chat.access.limits import Limits, RateLimited, Visit, duration
from tests.support.chat_service import ASK, Service, running
from tests.support.waiting import eventually

ANN, BOB = (Caller(roles=frozenset({"chat"}), key_id="k", person=person) for person in ("ann", "bob"))
NOBODY = Caller(roles=frozenset({"chat"}), key_id="k")
OPERATOR = Caller(roles=frozenset({"operator"}), key_id="k", person="ann")
FREE = Quota()
PROMPT_AND_ANSWER = 6


@dataclass
class Clock:
    now: float = 1e6

    def __call__(self) -> float:
        return self.now


class Door:
    """Limits whose clock is moved by hand."""

    def __init__(self, *, key: Quota = FREE, person: Quota = FREE) -> None:
        self.clock = Clock()
        self.registry = CollectorRegistry()
        settings = LimitSettings.model_construct(key=key, person=person)
        self.limits = Limits(settings, ChatMetrics(self.registry).access.limited, self.clock)

    def chats(self, caller: Caller, times: int) -> list[Visit]:
        return [self.limits.chat(caller) for _ in range(times)]

    def refuses(self, caller: Caller) -> RateLimited:
        with pytest.raises(RateLimited) as refused:
            self.limits.chat(caller)
        return refused.value

    def refuses_vote(self, caller: Caller) -> RateLimited:
        with pytest.raises(RateLimited) as refused:
            self.limits.feedback(caller)
        return refused.value

    def refused(self, whose: str, limit: str) -> float:
        return self.registry.get_sample_value("rlhf_chat_limited_total", {"whose": whose, "limit": limit}) or 0


def test_a_budget_of_requests_fills_evenly() -> None:
    door = Door(person=Quota(requests_per_minute=6))
    door.chats(ANN, 6)
    refused = door.refuses(ANN)
    assert (refused.status, refused.code) == (429, "rate_limit_exceeded")
    assert refused.headers()["Retry-After"] == "10"
    assert "this person may have 6 requests a minute" in str(refused)
    door.chats(BOB, 6)
    door.clock.now += 9.9
    door.refuses(ANN)
    door.clock.now += 0.1
    door.chats(ANN, 1)
    assert door.refuses(ANN).headers()["Retry-After"] == "10"
    door.clock.now += 3600
    door.chats(ANN, 6)
    assert door.refuses(ANN).retry_after_s == 10, "no more than a minute's worth gathers"
    assert door.refused("person", "requests") == 4


def test_a_key_is_limited_whoever_uses_it() -> None:
    door = Door(key=Quota(requests_per_minute=3), person=Quota(requests_per_minute=2))
    door.chats(ANN, 2)
    door.refuses(ANN)
    door.chats(BOB, 1)
    assert "this key" in str(door.refuses(BOB)), "of which ann's refusal took nothing"
    assert (door.refused("person", "requests"), door.refused("key", "requests")) == (1, 1)
    other = Caller(roles=ANN.roles, key_id="another", person="bob")
    door.chats(other, 1)
    door.refuses(other)


def test_nobody_is_bounded_by_the_key_alone() -> None:
    door = Door(key=Quota(requests_per_minute=5, votes_per_hour=1), person=Quota(requests_per_minute=2))
    door.chats(NOBODY, 5)
    door.refuses(NOBODY)
    door.limits.feedback(NOBODY)
    door.refuses_vote(NOBODY)


def test_requests_at_once_are_bounded_until_they_end() -> None:
    door = Door(person=Quota(concurrent=2))
    first, second = door.chats(ANN, 2)
    refused = door.refuses(ANN)
    assert "this person has 2 chat requests in progress" in str(refused)
    assert refused.retry_after_s == 1
    door.chats(BOB, 2)
    first.leave(0)
    first.leave(0)
    third = door.limits.chat(ANN)
    door.refuses(ANN)
    for visit in (second, third):
        visit.leave(0)
    door.chats(ANN, 2)
    assert door.refused("person", "concurrent") == 2


def test_tokens_are_paid_for_when_they_were_written() -> None:
    door = Door(key=Quota(tokens_per_day=10_000), person=Quota(tokens_per_day=100))
    first, second = door.chats(ANN, 2)
    assert first.headers == {
        "x-ratelimit-limit-tokens": "100",
        "x-ratelimit-remaining-tokens": "100",
        "x-ratelimit-reset-tokens": "0s",
    }
    first.leave(90)
    second.leave(30)
    refused = door.refuses(ANN)
    assert refused.headers()["x-ratelimit-remaining-tokens"] == "0"
    assert refused.headers()["Retry-After"] == str(21 * 864), "what was overdrawn, and one to begin with"
    assert refused.headers()["x-ratelimit-reset-tokens"] == "28h48m0s"
    assert door.limits.chat(NOBODY).headers["x-ratelimit-remaining-tokens"] == "9880", "the key has paid, too"
    door.clock.now += 21 * 864
    door.chats(ANN, 1)


def test_headers_tell_of_who_has_least_left() -> None:
    door = Door(key=Quota(requests_per_minute=4), person=Quota(requests_per_minute=3))
    assert door.limits.chat(ANN).headers["x-ratelimit-remaining-requests"] == "2"
    assert door.limits.chat(ANN).headers["x-ratelimit-limit-requests"] == "3"
    door.chats(BOB, 1)
    assert door.limits.chat(BOB).headers == {
        "x-ratelimit-limit-requests": "4",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "1m0s",
    }


def test_votes_have_a_budget_of_their_own() -> None:
    door = Door(person=Quota(requests_per_minute=1, concurrent=1, tokens_per_day=1, votes_per_hour=4))
    door.limits.chat(ANN).leave(1_000)
    door.refuses(ANN)
    for _ in range(4):
        door.limits.feedback(ANN)
    refused = door.refuses_vote(ANN)
    assert refused.retry_after_s == 900 and "4 votes an hour" in str(refused)
    assert door.refused("person", "votes") == 1


def test_the_operator_has_no_limit() -> None:
    one = Quota(requests_per_minute=1, concurrent=1, tokens_per_day=1, votes_per_hour=1)
    door = Door(key=one, person=one)
    for visit in door.chats(OPERATOR, 9):
        assert visit.headers == {}
        visit.leave(100)
    for _ in range(9):
        door.limits.feedback(OPERATOR)
    door.chats(ANN, 1)


def test_without_limits_nothing_is_refused_or_told() -> None:
    door = Door()
    assert all(visit.headers == {} for visit in door.chats(ANN, 1000))
    door.limits.feedback(ANN)


def test_a_million_names_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MOST", 100)
    door = Door(key=Quota(requests_per_minute=10_000), person=Quota(requests_per_minute=1))
    door.chats(ANN, 1)
    for number in range(99):
        door.limits.chat(Caller(roles=ANN.roles, key_id="k", person=f"p{number}"))
    door.refuses(ANN)
    for number in range(99, 5_000):
        door.limits.chat(Caller(roles=ANN.roles, key_id="k", person=f"p{number}"))
    assert len(door.limits.people) == 100
    assert door.limits.chat(NOBODY).headers["x-ratelimit-remaining-requests"] == "4998", "the key counts them all"


@pytest.mark.parametrize(
    ("seconds", "written"),
    [(0, "0s"), (0.012, "12ms"), (1, "1s"), (1.5, "1.5s"), (360, "6m0s"), (3605, "1h0m5s"), (59.9999, "1m0s")],
)
def test_durations_are_written_as_openai_does(seconds: float, written: str) -> None:
    assert duration(seconds) == written


# Over both transports

ASK_GRPC = chat_pb2.CompleteRequest(messages=[events_pb2.Message(role="user", content="hi")], user="ann")


async def test_clients_are_told_their_limits_as_openai_tells_them(tmp_path: Path) -> None:
    async with limited(tmp_path, requests_per_minute=2, tokens_per_day=1000) as service:
        for stream in (False, True):
            status, headers, _ = await ask(service, user="ann", stream=stream)
            assert status == 200
            assert headers["x-ratelimit-limit-requests"] == "2"
            assert headers["x-ratelimit-remaining-requests"] == str(1 - stream)
            assert headers["x-ratelimit-limit-tokens"] == "1000"
        assert headers["x-ratelimit-remaining-tokens"] == str(1000 - PROMPT_AND_ANSWER)
        assert re.fullmatch(r"(59|1m0)(\.\d+)?s", headers["x-ratelimit-reset-requests"])
        status, headers, reply = await ask(service, user="ann")
        assert (status, headers["Retry-After"], headers["x-ratelimit-remaining-requests"]) == (429, "30", "0")
        assert reply["error"]["type"] == "rate_limit_error"
        assert reply["error"]["code"] == "rate_limit_exceeded"
        assert (await ask(service, user="bob"))[0] == 200
        assert (await ask(service))[0] == 200, "nobody in particular"
        assert await service.metric('rlhf_chat_limited_total{limit="requests",whose="person"}') == 1


async def test_both_transports_share_the_budgets(tmp_path: Path) -> None:
    async with limited(tmp_path, requests_per_minute=2) as service, grpc.aio.insecure_channel(service.grpc) as channel:
        stub = chat_pb2_grpc.ChatServiceStub(channel)
        call = stub.Complete(ASK_GRPC)
        await call
        assert dict(await call.trailing_metadata())["x-ratelimit-remaining-requests"] == "1"
        stream = stub.StreamComplete(chat_pb2.StreamCompleteRequest(request=ASK_GRPC))
        assert [piece async for piece in stream]
        assert dict(await stream.trailing_metadata())["x-ratelimit-remaining-requests"] == "0"
        assert (await ask(service, user="ann"))[0] == 429
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Complete(ASK_GRPC)
        assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        told = dict(refused.value.trailing_metadata() or ())
        assert (told["error-code"], told["retry-after"]) == ("rate_limit_exceeded", "30")
        assert told["grpc-retry-pushback-ms"] == "30000"


async def test_a_request_that_was_refused_otherwise_costs_nothing(tmp_path: Path) -> None:
    async with limited(tmp_path, requests_per_minute=1) as service:
        assert (await ask(service, user="ann", n=0))[0] == 400
        assert (await ask(service, user="ann", model="gpt-4"))[0] == 404
        service.host.state = "starting"
        assert (await ask(service, user="ann"))[0] == 503
        service.host.state = "ready"
        assert (await ask(service, user="ann"))[0] == 200


async def test_an_answer_that_its_client_left_makes_room(tmp_path: Path) -> None:
    async with limited(tmp_path, concurrent=1) as service:
        await service.engine.hold()
        first = asyncio.create_task(ask(service, user="ann"))
        await eventually(lambda: service.engine.requests)
        assert (await ask(service, user="ann"))[0] == 429
        first.cancel()
        await service.engine.aborted.wait()
        await service.engine.release()
        assert (await ask(service, user="ann"))[0] == 200


async def test_votes_are_taken_while_chat_is_refused_and_bounded_by_themselves(tmp_path: Path) -> None:
    async with limited(tmp_path, requests_per_minute=1, votes_per_hour=2) as service:
        assert (await ask(service, user="ann"))[0] == 200
        assert (await ask(service, user="ann"))[0] == 429
        votes = [await service.post("/v1/feedback", vote("ann", number)) for number in range(3)]
        assert [status for status, _ in votes] == [200, 200, 429]
        assert votes[2][1]["error"]["code"] == "rate_limit_exceeded"
        assert len(service.sink.feedback) == 2
        assert await service.metric('rlhf_feedback_total{kind="thumb",outcome="busy"}') == 1
        assert (await service.post("/v1/feedback", vote("bob", 0)))[0] == 200


async def test_a_vote_that_is_sent_again_is_paid_for_once(tmp_path: Path) -> None:
    async with limited(tmp_path, votes_per_hour=1) as service:
        sent = vote("ann", 0) | {"idempotency_key": "once"}
        assert [(await service.post("/v1/feedback", sent))[0] for _ in range(3)] == [200, 200, 200]
        assert (await service.post("/v1/feedback", vote("ann", 1)))[0] == 429


async def test_chat_leaves_connections_for_votes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "connection_budget", lambda open_files, kinds: 8)
    async with running(tmp_path) as service:
        await service.engine.hold()
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            service.session, own = session, service.session
            asking = [asyncio.create_task(ask(service)) for _ in range(7)]
            await eventually(lambda: len(service.engine.requests) == 7)
            assert (await ask(service))[0] == 429
            assert (await service.post("/v1/feedback", vote("ann", 0)))[0] == 200
            await service.engine.release()
            assert [status for status, _, _ in await asyncio.gather(*asking)] == [200] * 7
            service.session = own


def limited(folder: Path, **person: int) -> AbstractAsyncContextManager[Service]:
    """A service that allows each person so much."""
    return running(folder, limits={"person": person})


async def ask(service: Service, **fields: Any) -> tuple[int, CIMultiDictProxy[str], dict[str, Any]]:
    body = orjson.dumps({**ASK, **fields})
    async with service.session.post(service.url + "/v1/chat/completions", data=body) as response:
        content = await response.read()
        return response.status, response.headers, {} if fields.get("stream") else orjson.loads(content)


def vote(person: str, number: int) -> dict[str, Any]:
    return {"thumb": {"answer": {"completion_id": f"c-{number}"}, "up": True}, "user": person}
