"""Versions, rollouts, health, metrics, the page; and who may do what."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from rlhf_online.errors import SecretLost
from rlhf_online.eventlog.base import Shipping
from rlhf_online.events import now_ms
from services.chat.access.authorization import Authorization
from tests.support.chat_service import Service, running
from tests.support.fake_generation import EOS

ROLLOUTS = {"prompts": [[1, 2], [3], [4, 5, 6]], "n": 2, "max_tokens": 8, "temperature": 0.9}


async def test_versions_are_listed_for_everybody(service: Service) -> None:
    first, second = service.version(live=True), service.version()
    status, reply = await service.get("/v1/versions")
    assert status == 200
    assert reply["live"] == {"policy": first, "reward": None}
    assert reply["serving"] == "policy-000000"
    assert [(v["version"], v["state"]) for v in reply["versions"]] == [(first, "live"), (second, "candidate")]
    assert reply["versions"][0]["kl"] == 0.5
    assert reply["versions"][0]["position"] == {"local": 7}
    assert (await service.get("/v1/versions?kind=reward"))[1]["versions"] == []
    assert (await service.get("/v1/versions?kind=x"))[0] == 400


async def test_promote_and_roll_back(service: Service) -> None:
    token = service.state.operator_token()
    first, second = service.version(live=True), service.version()
    status, reply = await service.post(f"/v1/versions/{second}/promote", b"", token)
    assert (status, reply["version"], reply["previous"]) == (200, second, first)
    assert service.registry.live("policy") == second
    assert service.registry.status(second).by == reply["by"] == "operator"
    status, reply = await service.post("/v1/versions/rollback", {"reason": "worse"}, token)
    assert (status, reply["version"], reply["previous"]) == (200, first, second)
    assert service.registry.status(second).reason == "worse"
    assert service.registry.status(second).by == service.registry.status(first).by == "operator"
    assert (await service.post(f"/v1/versions/{second}/promote", b"", token))[0] == 409
    assert (await service.post("/v1/versions/policy-000099/promote", b"", token))[0] == 404
    assert (await service.post("/v1/versions/rollback", b"", token))[0] == 409


async def test_rollouts(service: Service) -> None:
    status, reply = await service.post("/v1/rollouts", ROLLOUTS, service.state.operator_token())
    assert status == 200
    assert (reply["policy_version"], reply["max_num_seqs"]) == ("policy-000000", 64)
    answer = {"token_ids": [11, 12, EOS], "logprobs": [-1.0] * 3, "finish_reason": "stop"}
    assert reply["results"] == [[answer, answer]] * 3
    (sent,) = service.engine.requests
    assert sent["prompt"] == ROLLOUTS["prompts"]
    assert (sent["n"], sent["temperature"], sent["top_p"], sent["logprobs"]) == (2, 0.9, 1.0, 0)
    assert service.sink.records == []


@pytest.mark.parametrize("engine", [{}, {"mode": "external", "url": "unix:/engine.sock"}], ids=["own", "others"])
async def test_rollouts_let_people_go_first_whoever_started_the_engine(tmp_path: Path, engine: dict[str, str]) -> None:
    async with running(tmp_path, engine=engine) as service:
        assert (await service.post("/v1/rollouts", ROLLOUTS, service.state.operator_token()))[0] == 200
        assert (await service.ask())[0] == 200
        sampled, asked = service.engine.requests
        assert sampled["priority"] > asked.get("priority", 0) == 0, "vLLM serves smaller numbers first"


async def test_seeded_rollouts_give_each_prompt_its_own_seeds(service: Service) -> None:
    await service.post("/v1/rollouts", {**ROLLOUTS, "seed": 5}, service.state.operator_token())
    seeds = sorted(request["seed"] for request in service.engine.requests)
    assert seeds == [5, 7, 9]  # and n = 2 answers use seed and seed + 1


async def test_many_prompts_come_back_in_order(service: Service) -> None:
    prompts = [[i + 1] for i in range(40)]
    status, reply = await service.post("/v1/rollouts", {"prompts": prompts}, service.state.operator_token())
    assert (status, len(reply["results"])) == (200, 40)
    assert sorted(prompt for request in service.engine.requests for prompt in request["prompt"]) == prompts


async def swapped(service: Service, times: int) -> tuple[int, dict[str, Any]]:
    """A rollout request during whose first `times` attempts the version changes."""
    await service.engine.hold()
    task = asyncio.create_task(service.post("/v1/rollouts", ROLLOUTS, service.state.operator_token()))
    for i in range(times):
        await service.engine.allow(1)
        await service.host.swap(f"policy-00000{i + 1}")
        await service.engine.allow(17)  # 3 prompts × 2 answers × 3 tokens end the attempt
    await service.engine.release()
    return await task


async def test_a_swap_during_rollouts_samples_them_again(service: Service) -> None:
    status, reply = await swapped(service, 1)
    assert (status, reply["policy_version"]) == (200, "policy-000001")
    assert all(answer["logprobs"] == [-2.0] * 3 for answers in reply["results"] for answer in answers)


async def test_two_swaps_during_rollouts_are_a_conflict(service: Service) -> None:
    status, reply = await swapped(service, 2)
    assert (status, reply["error"]["code"]) == (409, "version_changed")


@pytest.mark.parametrize(
    "change",
    [
        {"prompts": []},
        {"prompts": [[]]},
        {"prompts": [["a"]]},
        {"prompts": [[-1]]},
        {"prompts": [[1] * 5000]},
        {"n": 0},
        {"n": 65},
        {"max_tokens": 0},
        {"temperature": 0},
        {"priority": 1},
    ],
)
async def test_bad_rollouts(service: Service, change: dict[str, Any]) -> None:
    status, _ = await service.post("/v1/rollouts", {**ROLLOUTS, **change}, service.state.operator_token())
    assert status == 400
    assert service.engine.requests == []


@pytest.mark.parametrize("token", ["", " ", "\n", "short"])
async def test_a_token_that_could_be_guessed_lets_nobody_in(service: Service, token: str) -> None:
    with pytest.raises(SecretLost, match="fewer than 16 characters"):
        Authorization(service.chat.keys, token, service.state.person_hash())
    (service.state.root / "operator.token").write_text(token)
    for given in (f"Bearer {token}", "Bearer ", "Bearer", "Bearer \t", ""):
        async with service.session.post(
            service.url + "/v1/versions/rollback", headers={"Authorization": given.replace("\n", "")}
        ) as response:
            assert response.status == 401


async def test_health(service: Service) -> None:
    assert await service.get("/healthz") == (200, {"status": "ok"})
    status, ready = await service.get("/readyz")
    assert status == 200
    assert ready["ready"] is True
    assert (ready["serving"], ready["model"], ready["state"]) == ("policy-000000", "base", "ready")


async def test_metrics(service: Service) -> None:
    await service.ask(n=2)
    await service.host.swap("policy-000001")
    await service.host.swap("policy-000002", ok=False)
    await service.host.restart()
    assert await service.metric('rlhf_chat_requests_total{outcome="ok"}') == 1
    assert await service.metric("rlhf_chat_tokens_total") == 6
    assert await service.metric("rlhf_chat_latency_seconds_count") == 1
    assert await service.metric("rlhf_chat_first_token_seconds_count") == 1
    assert await service.metric("rlhf_log_append_seconds_count") == 1
    assert await service.metric('rlhf_swaps_total{outcome="ok"}') == 1
    assert await service.metric('rlhf_swaps_total{outcome="failed"}') == 1
    assert await service.metric("rlhf_swap_pause_seconds_count") == 2
    assert await service.metric("rlhf_engine_restarts_total") == 1
    assert await service.metric('rlhf_serving_version_info{version="policy-000001"}') == 1
    assert await service.metric('rlhf_serving_version_info{version="policy-000000"}') == 0


async def test_what_the_supervisor_sees_of_the_other_services_is_a_metric(service: Service) -> None:
    assert await service.metric('rlhf_service_up{service="trainer"}') == 0
    for state, up in (("restarting", 0), ("running", 1)):
        trainer = {"state": state, "restarts": 3, "last_end": "ended with signal SIGKILL"}
        service.state.write_status("services", {"trainer": trainer})
        assert await service.metric('rlhf_service_up{service="trainer"}') == up
        assert await service.metric('rlhf_service_restarts{service="trainer"}') == 3


async def test_version_changes_are_logged(service: Service) -> None:
    await service.host.swap("policy-000001")
    await service.host.swap("policy-000002", ok=False)
    assert [(c.version, c.state, c.previous) for c in service.sink.changes] == [
        ("policy-000001", "live", "policy-000000"),
        ("policy-000002", "failed", "policy-000001"),
    ]


async def test_what_waits_for_kafka_is_told(service: Service) -> None:
    service.sink.ships = Shipping(backlog=7, oldest_ms=now_ms() - 90_000, failures=2, refused=1)
    assert await service.metric("rlhf_log_backlog_records") == 7
    assert await service.metric("rlhf_log_backlog_seconds") >= 90
    service.sink.ships = Shipping(failures=3, refused=1)
    assert await service.metric("rlhf_log_backlog_records") == 0
    assert await service.metric("rlhf_log_backlog_seconds") == 0
    assert await service.metric("rlhf_log_delivery_failures_total") == 3
    assert await service.metric("rlhf_log_refused_total") == 1
