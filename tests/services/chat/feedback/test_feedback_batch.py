"""Many votes at once: each by itself, in their order, the same again if sent again, and few fsyncs for all."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportGeneralTypeIssues=false
# (the generated stubs are typed for synchronous channels)

import io
import json
from pathlib import Path
from typing import Any

import grpc
import pytest

from rlhf_online.eventlog.local import LocalLog
from rlhf_online.proto.rlhf.v1 import chat_pb2, events_pb2, feedback_pb2, feedback_pb2_grpc
from services.chat.feedback import batch
from tests.support.chat_service import Service, running


def thumb(number: int, **fields: Any) -> dict[str, Any]:
    return {"thumb": {"answer": {"completion_id": f"answer-{number}"}, "up": True}, "user": "ann", **fields}


async def send(service: Service, lines: list[Any], key: str = "") -> tuple[int, dict[str, Any]]:
    data = b"\n".join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines)
    headers = {"Idempotency-Key": key} if key else {}
    async with service.session.post(
        service.url + "/v1/feedback/batch", data=io.BytesIO(data), headers=headers
    ) as response:
        return response.status, await response.json()


async def test_a_bad_line_does_not_spoil_the_others(service: Service) -> None:
    lines = [thumb(0), b"{no json", thumb(1, objective="dull"), b"", b'"text"', {"thumb": 3}, thumb(2)]
    status, reply = await send(service, lines)
    results = reply["results"]
    assert status == 200
    assert [result.get("error", {}).get("param", "taken") for result in results] == [
        "taken", None, "objective", None, "thumb", "taken",
    ]  # fmt: skip
    assert "not valid JSON" in results[1]["error"]["message"]
    assert [envelope.event_id for envelope in service.sink.envelopes] == [results[n]["event_id"] for n in (0, 5)]


async def test_a_batch_sent_again_is_the_same_votes(service: Service) -> None:
    lines = [thumb(0), thumb(1, idempotency_key="mine"), thumb(0, user="bob")]
    _, first = await send(service, lines, key="file-1")
    assert await send(service, lines, key="file-1") == (200, first)
    assert len({result["event_id"] for result in first["results"]}) == 3
    _, other = await send(service, lines, key="file-2")
    same = [a == b for a, b in zip(first["results"], other["results"], strict=True)]
    assert same == [False, True, False], "a vote's own key goes before the batch's"


async def test_a_batch_that_is_none_is_refused_whole(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await send(service, [b"", b" "]))[1]["error"]["code"] == "missing_parameter"
    monkeypatch.setattr(batch, "MAX_VOTES", 2)
    status, reply = await send(service, [thumb(number) for number in range(3)])
    assert (status, reply["error"]["code"]) == (413, "batch_too_large")
    status, reply = await send(service, [b"\n" * 5])
    assert (status, reply["error"]["code"]) == (413, "batch_too_large")
    status, reply = await send(service, [thumb(0)], key="k" * 300)
    assert (status, reply["error"]["param"]) == (400, "Idempotency-Key")
    status, reply = await send(service, [b" " * ((16 << 20) + 1)])
    assert (status, reply["error"]["code"]) == (413, "body_too_large")
    assert service.sink.records == []


async def test_what_the_log_does_not_take_is_said_vote_by_vote(service: Service) -> None:
    service.sink.failing = "raise"
    status, reply = await send(service, [thumb(0), thumb(1)])
    assert status == 200
    assert [result["error"]["code"] for result in reply["results"]] == ["log_unavailable"] * 2


async def test_many_votes_cost_few_fsyncs(tmp_path: Path) -> None:
    with LocalLog(tmp_path / "state" / "log") as log:
        async with running(tmp_path, log=log) as service:
            before = log.groups
            status, reply = await send(service, [thumb(number) for number in range(batch.MAX_VOTES)])
            assert (status, len(reply["results"])) == (200, batch.MAX_VOTES)
            assert all("event_id" in result for result in reply["results"])
            assert log.end == batch.MAX_VOTES and log.groups - before < batch.MAX_VOTES / 5


async def test_grpc_takes_a_stream_of_them(service: Service) -> None:
    def vote(number: int, objective: str = "") -> feedback_pb2.SendFeedbackBatchRequest:
        ref = events_pb2.AnswerRef(completion_id=f"answer-{number}")
        said = events_pb2.Feedback(thumb=events_pb2.Thumb(answer=ref, up=True), objective=objective)
        return feedback_pb2.SendFeedbackBatchRequest(vote=chat_pb2.SendFeedbackRequest(feedback=said, user="ann"))

    async with grpc.aio.insecure_channel(service.grpc) as channel:
        stub = feedback_pb2_grpc.FeedbackServiceStub(channel)
        metadata = (("idempotency-key", "file-1"),)
        reply = await stub.SendFeedbackBatch(iter([vote(0), vote(1, "dull"), vote(2)]), metadata=metadata)
        assert [bool(result.event_id) for result in reply.results] == [True, False, True]
        assert reply.results[1].error.param == "objective"
        _, over_http = await send(service, [thumb(0), thumb(1, objective="dull"), thumb(2)], key="file-1")
        assert [result.get("event_id", "") for result in over_http["results"]] == [r.event_id for r in reply.results]
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.SendFeedbackBatch(iter([]))
        assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
