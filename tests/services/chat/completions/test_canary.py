"""Which conversations a canary answers, through the service: a share, each one by one version; and both in pairs."""

import asyncio
from pathlib import Path

import pytest

from rlhf_online.canary.record import Canary
from tests.support.chat_service import ASK, Service, running

LIVE, CANDIDATE = "policy-000000", "policy-000001"


def canary(share: float) -> Canary:
    return Canary(version=CANDIDATE, live=LIVE, steps=(share,), step=0, began_ms=1, since_ms=1)


def holds(service: Service, share: float) -> Canary:
    service.host.adapters = (CANDIDATE,)
    service.host.canary = canary(share)
    return service.host.canary


async def writer(service: Service, **fields: object) -> str:
    """Who wrote the answer: as the engine was asked, and as it was logged."""
    status, reply = await service.ask(**fields)
    assert status == 200, reply
    [span] = service.sink.completions[-1].answers[0].spans
    asked = service.engine.requests[-1]["model"]
    assert asked == {LIVE: "base", CANDIDATE: CANDIDATE}[span.policy_version]
    return span.policy_version


async def test_a_share_of_the_conversations_is_answered_by_it_turn_for_turn(tmp_path: Path) -> None:
    async with running(tmp_path, engine={"tuning": "lora"}) as service:
        found = holds(service, 0.3)
        names = [f"conversation {n}" for n in range(30)]
        first = {name: await writer(service, conversation_id=name) for name in names}
        assert {name for name in names if first[name] == CANDIDATE} == {name for name in names if found.answers(name)}
        holds(service, 0.6)
        second = {name: await writer(service, conversation_id=name) for name in names}
        assert all(second[name] == CANDIDATE for name in names if first[name] == CANDIDATE), "they keep it"
        assert list(second.values()).count(CANDIDATE) > list(first.values()).count(CANDIDATE)


@pytest.mark.parametrize(("share", "who"), [(0.0, LIVE), (1.0, CANDIDATE)])
async def test_nobody_at_0_everybody_at_1_and_whoever_names_a_version_gets_that(
    tmp_path: Path, share: float, who: str
) -> None:
    async with running(tmp_path, engine={"tuning": "lora"}) as service:
        holds(service, share)
        assert {await writer(service) for _ in range(8)} == {who}
        assert await writer(service, model=LIVE) == LIVE
        assert await writer(service, model=CANDIDATE) == CANDIDATE
        service.host.canary = None
        service.host.adapters = ()
        assert await writer(service) == LIVE


async def test_two_answers_to_compare_are_one_by_each_in_any_order_and_without_names(tmp_path: Path) -> None:
    async with running(tmp_path, engine={"tuning": "lora"}) as service:
        holds(service, 0.01)
        orders = set()
        for _ in range(12):
            status, reply = await service.post("/v1/comparisons", {**ASK, "user": "ann"})
            assert status == 200 and "policy" not in str(reply)
            shown = {one.completion_id: one for one in service.sink.completions[-2:]}
            written = [shown[one["answer"]["completion_id"]].answers[0].spans for one in reply["answers"]]
            orders.add(tuple(span.policy_version for [span] in written))
        assert orders == {(LIVE, CANDIDATE), (CANDIDATE, LIVE)}
        await service.post("/v1/comparisons", {**ASK, "user": "ann", "n": 3})
        assert len({one.answers[0].spans for one in service.sink.completions[-3:]}) == 1, "three are a ranking of one's"
        await asyncio.gather(*(service.post("/v1/comparisons", {**ASK, "versions": [LIVE, LIVE]}) for _ in range(2)))
        assert {one.answers[0].spans[0].policy_version for one in service.sink.completions[-4:]} == {LIVE}
