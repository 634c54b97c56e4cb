"""Votes over HTTP: each kind, retries, bad ones, and the log or the engine away."""

from typing import Any

import pytest

from rlhf_online.events import AnswerRef, Correction, Implicit, Pairwise, Ranking, Thumb, Withdrawal
from tests.support.chat_service import Service


def ref(name: str, index: int = 0) -> dict[str, Any]:
    return {"completion_id": name, "index": index}


A, B, C = (AnswerRef(completion_id=name) for name in "abc")
THUMB = {"thumb": {"answer": {"completion_id": "a"}, "up": True}}
DOWN = {"thumb": {"answer": {"completion_id": "a"}, "up": False}}
WITHDRAWAL = {"withdrawal": {"answer": {"completion_id": "a"}}}
EARLIER = "5f0c4b8e-3d0a-5b52-9c9e-1a2b3c4d5e6f"


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (THUMB, Thumb(answer=A, up=True)),
        (
            {"thumb": {"answer": ref("a", 2), "up": False}},
            Thumb(answer=AnswerRef(completion_id="a", index=2), up=False),
        ),
        ({"ranking": {"tiers": [[ref("b")], [ref("a"), ref("c")]]}}, Ranking(tiers=((B,), (A, C)))),
        ({"pairwise": {"chosen": ref("a"), "rejected": ref("b")}}, Pairwise(chosen=A, rejected=B)),
        (
            {"pairwise": {"chosen": ref("a"), "rejected": ref("b"), "tie": True, "strength": 3}},
            Pairwise(chosen=A, rejected=B, tie=True, strength=3),
        ),
        (
            {"pairwise": {"chosen": ref("a"), "rejected": ref("b"), "unsure": True}},
            Pairwise(chosen=A, rejected=B, unsure=True),
        ),
        ({"correction": {"answer": ref("c"), "text": "better"}}, Correction(answer=C, text="better")),
        ({"implicit": {"answer": ref("c"), "signal": "rephrase"}}, Implicit(answer=C, signal="rephrase")),
        ({**WITHDRAWAL, "replaces": EARLIER}, Withdrawal(answer=A)),
    ],
)
async def test_each_kind(service: Service, body: dict[str, Any], kind: Any) -> None:
    status, reply = await service.post("/v1/feedback", {**body, "user": "ann", "reason": "because", "response_ms": 7})
    assert status == 200
    assert reply["position"] == {"local": 1}
    (envelope,) = service.sink.envelopes
    (feedback,) = service.sink.feedback
    assert envelope.event_id == reply["event_id"]
    assert feedback.kind == kind
    assert feedback.conversation_id == feedback.answers()[0].completion_id
    assert feedback.person == service.state.person_hash()("ann")
    assert (feedback.reason, feedback.source, feedback.response_ms) == ("because", "api", 7)
    assert feedback.replaces == body.get("replaces", "")
    assert feedback.created_ms > 0
    name = type(kind).__name__.lower()
    assert await service.metric(f'rlhf_feedback_total{{kind="{name}",outcome="ok"}}') == 1


async def test_a_vote_may_name_an_objective_that_there_is(service: Service) -> None:
    service.chat.feedback.objectives = ("helpful", "harmless")
    for name in ("harmless", "", None):
        assert (await service.post("/v1/feedback", {**THUMB, "objective": name}))[0] == 200
    assert [feedback.objective for feedback in service.sink.feedback] == ["harmless", "", ""]
    status, reply = await service.post("/v1/feedback", {**THUMB, "objective": "harmles"})
    assert (status, reply["error"]["param"]) == (400, "objective")
    assert "expected one of helpful, harmless" in reply["error"]["message"]
    assert len(service.sink.feedback) == 3


async def test_reasons_are_the_tags_that_there_are(service: Service) -> None:
    service.chat.feedback.reasons = ("clear", "wrong")
    said = {"user": "ann", "idempotency_key": "k"}
    for tags in (["wrong", "clear"], ["clear", "wrong", "clear"]):  # in any order, and the same vote
        assert (await service.post("/v1/feedback", {**THUMB, **said, "reasons": tags, "reason": "dull"}))[0] == 200
    assert [(vote.reasons, vote.reason) for vote in service.sink.feedback] == [(("clear", "wrong"), "dull")] * 2
    status, reply = await service.post("/v1/feedback", {**THUMB, "reasons": ["wrong", "dull"]})
    assert (status, reply["error"]["param"]) == (400, "reasons[1]")
    assert reply["error"]["message"] == "reasons[1]: expected one of clear, wrong; free text goes into `reason`"
    status, reply = await service.post("/v1/feedback", {**THUMB, **said, "reasons": ["clear"], "reason": "dull"})
    assert (status, reply["error"]["code"]) == (409, "idempotency_key_reused")
    assert len(service.sink.feedback) == 2


async def test_a_vote_sent_again_is_the_same_event(service: Service) -> None:
    async def vote(**fields: Any) -> str:
        return (await service.post("/v1/feedback", {**THUMB, **fields}))[1]["event_id"]

    first = await vote(user="ann", idempotency_key="k")
    assert await vote(user="ann", idempotency_key="k") == first
    others = [
        await vote(user="bob", idempotency_key="k"),
        await vote(idempotency_key="k"),
        await vote(user="ann", idempotency_key="l"),
        await vote(user="ann"),
        await vote(user="ann"),
    ]
    assert len({first, *others}) == 6


async def test_two_without_a_name_may_choose_the_same_key(service: Service) -> None:
    async def vote(answer: str) -> str:
        body = {"thumb": {"answer": ref(answer), "up": True}, "idempotency_key": "1"}
        return (await service.post("/v1/feedback", body))[1]["event_id"]

    assert await vote("a") == await vote("a") != await vote("b")


async def test_a_vote_is_changed_and_taken_back_by_its_id(service: Service) -> None:
    async def send(body: dict[str, Any], key: str, **fields: Any) -> str:
        status, reply = await service.post("/v1/feedback", {**body, "user": "ann", "idempotency_key": key, **fields})
        assert status == 200
        return reply["event_id"]

    first = await send(THUMB, "1")
    second = await send(DOWN, "2", replaces=first)
    assert await send(DOWN, "2", replaces=first) == second
    third = await send(WITHDRAWAL, "3", replaces=second)
    assert len({first, second, third}) == 3
    assert [feedback.replaces for feedback in service.sink.feedback] == ["", first, first, second]
    up, down = Thumb(answer=A, up=True), Thumb(answer=A, up=False)
    assert [feedback.kind for feedback in service.sink.feedback] == [up, down, down, Withdrawal(answer=A)]


@pytest.mark.parametrize("user", ["ann", ""])
async def test_an_edit_under_the_key_of_what_it_replaces_is_refused(service: Service, user: str) -> None:
    said = {"user": user, "idempotency_key": "k"}
    _, reply = await service.post("/v1/feedback", {**THUMB, **said})
    for body in (DOWN, WITHDRAWAL):
        status, refused = await service.post("/v1/feedback", {**body, **said, "replaces": reply["event_id"]})
        assert (status, refused["error"]["param"]) == (400, "idempotency_key")
        assert "send the change under another key" in refused["error"]["message"]
    assert len(service.sink.feedback) == 1
    assert await service.metric('rlhf_feedback_total{kind="withdrawal",outcome="invalid"}') == 1


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (WITHDRAWAL, "replaces: missing; name the vote to take back by the event_id"),
        ({**WITHDRAWAL, "replaces": ""}, "replaces: missing"),
        ({**DOWN, "replaces": "chatcmpl-1"}, "replaces: expected the event_id"),
        ({**DOWN, "replaces": EARLIER.upper()}, "a UUID in lower case"),
        ({**DOWN, "replaces": EARLIER.replace("-", "")}, "a UUID in lower case"),
        ({**DOWN, "replaces": "x" * 257}, "replaces: 257 characters"),
        ({**DOWN, "replaces": 7}, "replaces: expected a string, got an integer"),
        ({"withdrawal": {}, "replaces": EARLIER}, "withdrawal.answer: expected an object"),
        ({"withdrawal": {"answer": ref("a"), "up": True}, "replaces": EARLIER}, "withdrawal.up"),
        ({**DOWN, **WITHDRAWAL, "replaces": EARLIER}, "got thumb and withdrawal"),
    ],
)
async def test_a_bad_edit_says_what_to_do(service: Service, body: dict[str, Any], words: str) -> None:
    status, reply = await service.post("/v1/feedback", body)
    assert status == 400
    assert words in reply["error"]["message"]
    assert service.sink.records == []


@pytest.mark.parametrize(("site", "status"), [("same-origin", 200), ("none", 200), ("cross-site", 403)])
async def test_another_sites_page_cannot_vote(service: Service, site: str, status: int) -> None:
    async with service.session.post(
        service.url + "/v1/feedback", json=THUMB, headers={"Sec-Fetch-Site": site}
    ) as response:
        assert response.status == status
    assert len(service.sink.feedback) == (status == 200)


async def test_feedback_is_taken_while_the_engine_is_dead(service: Service) -> None:
    service.host.state = "failed"
    await service.engine.stop()
    status, _ = await service.post("/v1/feedback", {**THUMB, "conversation_id": "c", "shown": [ref("b"), ref("a")]})
    assert status == 200
    assert service.sink.feedback[0].conversation_id == "c"
    assert service.sink.feedback[0].shown == (B, A)


@pytest.mark.parametrize("failing", ["raise", "future"])
async def test_feedback_is_not_acknowledged_without_the_log(service: Service, failing: str) -> None:
    service.sink.failing = failing
    async with service.session.post(service.url + "/v1/feedback", json=THUMB) as response:
        assert response.status == 503
        assert int(response.headers["retry-after"]) > 0
        assert (await response.json(content_type=None))["error"]["code"] == "log_unavailable"
    service.sink.failing = ""
    status, reply = await service.post("/v1/feedback", THUMB)
    assert (status, reply["position"]) == (200, {"local": 1})
    assert await service.metric('rlhf_feedback_total{kind="thumb",outcome="unavailable"}') == 1


@pytest.mark.parametrize(
    "body",
    [
        {**THUMB, "pairwise": {"chosen": ref("a"), "rejected": ref("b")}},
        {"thumb": {"answer": ref("a")}},
        {"thumb": {"answer": ref("a"), "up": "yes"}},
        {"thumb": {"answer": "a", "up": True}},
        {"thumb": {"answer": ref("a", -1), "up": True}},
        {"thumb": {"answer": ref("a"), "up": True, "extra": 1}},
        {"thumb": {"answer": ref("x" * 257), "up": True}},
        {"ranking": {"tiers": "ab"}},
        {**THUMB, "response_ms": -1},
        {**THUMB, "source": 5},
        {**THUMB, "objective": "x" * 65},
        {"implicit": {"answer": ref("a")}},
    ],
)
async def test_what_protobuf_cannot_say_is_refused(service: Service, body: dict[str, Any]) -> None:
    """All else that is wrong with a vote goes over both transports: test_transports."""
    status, reply = await service.post("/v1/feedback", body)
    assert status == 400
    assert reply["error"]["message"]
    assert service.sink.records == []
