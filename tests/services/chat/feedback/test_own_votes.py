"""Looking up, changing and taking back one's own votes, over HTTP and gRPC, from a real log."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportGeneralTypeIssues=false
# (the generated stubs are typed for synchronous channels)

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from rlhf_online.eventlog.local import LocalLog
from rlhf_online.eventlog.retention import Retention, remove_expired
from rlhf_online.eventlog.tail import LocalReader
from rlhf_online.events import AnswerRef, Completion, Envelope, Erasure, Event, Feedback, Thumb, Withdrawal
from rlhf_online.proto.rlhf.v1 import feedback_pb2, feedback_pb2_grpc
from rlhf_online.wire import encode
from services.chat.feedback.history import FILE, VoteHistory
from tests.support.chat_service import Service, running
from tests.support.logged import completion

NOBODYS = "5f0c4b8e-3d0a-5b52-9c9e-1a2b3c4d5e6f"


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    with LocalLog(tmp_path / "state" / "log") as log:
        async with running(tmp_path, log=log) as service:
            yield service


def thumb(completion_id: str, *, up: bool = True, **fields: Any) -> dict[str, Any]:
    return {"thumb": {"answer": {"completion_id": completion_id}, "up": up}, "user": "ann", **fields}


async def vote(service: Service, completion_id: str, **fields: Any) -> str:
    status, reply = await service.post("/v1/feedback", thumb(completion_id, **fields))
    assert status == 200, reply
    return reply["event_id"]


async def asked(service: Service, method: str, path: str, **body: Any) -> tuple[int, dict[str, Any]]:
    async with service.session.request(method, service.url + path, json=body or None) as response:
        return response.status, await response.json()


async def test_a_vote_is_changed_by_put_and_taken_back_by_delete(service: Service) -> None:
    first = await vote(service, "a")
    status, reply = await asked(service, "PUT", f"/v1/feedback/{first}", **thumb("a", up=False))
    assert status == 200
    second = reply["event_id"]
    for _ in range(2):  # sent again it is the same
        status, reply = await asked(service, "DELETE", f"/v1/feedback/{second}?user=ann")
        assert status == 200
    up, down, back, again = service.logged(Feedback)
    assert (down.kind.up, down.replaces) == (False, first) and isinstance(up.kind, Thumb)
    assert isinstance(back.kind, Withdrawal) and (back.replaces, back.kind) == (second, again.kind)
    _, seen = await asked(service, "GET", "/v1/feedback?user=ann")
    assert [(item["event_id"], item["replaced_by"]) for item in seen["data"]] == [
        (reply["event_id"], ""),
        (second, reply["event_id"]),
        (first, second),
    ]


async def test_somebody_elses_vote_is_as_good_as_none(service: Service) -> None:
    anns = await vote(service, "a")
    for event_id in (anns, NOBODYS, "x"):
        for method, body in (("GET", {}), ("DELETE", {}), ("PUT", thumb("a", user="bob"))):
            path = f"/v1/feedback/{event_id}" + ("" if body else "?user=bob")
            status, reply = await asked(service, method, path, **body)
            assert (status, reply["error"]["code"]) == (404, "feedback_not_found")
            assert "Ann" not in reply["error"]["message"]
    assert (await asked(service, "GET", "/v1/feedback?user=bob"))[1] == {"data": [], "has_more": False}
    assert len(service.logged(Feedback)) == 1


async def test_a_history_is_told_in_pages_and_by_conversation(service: Service, tmp_path: Path) -> None:
    """Also by the conversation that only the answer's own record names."""
    status, answer = await service.ask(conversation_id="talk")
    assert status == 200
    votes = [
        await vote(service, answer["id"], reasons=["unclear"], reason="why"),
        await vote(service, "b", conversation_id="talk"),
        await vote(service, "c"),
    ]
    await vote(service, "c", user="bob")

    async def listed(query: str) -> list[str]:
        status, reply = await asked(service, "GET", f"/v1/feedback?user=ann&{query}")
        assert status == 200, reply
        return [item["event_id"] for item in reply["data"]]

    assert await listed("") == votes[::-1]
    assert await listed("conversation_id=talk") == [votes[1], votes[0]]
    assert await listed("completion_id=c") == [votes[2]]
    assert await listed("limit=2") == votes[:0:-1] and await listed(f"limit=2&after={votes[1]}") == [votes[0]]
    _, page = await asked(service, "GET", "/v1/feedback?user=ann&limit=1&conversation_id=talk&after=" + votes[1])
    [item] = page["data"]
    assert page["has_more"] is False
    assert (item["thumb"]["up"], item["reasons"], item["reason"]) == (True, ["unclear"], "why")
    assert "person" not in item


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("", "user"),
        ("user=ann&limit=0", "limit"),
        ("user=ann&limit=101", "limit"),
        ("user=ann&limit=many", "limit"),
        ("user=ann&after=x", "after"),
        ("user=ann&cursor=x", "cursor"),
    ],
)
async def test_a_bad_question_names_the_field(service: Service, query: str, param: str) -> None:
    status, reply = await asked(service, "GET", f"/v1/feedback?{query}")
    assert (status, reply["error"]["param"]) == (400, param)


async def test_grpc_says_the_same(service: Service) -> None:
    event_id = await vote(service, "a", reasons=["unsafe"])
    async with grpc.aio.insecure_channel(service.grpc) as channel:
        stub = feedback_pb2_grpc.FeedbackServiceStub(channel)
        whose = {"event_id": event_id, "user": "ann"}
        told = await stub.GetFeedback(feedback_pb2.GetFeedbackRequest(**whose))
        _, over_http = await asked(service, "GET", f"/v1/feedback/{event_id}?user=ann")
        assert {name: getattr(told, name) for name in over_http} == over_http
        assert (told.state, told.accepted_ms) == ("accepted", service.logged(Feedback)[0].created_ms)
        listed = await stub.ListFeedback(feedback_pb2.ListFeedbackRequest(user="ann"))
        assert [item.event_id for item in listed.data] == [event_id]
        assert (listed.data[0].feedback.reasons, listed.data[0].feedback.person) == (["unsafe"], "")
        back = await stub.WithdrawFeedback(feedback_pb2.WithdrawFeedbackRequest(**whose))
        assert (await asked(service, "DELETE", f"/v1/feedback/{event_id}?user=ann"))[1]["event_id"] == back.event_id
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.GetFeedback(feedback_pb2.GetFeedbackRequest(event_id=event_id, user="bob"))
        assert refused.value.code() == grpc.StatusCode.NOT_FOUND


# The index


def feedback(number: int) -> Envelope:
    kind = Thumb(answer=AnswerRef(completion_id=f"answer-{number}"), up=True)
    vote = Feedback(conversation_id="c", person="p", kind=kind, created_ms=number)
    return Envelope(event_id=f"vote-{number}", event=vote)


def ids(votes: VoteHistory) -> list[str]:
    return [recorded.event_id for recorded in votes.page("p", limit=100)]


def test_an_index_of_an_earlier_release_is_made_anew(tmp_path: Path) -> None:
    with LocalLog(tmp_path) as log:
        log.append(encode(feedback(0))).result(30)
        with closing(sqlite3.connect(tmp_path / FILE)) as database, database:
            database.execute("CREATE TABLE progress (log TEXT, number INTEGER)")
            database.execute("INSERT INTO progress VALUES (?, 1)", (LocalReader(tmp_path).identity(),))
        votes = VoteHistory(tmp_path)
        assert ids(votes) == ["vote-0"]
        votes.close()


def test_what_its_person_erased_goes_from_the_index_too(tmp_path: Path) -> None:
    """The votes on answers of the conversation, and those that name it, of that person."""
    conversation = "conv"
    with LocalLog(tmp_path) as log:

        def append(event_id: str, event: Event) -> None:
            log.append(encode(Envelope(event_id=event_id, event=event))).result(30)

        answer = completion("answer-0").event
        assert isinstance(answer, Completion)
        append("answer-0", replace(answer, conversation_id=conversation))
        for number in range(2):
            log.append(encode(feedback(number))).result(30)
        named = feedback(2).event
        assert isinstance(named, Feedback)
        append("vote-2", replace(named, conversation_id=conversation))
        append("vote-q", replace(named, conversation_id=conversation, person="q"))
        append("erasure", Erasure(conversation_id=conversation, person="p", erased_ms=9))
        votes = VoteHistory(tmp_path)
        assert ids(votes) == ["vote-1"]
        assert [recorded.event_id for recorded in votes.page("q", limit=9)] == ["vote-q"]
        votes.close()


def test_what_the_logs_retention_removes_goes_from_the_index_too(tmp_path: Path) -> None:
    with LocalLog(tmp_path, segment_bytes=30) as log:
        for number in range(3):
            log.append(encode(feedback(number))).result(30)
        votes = VoteHistory(tmp_path)
        assert len(ids(votes)) == 3
        assert list(remove_expired(tmp_path, Retention(max_bytes=1), 2)) == [0, 1]
        log.append(encode(feedback(3))).result(30)
        votes.tidy()
        assert ids(votes) == ["vote-3", "vote-2"]
        votes.close()
