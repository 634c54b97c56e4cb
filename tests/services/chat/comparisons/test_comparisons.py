"""Answers side by side: who wrote which is told after the vote, the order is chance and logged, knowing is marked."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false
# (the generated stubs are typed for synchronous channels)

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import orjson
import pytest

from rlhf_online.proto.rlhf.v1 import comparisons_pb2, comparisons_pb2_grpc
from tests.support.chat_service import ASK, Service, running
from tests.support.events import events
from tests.support.fake_generation import EOS, Same, Token
from tests.support.vllm_errors import PROMPT_TOO_LONG
from tests.support.waiting import eventually


class Numbered(Same):
    """The n-th answer is its number."""

    def __init__(self, said: str = "answer") -> None:
        super().__init__()
        self.drawn, self.said = 0, said

    def draw(self, max_tokens: int) -> Sequence[Token]:
        self.drawn += 1
        return ((11, f"{self.said} "), (20 + self.drawn, str(self.drawn)), (EOS, ""))


async def compare(service: Service, **fields: Any) -> dict[str, Any]:
    status, reply = await service.post("/v1/comparisons", {**ASK, "user": "ann", **fields})
    assert status == 200, reply
    return reply


async def vote(service: Service, comparison: dict[str, Any], **fields: Any) -> str:
    """Ann's: the answer that stands first is better, if nothing else is said."""
    first, second = (answer["answer"] for answer in comparison["answers"][:2])
    said = {"pairwise": {"chosen": first, "rejected": second}} if "thumb" not in fields else {}
    status, reply = await service.post("/v1/feedback", {"user": "ann", **said, **fields})
    assert status == 200, reply
    return reply["event_id"]


async def names(service: Service, comparison: dict[str, Any], user: str = "ann") -> tuple[bool, list[list[str]]]:
    status, reply = await service.get(f"/v1/comparisons/{comparison['comparison_id']}?user={user}")
    assert status == 200, reply
    return reply["voted"], [answer["versions"] for answer in reply["answers"]]


async def test_names_are_hidden_until_the_vote(service: Service) -> None:
    comparison = await compare(service)
    assert [answer["text"] for answer in comparison["answers"]] == ["hello there"] * 2
    assert comparison["logged"] is True
    assert "policy" not in str(comparison)
    assert await names(service, comparison) == (False, [[], []])
    thumb = {"answer": comparison["answers"][0]["answer"], "up": False}
    await vote(service, comparison, thumb=thumb)
    assert await names(service, comparison) == (False, [[], []]), "a thumb compares nothing"
    await vote(service, comparison)
    assert await names(service, comparison) == (True, [["policy-000000"], ["policy-000000"]])
    assert [said.could_know for said in service.sink.feedback] == [False, False]


async def test_a_vote_after_the_names_were_told_could_know(service: Service) -> None:
    comparison = await compare(service)
    first = await vote(service, comparison)
    await vote(service, comparison, replaces=first, idempotency_key="another")
    assert [said.could_know for said in service.sink.feedback] == [False, True]


@pytest.mark.parametrize(
    ("said", "could_know"),
    [
        ("I am Policy-000012", True),
        ("as SmolLM2 I", True),
        ("RLHF-online says", True),
        ("a policy of 2", False),
        ("antismollm", False),
    ],
)
async def test_an_answer_that_names_its_writer_marks_the_vote(tmp_path: Path, said: str, could_know: bool) -> None:
    async with running(tmp_path, engine={"model": str(tmp_path / "SmolLM2-135M-Instruct")}) as service:
        service.engine.answers = Numbered(said)
        comparison = await compare(service)
        await vote(service, comparison)
        assert [one.could_know for one in service.sink.feedback] == [could_know]
        _, reply = await service.get(f"/v1/comparisons/{comparison['comparison_id']}?user=ann")
        assert reply["tells"] is could_know


async def test_the_log_says_where_each_answer_stood_whatever_the_client_says(service: Service) -> None:
    service.engine.answers = Numbered()
    comparison = await compare(service, n=4)
    shown = [answer["answer"]["completion_id"] for answer in comparison["answers"]]
    logged = {one.completion_id: one for one in service.sink.completions}
    assert [logged[each].slot for each in shown] == [0, 1, 2, 3]
    assert {one.comparison_id for one in logged.values()} == {comparison["comparison_id"]}
    assert len({one.conversation_id for one in logged.values()}) == 1
    assert [logged[each].answers[0].text for each in shown] == [answer["text"] for answer in comparison["answers"]]
    await vote(service, comparison, shown=[comparison["answers"][1]["answer"]])
    [voted] = service.sink.feedback
    assert [ref.completion_id for ref in voted.shown] == shown
    assert voted.comparison_id == comparison["comparison_id"]


async def test_chance_decides_the_order_of_the_writers(service: Service) -> None:
    """Seeds tell the writers apart: the i-th has the seed 100 + i."""
    orders = set()
    for _ in range(40):
        before = len(service.sink.completions)
        await compare(service, seed=100)
        placed = sorted(service.sink.completions[before:], key=lambda one: one.slot)
        orders.add(tuple(one.sampling.seed for one in placed))
    assert orders == {(100, 101), (101, 100)}


async def test_it_is_streamed_side_by_side(service: Service) -> None:
    await service.engine.hold()
    asked = asyncio.create_task(_stream(service))
    await eventually(lambda: len(service.engine.requests) == 2)
    await service.engine.release()
    pieces = await asked
    *parts, last = pieces
    texts = ["".join(part.get("delta", "") for part in parts if part["slot"] == slot) for slot in (0, 1)]
    assert texts == [answer["text"] for answer in last["final"]["answers"]] == ["hello there"] * 2
    named = [answer["answer"]["completion_id"] for answer in last["final"]["answers"]]
    assert {part["slot"]: part["completion_id"] for part in parts} == dict(enumerate(named))
    assert last["final"]["logged"] is True
    assert "policy" not in str(pieces)
    await eventually(lambda: service.chat.gateway.active == 0)


async def _stream(service: Service) -> list[dict[str, Any]]:
    body = orjson.dumps({**ASK, "stream": True, "user": "ann"})
    async with service.session.post(service.url + "/v1/comparisons", data=body) as response:
        assert response.status == 200
        data = await response.read()
    assert data.endswith(b"data: [DONE]\n\n")
    return events(data)


async def test_grpc_streams_the_same(service: Service) -> None:
    request = comparisons_pb2.CompareRequest(messages=[{"role": "user", "content": "hi"}], user="ann")
    async with grpc.aio.insecure_channel(service.grpc) as channel:
        stub = comparisons_pb2_grpc.ComparisonServiceStub(channel)
        call = stub.StreamCompare(comparisons_pb2.StreamCompareRequest(request=request))
        *parts, last = [piece async for piece in call]
        texts = ["".join(part.delta for part in parts if part.slot == slot) for slot in (0, 1)]
        assert texts == [answer.text for answer in last.final.answers] == ["hello there"] * 2
        assert last.final.logged
        asked = comparisons_pb2.GetComparisonRequest(comparison_id=last.comparison_id, user="ann")
        found = await stub.GetComparison(asked)
        assert not found.voted and not any(answer.versions for answer in found.answers)
        first, second = ({"completion_id": answer.answer.completion_id} for answer in found.answers)
        await service.post("/v1/feedback", {"user": "ann", "pairwise": {"chosen": first, "rejected": second}})
        found = await stub.GetComparison(asked)
        assert [list(answer.versions) for answer in found.answers] == [["policy-000000"]] * 2


async def test_a_client_that_leaves_ends_all_answers_and_what_it_saw_is_logged(service: Service) -> None:
    await service.engine.hold()
    body = orjson.dumps({**ASK, "stream": True})
    asked = asyncio.create_task(service.session.post(service.url + "/v1/comparisons", data=body))
    await eventually(lambda: len(service.engine.requests) == 2)
    await service.engine.allow(2)
    (await asked).close()
    await eventually(lambda: service.chat.gateway.active == 0)
    assert {answer.finish_reason for one in service.sink.completions for answer in one.answers} == {"abort"}


async def test_without_one_of_the_answers_there_is_no_comparison(service: Service) -> None:
    service.engine.refuse = PROMPT_TOO_LONG
    status, reply = await service.post("/v1/comparisons", {**ASK, "stream": True})
    assert (status, reply["error"]["param"]) == (400, "messages")
    assert service.chat.gateway.active == 0
    assert service.sink.completions == []


async def test_one_too_many_is_refused_and_the_others_are_ended(service: Service) -> None:
    service.chat.gateway.max_concurrent = 1
    for stream in (False, True):
        assert (await service.post("/v1/comparisons", {**ASK, "stream": stream}))[0] == 429
        assert service.chat.gateway.active == 0


async def test_an_engine_that_dies_ends_a_stream_with_an_error(service: Service) -> None:
    service.engine.error_after = 1
    pieces = await _stream(service)
    assert "error" in pieces[-1]
    await eventually(lambda: service.chat.gateway.active == 0)


async def test_nobody_else_sees_it_nor_opens_it(service: Service) -> None:
    comparison = await compare(service)
    status, reply = await service.get(f"/v1/comparisons/{comparison['comparison_id']}?user=bob")
    assert (status, reply["error"]["code"]) == (404, "comparison_not_found")
    await vote(service, comparison, user="bob")
    assert await names(service, comparison) == (False, [[], []])
    [bobs] = service.sink.feedback
    assert (bobs.comparison_id, bobs.shown) == ("", ())


async def test_a_vote_that_is_not_on_disk_tells_nothing(service: Service) -> None:
    comparison = await compare(service)
    service.sink.failing = "future"
    first, second = (answer["answer"] for answer in comparison["answers"])
    ranking = {"ranking": {"tiers": [[first], [second]]}, "user": "ann"}
    assert (await service.post("/v1/feedback", ranking))[0] == 503
    service.sink.failing = ""
    assert await names(service, comparison) == (False, [[], []])


async def test_a_temperature_of_0_is_for_several_versions(service: Service) -> None:
    await compare(service, versions=["policy-000000", "base"], temperature=0)
    assert {request["temperature"] for request in service.engine.requests} == {0.0}


async def test_versions_that_are_loaded_beside_the_live_one_write_one_answer_each(service: Service) -> None:
    service.host.adapters, service.host.model_name = ("policy-000000", "policy-000001"), "policy-000001"
    service.host.serving = "policy-000001"
    body = orjson.dumps({**ASK, "versions": ["policy-000000", "policy-000001"], "user": "ann"})
    async with service.session.post(service.url + "/v1/comparisons", data=body) as response:
        comparison = orjson.loads(await response.read())
        assert "policy" not in f"{comparison}{response.headers}", "neither a field nor a header tells"
    assert sorted(request["model"] for request in service.engine.requests) == ["policy-000000", "policy-000001"]
    wrote = {one.completion_id: one.answers[0].spans[0].policy_version for one in service.sink.completions}
    shown = [wrote[answer["answer"]["completion_id"]] for answer in comparison["answers"]]
    assert sorted(shown) == ["policy-000000", "policy-000001"]
    await vote(service, comparison)
    assert await names(service, comparison) == (True, [[version] for version in shown])
