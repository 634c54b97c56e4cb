"""Three chat services, each a process with an engine of its own (a stand-in), on one store of versions."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from rlhf_online.config import LogSettings
from rlhf_online.events import AnswerRef, Completion, Feedback, Thumb, VersionSpan
from rlhf_online.simulation.tiny_model import write_tiny_model
from rlhf_online.versions import open_registry, pods
from rlhf_online.versions.registry import Registry
from tests.engine.test_host import live, publish
from tests.support.chat_process import ChatProcess
from tests.support.fake_vllm import FakeVllm, fake_vllm
from tests.support.waiting import eventually


@dataclass
class Fleet:
    services: list[ChatProcess]
    engines: list[FakeVllm]
    registry: Registry

    async def ready(self, number: int) -> tuple[int, dict[str, Any]]:
        service = self.services[number]
        async with service.session.get(service.url + "/readyz") as response:
            return response.status, await response.json()

    async def serve(self, version: str, *numbers: int) -> None:
        async def served() -> bool:
            return all([(await self.ready(number))[1]["serving"] == version for number in numbers or range(3)])

        await eventually(served, what=f"{numbers or 'all'} to serve {version}")

    async def all_ready(self) -> bool:
        return [(await self.ready(number))[0] for number in range(3)] == [200] * 3

    async def until_told(self, number: int, metric: str, value: float) -> None:
        async def told() -> bool:
            return (await self.metrics(number))[metric] == value

        await eventually(told, what=f"{metric} to be {value}")

    async def metrics(self, number: int) -> dict[str, float]:
        service = self.services[number]
        async with service.session.get(service.url + "/metrics") as response:
            rows = (row.rsplit(" ", 1) for row in (await response.text()).splitlines() if row[:1] != "#")
            return {name: float(value) for name, value in rows}


@asynccontextmanager
async def fleet(folder: Path) -> AsyncIterator[Fleet]:
    """Three, which serve the first version."""
    registry = open_registry(folder / "versions")
    first = live(registry)
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())
        services, engines = [], []
        for number in range(3):
            own = folder / f"pod-{number}"
            (own / "state").mkdir(parents=True, mode=0o700)
            (own / "state" / "versions").symlink_to(folder / "versions")  # a volume that all mount
            write_tiny_model(own / "base", weights_seed=1)
            engines.append(await stack.enter_async_context(fake_vllm(own)))
            swap = {"poll_s": 0.02, "max_lag_s": 0.3}
            services.append(ChatProcess(own, engines[-1], session, LogSettings(), tuning="full", swap=swap))
            stack.push_async_callback(services[-1].kill)
            await services[-1].start()
        found = Fleet(services, engines, registry)
        await found.serve(first)
        yield found


async def test_pods_follow_the_pointer_one_that_cannot_leaves_and_all_go_back(tmp_path: Path) -> None:
    async with fleet(tmp_path) as found:
        registry, (one, *_) = found.registry, found.services
        first = registry.live("policy")
        bad = publish(registry, 3)
        found.engines[2].refuse_load.add(bad)

        # An answer that the first pod is writing is written on across the change, by both versions, to its end.
        await found.engines[0].hold()
        answer, _ = await asyncio.gather(one.stream(), found.engines[0].allow(1))
        completion = await answer.first_word()
        registry.promote(bad)
        await found.serve(bad, 0, 1)
        await found.engines[0].release()
        await answer.rest()
        asked = await one.ask()

        # The pod whose engine refuses the version leaves, says why, and answers whoever still asks.
        async def left() -> bool:
            return (await found.ready(2))[0] == 503

        await eventually(left)
        said = (await found.ready(2))[1]
        assert said["serving"] == first and f"{bad} has been live" in said["message"]
        assert "cannot load" in said["could_not"][bad] and said["lag_s"] >= 0.3
        await found.until_told(2, "rlhf_pod_behind", 1)
        assert (await found.metrics(2))[f'rlhf_serving_version_info{{version="{first}"}}'] == 1
        await found.services[2].ask()
        assert [(await found.ready(number))[0] for number in (0, 1)] == [200, 200]
        assert registry.status(bad).state == "live"
        await eventually(lambda: [each.serving for each in pods.reports(registry.store)].count(bad) == 2)

        # Rolled back at one of them, all are back.
        headers = {"Authorization": f"Bearer {one.state.operator_token()}"}
        async with one.session.post(one.url + "/v1/versions/rollback", json={}, headers=headers) as response:
            assert (await response.json())["version"] == first
        await found.serve(str(first))
        await eventually(found.all_ready, what="all to be ready again")

        # What the bad version earned stays its own.
        await one.vote(asked)
        events = [envelope.event for envelope in one.logged()]
        written = {event.completion_id: event.answers[0] for event in events if isinstance(event, Completion)}
        by = [span.policy_version for span in written[completion].spans]
        assert by == [first, bad] and 0 < written[completion].spans[1].first_token < 3
        assert written[asked].spans == (VersionSpan(policy_version=bad, first_token=0),)
        votes = [event.kind for event in events if isinstance(event, Feedback)]
        assert votes == [Thumb(answer=AnswerRef(completion_id=asked), up=True)]
