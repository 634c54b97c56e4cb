"""What the console is told: how it stands, every version's figures, what happened; and the operator's switches."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from rlhf_online import learning
from rlhf_online.cli import main
from rlhf_online.errors import ReadModelUnavailable
from rlhf_online.eventlog.local import LocalLog
from rlhf_online.feedback.outcomes import OutcomeBoard, fact, vote_key
from rlhf_online.rewards import weights
from rlhf_online.rewards.rules import record
from rlhf_online.rewards.rules.ruleset import parse
from rlhf_online.versions.manifest import Manifest
from services.chat.api.openapi import document
from services.chat.console.opinions import Opinions
from services.chat.console.tally import Tally
from tests.support.chat_service import Service, running

GATE = {
    "kl": 0.4, "samples": 100, "win_rate": 0.6, "win_rate_stderr": 0.05, "score": 0.3, "live_score": 0.1,
    "length": 40.0, "live_length": 38.0,
}  # fmt: skip


def reward_version(service: Service, *objectives: str, **figures: float) -> str:
    name = service.registry.reserve("reward")
    (service.registry.stage(name) / "reward.json").write_text(json.dumps({"objectives": objectives}))
    service.registry.publish(Manifest(version=name, tuning="full", figures=figures))
    service.registry.promote(name)
    return name


def judged(service: Service, reward: str, state: str, reason: str = "", **gate: float) -> str:
    name, live = service.registry.reserve("policy"), service.registry.live("policy") or ""
    service.registry.stage(name)
    service.registry.publish(Manifest(version=name, tuning="lora", parent=live, reward_version=reward, kl=gate["kl"]))
    if state == "live":
        service.registry.promote(name, reason="passed the gate", gate=gate)
    else:
        service.registry.mark(name, "rejected", reason=reason, gate=gate)
    return name


async def operate(service: Service, method: str, path: str, body: Any = None) -> tuple[int, dict[str, Any]]:
    headers = {"Authorization": f"Bearer {service.state.operator_token()}"}
    data = None if body is None else orjson.dumps(body)
    async with service.session.request(method, service.url + path, data=data, headers=headers) as response:
        return response.status, orjson.loads(await response.read())


@asynccontextmanager
async def watching(service: Service) -> AsyncIterator[asyncio.Queue[dict[str, Any] | None]]:
    """What is told, None at the stream's end."""
    events: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()

    async def read(response: aiohttp.ClientResponse) -> None:
        async for line in response.content:
            if line.startswith(b"data: {"):
                events.put_nowait(orjson.loads(line[6:]))
            elif line == b"data: [DONE]\n":
                events.put_nowait(None)

    async with service.session.get(service.url + "/v1/console/watch") as response:
        assert response.status == 200 and response.content_type == "text/event-stream"
        reader = asyncio.create_task(read(response))
        try:
            yield events
        finally:
            reader.cancel()


async def next_event(events: asyncio.Queue[dict[str, Any] | None]) -> dict[str, Any]:
    event = await asyncio.wait_for(events.get(), 60)
    assert event is not None
    return event


async def test_each_version_is_shown_with_what_gate_and_trainer_measured_of_it(service: Service) -> None:
    first = service.version(live=True)
    reward = reward_version(
        service, "helpful", accuracy=0.7, accuracy_low=0.6, accuracy_high=0.8, accuracy_n=90, thumb_n=0, ece=0.1
    )
    good = judged(service, reward, "live", **GATE)
    bad = judged(service, reward, "rejected", "win rate over the live version 0.20 < 0.45", **GATE | {"win_rate": 0.2})
    status, found = await service.get("/v1/console/versions")
    policies, rewards = found["policies"], found["rewards"]
    assert status == 200
    assert policies.keys() == document()["components"]["schemas"]["PolicySeries"]["properties"].keys()
    assert policies["version"] == [first, good, bad] and policies["state"] == ["retired", "live", "rejected"]
    assert policies["reward"] == [None, 0.3, 0.3] and policies["live_reward"] == [None, 0.1, 0.1]
    assert policies["win_rate"] == [None, 0.6, 0.2] and policies["kl"] == [0.5, 0.4, 0.4]
    assert policies["win_rate_low"][1] == pytest.approx(0.502, abs=1e-3)  # Wilson's, 60 of 100
    assert policies["win_rate_high"][1] == pytest.approx(0.691, abs=1e-3)
    assert policies["accuracy"] == [None, 0.7, 0.7] and policies["accuracy_high"] == [None, 0.8, 0.8]
    assert policies["first_live_ms"][1] > 0 == policies["first_live_ms"][2]
    assert rewards["version"] == [reward] and rewards["accuracy"] == [0.7] and rewards["ece"] == [0.1]
    assert rewards["thumb_auc"] == [None], "there was no thumb to measure it by"


async def test_what_the_gate_decided_is_told_with_its_reasons_newest_first(service: Service) -> None:
    service.version(live=True)
    reward = reward_version(service, "helpful")
    good = judged(service, reward, "live", **GATE)
    await asyncio.sleep(0.002)  # two events are told apart by their milliseconds
    bad = judged(service, reward, "rejected", "KL to the reference 13.00 > 12", **GATE | {"kl": 13.0})
    _, found = await service.get("/v1/console/history")
    last, before = found["events"]
    assert (last["version"], last["state"], last["reason"]) == (bad, "rejected", "KL to the reference 13.00 > 12")
    assert (last["figures"]["kl"], before["version"], before["state"]) == (13.0, good, "live")
    assert found["more"] is False
    _, page = await service.get(f"/v1/console/history?limit=1&before_ms={last['at_ms']}")
    assert [event["version"] for event in page["events"]] == [good]
    status, refusal = await service.get("/v1/console/history?limit=0")
    assert (status, refusal["error"]["param"]) == (400, "limit")


async def test_a_watcher_is_told_all_and_then_what_changes(service: Service) -> None:
    first = service.version(live=True)
    async with watching(service) as events:
        told = await next_event(events)
        assert told["policies"]["version"] == [first] and told["rewards"]["version"] == []
        assert told["overview"]["learning"]["paused"] is False
        await operate(service, "POST", "/v1/learning/pause", {"reason": "a burst of odd votes"})
        told = await next_event(events)
        assert told["overview"]["learning"]["reason"] == "a burst of odd votes" and "policies" not in told
        second = service.version(live=True)
        told = await next_event(events)
        assert told["policies"]["version"] == [first, second] and told["policies"]["state"] == ["retired", "live"]
        service.stop.set()
        assert await asyncio.wait_for(events.get(), 60) is None, "the service ends, and so does the watch"


@pytest.mark.parametrize(("model", "question"), [(Tally, "last_change_ms"), (Opinions, "of")])
async def test_a_watch_goes_on_where_a_look_failed(
    service: Service, monkeypatch: pytest.MonkeyPatch, model: type, question: str
) -> None:
    failed = asyncio.Event()
    loop = asyncio.get_running_loop()

    def cannot(*_: object) -> None:
        loop.call_soon_threadsafe(failed.set)
        raise ReadModelUnavailable("they are being put in order; try again soon")

    first = service.version(live=True)
    async with watching(service) as events:
        await next_event(events)
        with monkeypatch.context() as broken:
            broken.setattr(model, question, cannot)
            second = judged(service, "", "live", **GATE)
            await asyncio.wait_for(failed.wait(), 60)
        while "policies" not in (told := await next_event(events)):
            pass
        assert told["policies"]["version"] == [first, second]


async def test_a_vote_is_followed_to_the_first_live_version_that_learned_from_it(
    tmp_path: Path,
) -> None:
    log = LocalLog(tmp_path / "state" / "log")
    async with running(tmp_path, log=log) as service:
        live = service.version(live=True)
        service.host.serving = live
        answer = (await service.ask(user="ann"))[1]["id"]
        vote = {"user": "ann", "thumb": {"answer": {"completion_id": answer}, "up": True}}
        event_id = (await service.post("/v1/feedback", vote))[1]["event_id"]
        overview = (await service.get("/v1/console"))[1]
        assert overview["votes"]["backlog"] == 1 and overview["votes"]["oldest_waiting_ms"] > 0
        assert (await service.get("/v1/console/versions"))[1]["policies"]["thumbs_up"] == [1]
        key = vote_key(event_id, service.state.person_hash()("ann"))
        OutcomeBoard(service.registry.store).publish({key: fact("trained", "reward-000000")})
        async with watching(service) as events:
            while (await next_event(events))["overview"]["votes"]["backlog"]:
                pass
            reward = reward_version(service, "helpful")
            judged(service, reward, "live", **GATE)
            while not (told := (await next_event(events))["overview"]["click_to_live"])["votes"]:
                pass
        assert 0 <= told["p50_s"] < 60 and told["counts"][0] == 1
    await asyncio.to_thread(log.close)


async def test_pausing_and_resuming_are_the_operators_and_last(service: Service) -> None:
    assert (await service.post("/v1/learning/pause", {}))[0] == 401
    status, told = await operate(service, "POST", "/v1/learning/pause", {"reason": "odd votes"})
    assert (status, told["paused"], told["reason"]) == (200, True, "odd votes") and told["changed_ms"] > 0
    again = await operate(service, "POST", "/v1/learning/pause", {"reason": "another"})
    assert again == (200, told), "paused already: the first reason and time hold"
    assert learning.read(service.registry.store).paused
    assert (await service.get("/v1/learning"))[1] == told
    assert (await service.get("/readyz"))[0] == 200, "people are answered all the same"
    assert (await operate(service, "POST", "/v1/learning/resume"))[1]["paused"] is False
    assert not learning.read(service.registry.store).paused
    status, refusal = await operate(service, "POST", "/v1/learning/pause", {"reason": 3})
    assert (status, refusal["error"]["param"]) == (400, "reason")


async def test_the_command_asks_the_service_that_it_is_given(
    service: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RLHF_OPERATOR_TOKEN", service.state.operator_token())
    for command, paused in (("pause", True), ("resume", False)):
        assert await asyncio.to_thread(main, ["learning", command, "--url", service.url]) == 0
        assert learning.read(service.registry.store).paused is paused
    assert await asyncio.to_thread(main, ["learning", "status", "--url", service.url]) == 0
    assert "the models learn since" in capsys.readouterr().out


async def test_weights_are_changed_while_everything_runs(service: Service) -> None:
    status, refusal = await operate(service, "PUT", "/v1/learning/weights", {"weights": {"helpful": 2}})
    assert (status, refusal["error"]["code"]) == (409, "no_reward_model")
    reward_version(service, "helpful", "harmless")
    status, told = await operate(service, "PUT", "/v1/learning/weights", {"weights": {"harmless": 2}})
    assert (status, told["weights"]) == (200, {"helpful": 1.0, "harmless": 2.0})
    assert weights.read(service.registry.store, service.state) == {"helpful": 1.0, "harmless": 2.0}
    await operate(service, "PUT", "/v1/learning/weights", {"weights": {"helpful": 0.5}})
    assert weights.read(service.registry.store, service.state) == {"helpful": 0.5, "harmless": 2.0}, (
        "those that are not named stay"
    )


async def test_rules_in_force_have_weights_as_objectives_have(service: Service) -> None:
    reward_version(service, "helpful")
    rules = parse("[propositions.short]\nlength = { max = 3 }\n[rules.terse]\nweights = { short = 1 }\n")
    record.apply(service.registry.store, rules)
    status, told = await operate(service, "PUT", "/v1/learning/weights", {"weights": {"rule:terse": 0.5}})
    assert (status, told["weights"]) == (200, {"helpful": 1.0, "rule:terse": 0.5})
    status, refusal = await operate(service, "PUT", "/v1/learning/weights", {"weights": {"rule:long": 1}})
    assert (status, refusal["error"]["message"]) == (
        400,
        "weights: 'rule:long' is no objective: there are helpful, rule:terse",
    )


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"harmles": 1}, "'harmles' is no objective: there are helpful"),
        ({"helpful": -1}, "the weight of helpful must be a number from 0 to 1e+06"),
        ({"helpful": 0}, "all weights are 0"),
        ({"helpful": "2"}, "expected an object of numbers"),
        ({"helpful": True}, "expected an object of numbers"),
        ([1], "expected an object of numbers"),
        (None, "expected an object of numbers"),
    ],
)
async def test_weights_of_no_use_are_refused_and_change_nothing(service: Service, given: Any, words: str) -> None:
    reward_version(service, "helpful")
    status, refusal = await operate(service, "PUT", "/v1/learning/weights", {"weights": given})
    assert (status, refusal["error"]["param"]) == (400, "weights")
    assert words in refusal["error"]["message"]
    assert weights.read(service.registry.store, service.state) == {}
