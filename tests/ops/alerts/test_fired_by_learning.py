"""Alerts that fire for real: trainer and reward service as processes, a real log of votes, and a real Prometheus.

The trainer's engine is its own (tests/support/trainer_world.py): it samples in torch. Durations are shortened, and
nothing else (tests/support/alerting.py).
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from rlhf_online.config import RewardSettings, dump
from rlhf_online.events import Envelope
from rlhf_online.gate.held_back import HeldBackCheck
from rlhf_online.gate.kl import KlCheck
from rlhf_online.gate.proxy_gap import ProxyGapCheck
from rlhf_online.gate.win_rate import WinRateCheck
from rlhf_online.rewards import audiences
from rlhf_online.training.policy.settings import PolicyTraining
from rlhf_online.training.settings import RolloutSettings
from tests.support.alerting import SHARE, Alerts, alerts
from tests.support.chat_process import ROOT
from tests.support.prometheus import Target
from tests.support.proxy import Proxy
from tests.support.small_disk import cannot_mount, small_disk
from tests.support.trainer_world import LENIENT, MAX_TOKENS, PROMPTS, World, world
from tests.support.waiting import eventually

pytestmark = pytest.mark.ops


Process = asyncio.subprocess.Process
TRAINER = "tests.support.trainer_process"


@asynccontextmanager
async def process(module: str, *arguments: str | Path, ready: Path) -> AsyncIterator[tuple[Process, str]]:
    """A service's process, and where its metrics are."""
    started = await asyncio.create_subprocess_exec(sys.executable, "-m", module, *arguments, cwd=ROOT)
    try:

        def port() -> int:
            assert started.returncode is None
            return json.loads(ready.read_text())["metrics"] if ready.exists() else 0

        yield started, f"127.0.0.1:{await eventually(port)}"
    finally:
        if started.returncode is None:
            started.kill()
        await started.wait()


@asynccontextmanager
async def trainer(
    tiny: World, folder: Path, *, reward: str = "", share: float = SHARE
) -> AsyncIterator[tuple[Process, Alerts]]:
    """A trainer in this world, watched; `reward` is where it finds the reward service."""
    changes = {"reward_address": reward or tiny.service.address, "ready_file": folder / "ready.json"}
    dump(tiny.settings.model_copy(update=changes), folder / "trainer.toml")
    running = process(TRAINER, folder / "trainer.toml", ready=folder / "ready.json")
    async with running as (started, address), alerts(folder, [Target("trainer", address)], share) as found:
        yield started, found


async def votes(tiny: World) -> None:
    """People go on chatting and voting, until cancelled."""
    while True:
        await asyncio.to_thread(tiny.chat, 12)
        await asyncio.sleep(1)


STRICT = LENIENT.model_copy(update={"kl": KlCheck(max=1e-9)})


async def test_candidates_that_are_all_refused_everybodys_and_an_audiences(tmp_path: Path) -> None:
    perfect = LENIENT.model_copy(update={"win_rate": WinRateCheck(min=1.0)})
    with world(tmp_path, gate=perfect, tuning="lora") as tiny:
        audiences.define(tiny.registry.store, "brief", {"helpful": 2.0}, {}, ["helpful"])
        async with trainer(tiny, tmp_path, share=1 / 60) as (_, found):
            voting = asyncio.create_task(votes(tiny))
            await found.fires("RlhfGateRefusesEverything", severity="warning", service="trainer", kind="policy")
            await found.fires("RlhfGateRefusesEverything", severity="warning", service="trainer", kind="policy.brief")
            voting.cancel()
            await asyncio.wait([voting])


async def test_candidates_beyond_the_kl_limit(tmp_path: Path) -> None:
    with world(tmp_path, gate=STRICT) as tiny:
        async with trainer(tiny, tmp_path, share=1 / 3600) as (_, found):
            voting = asyncio.create_task(votes(tiny))
            await found.fires("RlhfKlOverLimit", severity="warning", service="trainer")
            voting.cancel()
            await asyncio.wait([voting])


async def test_an_engine_that_serves_an_average_and_a_trainer_that_learns_on_from_the_last_weights(
    tmp_path: Path,
) -> None:
    """What the live version answers with is then not what learns: in the tiny world a small difference, but one."""
    tight = RolloutSettings(per_cycle=32, max_tokens=MAX_TOKENS, max_mismatch=1e-9)
    policy = PolicyTraining(epochs=1, minibatches=2, max_step_kl=50.0, ema=0.9)
    with world(tmp_path, policy=policy, rollout=tight) as tiny:
        async with trainer(tiny, tmp_path, share=1 / 3600) as (_, found):
            voting = asyncio.create_task(votes(tiny))
            await found.fires("RlhfMismatch", severity="warning", service="trainer")
            voting.cancel()
            await asyncio.wait([voting])


async def test_a_trainer_whose_reward_service_is_away(tmp_path: Path) -> None:
    with world(tmp_path) as tiny, Proxy() as proxy:
        proxy.target = int(tiny.service.address.rpartition(":")[2])
        async with trainer(tiny, tmp_path, reward=proxy.address) as (_, found):
            proxy.cut = True
            await asyncio.to_thread(tiny.chat, 20)
            await found.fires("RlhfTrainerStalled", severity="critical", service="trainer")
            await found.fires("RlhfConsumerLag", severity="warning")
            proxy.cut = False
            await found.ends("RlhfTrainerStalled")
            await found.ends("RlhfConsumerLag")


async def test_a_checkpoints_volume_that_is_full(tmp_path: Path) -> None:
    if why := cannot_mount(tmp_path / "tried"):
        pytest.skip(why)
    with world(tmp_path) as tiny, small_disk(tiny.state.checkpoints, mib=64) as disk:
        async with trainer(tiny, tmp_path) as (_, found):
            disk.fill()
            await asyncio.to_thread(tiny.chat, 20)
            await found.fires("RlhfDiskFills", severity="critical", service="storage", folder="checkpoints")
            await found.fires("RlhfTrainerStalled", severity="critical", service="trainer")
            assert "No space left" in tiny.state.read_status("trainer")["waiting_for"]
            disk.free()
            await found.ends("RlhfDiskFills")
            await found.ends("RlhfTrainerStalled")


async def test_votes_whose_answers_never_come_and_records_that_are_none(tmp_path: Path) -> None:
    with world(tmp_path) as tiny:
        async with trainer(tiny, tmp_path, share=1 / 60) as (_, found):
            for number in range(30):
                tiny.orphan(created_ms=1_000_100)
                tiny.log.append(b"\xff\xff no envelope %d" % number).result(10)
            rollouts = tiny.engine.sample([(1, 5, 3)], 1, 4, 1.0)
            for _ in range(60):  # the log's time is what most of its last events say
                later = tiny.completion(PROMPTS[0], rollouts, finished_ms=9_000_000)
                tiny.append(Envelope(event_id=later.completion_id, event=later))
            await found.fires("RlhfDeadLettersRising", severity="warning", service="trainer")
            await found.fires("RlhfOrphansRising", severity="warning", service="trainer")


async def test_a_trainer_that_is_gone(tmp_path: Path) -> None:
    with world(tmp_path) as tiny:
        async with trainer(tiny, tmp_path) as (started, found):
            started.kill()
            await found.fires("RlhfServiceGone", service="trainer", severity="warning", job="trainer")


async def test_a_reward_service_that_is_gone(tmp_path: Path) -> None:
    with world(tmp_path) as tiny:
        ready, config = tmp_path / "ready.json", tmp_path / "reward.toml"
        given = {"state_dir": tiny.state.root, "model": tiny.settings.model, "device": "cpu", "ready_file": ready}
        dump(RewardSettings.model_validate({**given, "grpc_port": 0, "metrics_port": 0}), config)
        async with process("services.reward", "--config", config, ready=ready) as (started, address):
            async with alerts(tmp_path, [Target("reward", address)]) as found:
                started.kill()
                await found.fires("RlhfServiceGone", service="reward", severity="warning", job="reward")


async def test_a_policy_that_gains_by_its_own_reward_model_alone(tmp_path: Path) -> None:
    """The smallest gap counts here, since no policy of a test over-optimises within a minute."""
    apart = HeldBackCheck(share=0.5, min_win_rate=0.0)
    gate = LENIENT.model_copy(update={"held_back": apart, "proxy_gap": ProxyGapCheck(max=1e-9)})
    with world(tmp_path, gate=gate, cold_votes=60) as tiny:
        await asyncio.to_thread(tiny.chat, 120)
        async with trainer(tiny, tmp_path, share=1 / 3600) as (_, found):
            voting = asyncio.create_task(votes(tiny))
            await found.fires("RlhfRewardsPart", severity="warning", service="trainer")
            voting.cancel()
            await asyncio.wait([voting])
