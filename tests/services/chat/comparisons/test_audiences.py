"""Answers side by side for an audience: its own adapter writes all, and the log says so to the training."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from rlhf_online.canary.record import Canary
from rlhf_online.eventlog.local import LocalLog
from rlhf_online.eventlog.tail import LocalReader
from rlhf_online.events import Completion
from rlhf_online.training.ledger import Ledger
from tests.support.chat_service import ASK, Service, running
from tests.support.fake_generation import EOS
from tests.support.intakes import new_intake

LIVE, CANDIDATE, BRIEF = "policy-000000", "policy-000001", "policy.brief-000003"


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    """With a canary for everybody, and two audiences, one of which has no version yet."""
    with LocalLog(tmp_path / "state" / "log") as log:
        async with running(tmp_path, log=log, engine={"tuning": "lora"}) as service:
            service.host.adapters = (CANDIDATE, BRIEF)
            service.host.audiences = {"brief": BRIEF, "long": ""}
            service.host.canary = Canary(version=CANDIDATE, live=LIVE, steps=(1.0,), step=0, began_ms=1, since_ms=1)
            yield service


async def compared(service: Service, **fields: Any) -> dict[str, Any]:
    status, reply = await service.post("/v1/comparisons", {**ASK, "user": "ann", **fields})
    assert status == 200, reply
    return reply


def writers(answers: Sequence[dict[str, Any]], service: Service) -> list[str]:
    """The versions in the records of these answers, as they are shown."""
    wrote = {one.completion_id: one.answers[0].sole_version for one in service.logged(Completion)}
    return [wrote[answer["answer"]["completion_id"]] for answer in answers]


async def test_its_adapter_writes_all_and_nobody_elses_canary(service: Service) -> None:
    comparison = await compared(service, profile="brief", n=2)
    assert writers(comparison["answers"], service) == [BRIEF, BRIEF]
    assert [request["model"] for request in service.engine.requests] == [BRIEF, BRIEF]
    assert "policy" not in str(comparison), "before the vote nothing tells who wrote it"
    comparison = await compared(service, profile="brief", n=4)
    assert writers(comparison["answers"], service) == [BRIEF] * 4
    comparison = await compared(service, profile="long")
    assert writers(comparison["answers"], service) == [LIVE, LIVE], "until it has a version, the common one"
    comparison = await compared(service)
    assert set(writers(comparison["answers"], service)) == {LIVE, CANDIDATE}, "nobody's in particular"


async def test_of_two_one_is_its_canarys_while_there_is_one(service: Service) -> None:
    following = "policy.brief-000004"
    service.host.adapters = (CANDIDATE, BRIEF, following)
    canary = Canary(version=following, live=BRIEF, steps=(0.0,), step=0, began_ms=1, since_ms=1)
    service.host.audience_canaries = {"brief": canary}
    orders = set[tuple[str, ...]]()
    for _ in range(12):
        comparison = await compared(service, profile="brief")
        assert "policy" not in str(comparison)
        orders.add(tuple(writers(comparison["answers"], service)))
    assert orders == {(BRIEF, following), (following, BRIEF)}
    comparison = await compared(service, profile="brief", n=3)
    assert writers(comparison["answers"], service) == [BRIEF] * 3, "three are a ranking of one's"
    comparison = await compared(service, profile="long")
    assert writers(comparison["answers"], service) == [LIVE, LIVE]
    comparison = await compared(service)
    assert set(writers(comparison["answers"], service)) == {LIVE, CANDIDATE}


async def test_one_that_is_not_answered_here_is_refused_with_those_that_are(service: Service) -> None:
    status, reply = await service.post("/v1/comparisons", {**ASK, "profile": "lawyers"})
    assert (status, reply["error"]["code"], reply["error"]["param"]) == (404, "profile_not_found", "profile")
    assert "there are brief, long" in reply["error"]["message"]
    status, reply = await service.post("/v1/comparisons", {**ASK, "profile": "brief", "versions": [LIVE, CANDIDATE]})
    assert (status, reply["error"]["param"]) == (400, "profile")
    assert service.engine.requests == [] and service.chat.gateway.active == 0


async def test_annotators_are_asked_about_answers_of_its_adapter(service: Service) -> None:
    """An operator has them written for the queue: `compare` is a body of /v1/comparisons."""
    token = service.state.operator_token()
    _, reply = await service.post("/v1/annotation/items", {"compare": {**ASK, "profile": "brief"}}, token)
    [[item_id]] = [result["item_ids"] for result in reply["results"]]
    _, item = await service.post("/v1/annotation/next", {"user": "ann"})
    assert item["item_id"] == item_id
    assert writers(item["answers"], service) == [BRIEF, BRIEF]
    _, reply = await service.post("/v1/annotation/items", {"compare": {**ASK, "profile": "lawyers"}}, token)
    assert [result["error"]["code"] for result in reply["results"]] == ["profile_not_found"]


async def test_what_it_was_compared_of_trains_the_audience_and_the_vote_the_reward_model(
    service: Service, tmp_path: Path
) -> None:
    comparison = await compared(service, profile="brief")
    await compared(service)
    first, second = (answer["answer"] for answer in comparison["answers"])
    status, _ = await service.post("/v1/feedback", {"user": "ann", "pairwise": {"chosen": first, "rejected": second}})
    assert status == 200
    with LocalReader(service.state.log) as source:
        intake = new_intake(source, Ledger(), tmp_path / "answers", eos_ids={EOS})
        intake.read()
    [vote] = intake.votes.take().learned
    assert vote.person
    buffer = intake.policy_inputs.buffer
    taken = buffer.take(9, ["policy.brief-000002", BRIEF], lambda name: True)
    assert [rollout.policy_version for rollout in taken] == [BRIEF, BRIEF]
    taken = buffer.take(9, [LIVE, CANDIDATE], lambda name: True)
    assert {rollout.policy_version for rollout in taken} == {LIVE, CANDIDATE}
