"""A request's profile: its audience's adapter answers and is named in the answer's record, over HTTP and gRPC alike."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# (the generated stubs are typed for synchronous channels)

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from rlhf_online.canary.record import Canary
from rlhf_online.proto.rlhf.v1 import chat_pb2, chat_pb2_grpc, events_pb2
from tests.support.chat_service import Service, running

LIVE, BRIEF, NEXT = "policy-000000", "policy.brief-000003", "policy.brief-000004"


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    """With two audiences, one of which has no version yet."""
    async with running(tmp_path, engine={"tuning": "lora"}) as service:
        service.host.adapters = (BRIEF,)
        service.host.audiences = {"brief": BRIEF, "long": ""}
        yield service


async def answered(service: Service, **fields: Any) -> tuple[str, str]:
    """The adapter that the engine was asked for, and the version in the answer's record."""
    status, reply = await service.ask(**fields)
    assert status == 200, reply
    [[span]] = reply["rlhf"]["versions"]
    [logged] = service.sink.completions[-1].answers[0].spans
    assert logged.policy_version == span["policy_version"]
    return service.engine.requests[-1]["model"], logged.policy_version


async def test_each_profile_is_answered_by_its_own_adapter_and_without_one_the_common_one_answers(
    service: Service,
) -> None:
    assert await answered(service, profile="brief") == (BRIEF, BRIEF)
    assert await answered(service) == ("base", LIVE)
    assert await answered(service, profile="long") == ("base", LIVE), "until it has a version"
    assert await answered(service, profile="brief", model="rlhf-online") == (BRIEF, BRIEF)
    assert "profile" not in service.engine.requests[-1]


async def test_a_profile_that_nobody_defined_is_refused_with_those_that_there_are(service: Service) -> None:
    status, reply = await service.ask(profile="lawyers")
    assert (status, reply["error"]["code"], reply["error"]["param"]) == (404, "profile_not_found", "profile")
    assert "'lawyers' is no audience that is answered here; there are brief, long" in reply["error"]["message"]
    service.host.audiences = {}
    assert "there are none" in (await service.ask(profile="brief"))[1]["error"]["message"]
    status, reply = await service.ask(profile="brief", model=LIVE)
    assert (status, reply["error"]["param"]) == (400, "profile")
    assert service.engine.requests == []


async def test_those_that_there_are_are_listed_beside_the_models(service: Service) -> None:
    _, listed = await service.get("/v1/models")
    assert listed["profiles"] == ["brief", "long"]
    service.host.audiences = {}
    assert (await service.get("/v1/models"))[1]["profiles"] == []


async def test_a_conversation_with_a_profile_gets_nobody_elses_canary(service: Service) -> None:
    service.host.adapters = ("policy-000001", BRIEF)
    service.host.canary = Canary(
        version="policy-000001", live=LIVE, steps=(1.0,), step=0, began_ms=1, since_ms=1, reason=""
    )
    assert await answered(service) == ("policy-000001", "policy-000001")
    assert await answered(service, profile="brief") == (BRIEF, BRIEF)
    assert await answered(service, profile="long") == ("base", LIVE)


@pytest.mark.parametrize(("share", "who"), [(0.0, BRIEF), (1.0, NEXT)])
async def test_a_share_of_its_conversations_is_answered_by_its_canary_and_nobody_elses(
    service: Service, share: float, who: str
) -> None:
    service.host.adapters = (BRIEF, NEXT)
    found = Canary(version=NEXT, live=BRIEF, steps=(share,), step=0, began_ms=1, since_ms=1)
    service.host.audience_canaries = {"brief": found}
    assert await answered(service, profile="brief") == (who, who)
    assert await answered(service) == await answered(service, profile="long") == ("base", LIVE)
    assert await answered(service, model=BRIEF) == (BRIEF, BRIEF)
    names = [f"conversation {number}" for number in range(12)]
    service.host.audience_canaries = {"brief": replace(found, steps=(0.5,))}
    wrote = [(await answered(service, profile="brief", conversation_id=name))[1] for name in names for _ in range(2)]
    half = service.host.audience_canaries["brief"]
    assert wrote == [NEXT if half.answers(name) else BRIEF for name in names for _ in range(2)]


async def test_grpc_says_the_same(service: Service) -> None:
    messages = [events_pb2.Message(role="user", content="hi")]
    async with grpc.aio.insecure_channel(service.grpc) as channel:
        stub = chat_pb2_grpc.ChatServiceStub(channel)
        reply = await stub.Complete(chat_pb2.CompleteRequest(messages=messages, profile="brief"))
        assert reply.choices[0].spans[0].policy_version == BRIEF
        text = await stub.CompleteText(chat_pb2.CompleteTextRequest(prompt="hi", profile="brief"))
        assert text.choices[0].spans[0].policy_version == BRIEF
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Complete(chat_pb2.CompleteRequest(messages=messages, profile="lawyers"))
    assert refused.value.code() == grpc.StatusCode.NOT_FOUND
    assert "there are brief, long" in (refused.value.details() or "")


async def test_fresh_answers_come_from_the_version_that_is_asked_for(service: Service) -> None:
    token, body = service.state.operator_token(), {"prompts": [[1, 5, 3]]}
    status, reply = await service.post("/v1/rollouts", {**body, "model": BRIEF}, token)
    assert (status, reply["policy_version"], service.engine.requests[-1]["model"]) == (200, BRIEF, BRIEF)
    status, reply = await service.post("/v1/rollouts", {**body, "model": LIVE}, token)
    assert (reply["policy_version"], service.engine.requests[-1]["model"]) == (LIVE, "base")
    status, reply = await service.post("/v1/rollouts", {**body, "model": "policy.long-000000"}, token)
    assert (status, reply["error"]["code"]) == (404, "model_not_found")
