"""Votes that are known to be of no use are refused, over both transports; what is not known is taken."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportGeneralTypeIssues=false
# (the generated stubs are typed for synchronous channels)

from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.json_format import ParseDict

from rlhf_online import events
from rlhf_online.eventlog.local import LocalLog
from rlhf_online.proto.rlhf.v1 import chat_pb2, chat_pb2_grpc
from rlhf_online.wire import encode
from services.chat.feedback import checks as feedback_checks
from services.chat.feedback.checks import FeedbackChecks
from services.chat.transport.grpc_errors import CODES
from tests.support import logged
from tests.support.chat_service import Service, running


def ref(name: str, index: int = 0) -> dict[str, Any]:
    return {"completion_id": name, "index": index}


def thumb(name: str, index: int = 0, *, up: bool = True, **fields: Any) -> dict[str, Any]:
    return {"thumb": {"answer": ref(name, index), "up": up}, "user": "ann", **fields}


async def vote(service: Service, body: dict[str, Any]) -> str:
    """The event id of a vote that is taken."""
    status, reply = await service.post("/v1/feedback", body)
    assert status == 200, reply
    return reply["event_id"]


async def assert_refused(service: Service, body: dict[str, Any], status: int, code: str, words: str) -> None:
    """Over HTTP and over gRPC alike, and nothing is logged."""
    before = len(service.sink.records)
    answer, reply = await service.post("/v1/feedback", body)
    assert (answer, reply["error"]["code"]) == (status, code), reply
    assert words in reply["error"]["message"]
    async with grpc.aio.insecure_channel(service.grpc) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            beside = {name: body[name] for name in ("user", "idempotency_key") if name in body}
            said = {name: value for name, value in body.items() if name not in beside}
            if ranking := said.get("ranking"):
                said["ranking"] = {"tiers": [{"answers": tier} for tier in ranking["tiers"]]}
            message = ParseDict({"feedback": said, **beside}, chat_pb2.SendFeedbackRequest())
            await chat_pb2_grpc.ChatServiceStub(channel).SendFeedback(message)
    assert caught.value.code() == CODES[status]
    assert caught.value.details() == reply["error"]["message"]
    assert len(service.sink.records) == before


async def test_an_answer_that_a_known_completion_lacks(service: Service) -> None:
    asked = (await service.ask(n=2))[1]["id"]
    await vote(service, thumb(asked, 1))
    for body in (
        thumb(asked, 2),
        {"correction": {"answer": ref(asked, 1023), "text": "better"}},
        {"pairwise": {"chosen": ref(asked, 0), "rejected": ref(asked, 2)}},
        {"ranking": {"tiers": [[ref(asked, 0)], [ref(asked, 1), ref(asked, 7)]]}},
        {"implicit": {"answer": ref(asked, 2), "signal": "stop"}},
    ):
        await assert_refused(service, body, 400, "answer_not_found", f"{asked} has 2 answers, counted from 0")
    await vote(service, thumb("chatcmpl-of-another-pod", 7))


async def test_answers_to_different_prompts_and_one_that_was_not_stored(service: Service) -> None:
    first = (await service.ask())[1]["id"]
    again = (await service.ask())[1]["id"]
    await vote(service, {"pairwise": {"chosen": ref(first), "rejected": ref(again)}})
    service.engine.answers.prompt_ids = lambda body: [4, 5, 6]
    other = (await service.ask())[1]["id"]
    pair = {"pairwise": {"chosen": ref(first), "rejected": ref(other)}}
    await assert_refused(service, pair, 400, "invalid_value", "different prompts")
    secret = (await service.ask(store=False))[1]["id"]
    await assert_refused(service, thumb(secret), 400, "not_stored", "cannot be voted on")


async def test_a_correction_that_repeats_the_answer(service: Service) -> None:
    _, reply = await service.ask()
    said = {"correction": {"answer": ref(reply["id"]), "text": reply["choices"][0]["message"]["content"]}}
    await assert_refused(service, said, 400, "invalid_value", "it is the answer itself")


@pytest.mark.parametrize("user", ["ann", ""])
async def test_a_key_that_is_used_for_another_vote(service: Service, user: str) -> None:
    key = {"user": user, "idempotency_key": "k"}
    first = await vote(service, {**thumb("a"), **key})
    assert await vote(service, {**thumb("a"), **key, "response_ms": 9, "source": "retry"}) == first
    for other in (
        thumb("a", up=False),
        thumb("a", reason="because"),
        {"implicit": {"answer": ref("a"), "signal": "stop"}},
    ):
        await assert_refused(service, {**other, **key}, 409, "idempotency_key_reused", first)
    assert await service.metric('rlhf_feedback_total{kind="thumb",outcome="invalid"}') == 4


async def test_somebody_elses_vote(service: Service) -> None:
    hers = await vote(service, thumb("a"))
    for user in ("bob", ""):
        for body in (thumb("a", up=False), {"withdrawal": {"answer": ref("a")}}):
            said = {**body, "user": user, "replaces": hers}
            await assert_refused(service, said, 403, "not_your_vote", "only its own person may replace it")
    await vote(service, {"withdrawal": {"answer": ref("a")}, "user": "ann", "replaces": hers})


async def test_they_are_known_again_after_a_restart(tmp_path: Path) -> None:
    async with running(tmp_path) as service:
        asked = (await service.ask(n=2))[1]["id"]
        first = await vote(service, thumb(asked, idempotency_key="k"))
        records = list(service.sink.records)
    with LocalLog(tmp_path / "state" / "log") as log:
        for record in [b"no event", *records]:
            log.append(record).result(30)
    async with running(tmp_path) as service:
        await assert_refused(service, thumb(asked, 2), 400, "answer_not_found", "has 2 answers")
        await assert_refused(service, thumb(asked, up=False, idempotency_key="k"), 409, "idempotency_key_reused", first)
        withdrawn = {"withdrawal": {"answer": ref(asked)}, "user": "bob", "replaces": first}
        await assert_refused(service, withdrawn, 403, "not_your_vote", "somebody else's")


def test_what_is_left_of_a_spool_is_known_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its older records were shipped, and let go of."""
    monkeypatch.setattr(feedback_checks, "RECALLED_RECORDS", 300)
    with LocalLog(tmp_path, segment_bytes=4096) as log:
        for number in range(200):
            log.append(encode(logged.thumb("c", event_id=f"{number}"))).result(30)
    oldest = sorted(tmp_path.glob("*.log"))[0]
    oldest.unlink()
    checks = FeedbackChecks()
    checks.recall(tmp_path)
    other = logged.thumb("c", event_id="", up=False).event
    assert isinstance(other, events.Feedback)
    assert checks.votes.is_another("199", other) and not checks.votes.is_another("0", other)


def test_a_log_that_cannot_be_read_again_refuses_nothing(tmp_path: Path) -> None:
    (tmp_path / "committed").write_bytes(b"damaged")
    checks = FeedbackChecks()
    checks.recall(tmp_path)
    assert not checks.votes.to_json()
