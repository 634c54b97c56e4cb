"""Rollouts for an update: live answers first, fresh ones on top, scores pinned and pessimistic."""

import dataclasses
import math
import random
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rlhf_online.errors import EngineUnavailable
from rlhf_online.rewards.sources import Pair, Scored
from rlhf_online.rollout.buffer import RolloutBuffer
from rlhf_online.rollout.curriculum import Kind
from rlhf_online.rollout.sampler import Part
from rlhf_online.rollout.types import Rollout
from rlhf_online.training import experience as module
from rlhf_online.training.experience import Experience
from rlhf_online.training.ledger import Ledger
from rlhf_online.training.retrier import Retrier, Stopped
from rlhf_online.training.settings import RolloutSettings
from rlhf_online.versions import open_registry
from rlhf_online.versions.manifest import Manifest
from rlhf_online.versions.registry import Registry

Tokens = tuple[int, ...]
PROMPTS = [(1, number, 3) for number in range(10, 40)]


def rollout(name: str, version: str, prompt: Tokens = (1, 9, 3), temperature: float = 1.0) -> Rollout:
    return Rollout(
        rollout_id=name,
        prompt_token_ids=prompt,
        token_ids=(7, 2),
        logprobs=(-1.0, -1.0),
        policy_version=version,
        temperature=temperature,
        finished=True,
    )


class Engine:
    """Serves `versions`, one a question, the last one for good."""

    def __init__(self, *versions: str) -> None:
        self.versions = list(versions)
        self.asked: list[tuple[int, int, int, float]] = []
        self.prompts: list[Tokens] = []

    def of(self, version: str) -> "Engine":
        return Engine(version)

    def serving(self, prompt: Tokens) -> str:
        return self.versions.pop(0) if len(self.versions) > 1 else self.versions[0]

    def sample(self, prompts: Sequence[Tokens], n: int, max_tokens: int, temperature: float) -> list[Rollout]:
        self.asked.append((len(prompts), n, max_tokens, temperature))
        self.prompts += prompts
        return [rollout(f"fresh-{p}-{i}", self.versions[0], p) for p in prompts for i in range(n)]

    def stream(self, prompts: Sequence[Tokens], n: int, max_tokens: int, temperature: float) -> Iterator[Part]:
        yield prompts, self.sample(prompts, n, max_tokens, temperature)


class Rewards:
    """Scores by the order of asking; says which version and weights were asked for."""

    def __init__(self, *scores: float) -> None:
        self.scores, self.versions, self.weights = scores, [], []

    def score(
        self,
        pairs: Sequence[Pair],
        reward_version: str,
        timeout: float,
        weights: Mapping[str, float] | None = None,
        rules: str = "",
    ) -> list[Scored]:
        self.versions.append(reward_version)
        self.weights.append(weights)
        return [Scored(score, 0.5) for score in self.scores[: len(pairs)]]

    def wait_for_version(self, version: str, timeout: float) -> None:
        pass


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    registry = open_registry(tmp_path)
    for _ in range(3):
        version = registry.reserve("policy")
        registry.stage(version)
        registry.publish(Manifest(version=version, tuning="full"))
        registry.promote(version)
    return registry


def experience(
    registry: Registry,
    engine: Engine,
    rewards: Rewards,
    live: Sequence[Rollout] = (),
    stop: threading.Event | None = None,
    curriculum: Kind = "uniform",
) -> Experience:
    buffer = RolloutBuffer(100, 1)
    buffer.add(live)
    settings = RolloutSettings.model_validate(
        {"per_cycle": 12, "answers_per_prompt": 4, "max_tokens": 8, "max_staleness": 1, "curriculum": curriculum}
    )
    retrier = Retrier(stop or threading.Event(), lambda doing, error: None)
    return Experience(engine, [rewards], buffer, Ledger(), registry, retrier, settings, pessimism=2.0)


LIVE = "policy-000002"


def gathered(made: Experience, *arguments: Any, **named: Any) -> list[Rollout]:
    """All parts as one."""
    return [rollout for part in made.gather(*arguments, **named) for rollout in part]


def test_live_answers_first_topped_up_by_fresh_ones(registry: Registry) -> None:
    engine = Engine(LIVE)
    live = [rollout(f"live-{n}", LIVE) for n in range(5)] + [rollout("old", "policy-000000")]
    rollouts = gathered(experience(registry, engine, Rewards(), live), PROMPTS, LIVE, 4, random.Random(0))
    assert [r.rollout_id for r in rollouts[:5]] == [f"live-{n}" for n in (4, 3, 2, 1, 0)]
    assert engine.asked == [(2, 4, 8, 1.0)]
    assert len(rollouts) == 13
    assert len({r.prompt_token_ids for r in rollouts[5:]}) == 2


def test_no_answer_is_used_twice(registry: Registry) -> None:
    live = [rollout("live", LIVE)]
    made = experience(registry, Engine(LIVE), Rewards(), live)
    assert gathered(made, [], LIVE, 0, random.Random(0)) == live
    made.buffer.add(live)
    assert gathered(made, [], LIVE, 0, random.Random(0)) == []


def test_enough_answers_by_the_live_version_are_sampled_for_the_gate(registry: Registry) -> None:
    engine = Engine(LIVE)
    live = [rollout(f"live-{n}", "policy-000001") for n in range(12)] + [rollout("warm", LIVE, temperature=0.5)]
    gathered(experience(registry, engine, Rewards(), live), PROMPTS, LIVE, 6, random.Random(0))
    assert engine.asked == [(2, 4, 8, 1.0)]


def test_live_answers_that_are_alone_get_company(registry: Registry) -> None:
    """Twelve live answers would do, but where answers to one prompt are compared eight of them say nothing."""
    engine = Engine(LIVE)
    live = [rollout(f"live-{n}", LIVE, (1, 50 + max(0, n - 4), 3)) for n in range(12)]
    made = experience(registry, engine, Rewards(), live)
    rollouts = gathered(made, PROMPTS, LIVE, 4, random.Random(0), grouped=True)
    assert engine.asked == [(2, 4, 8, 1.0)]
    assert set(engine.prompts) < {(1, 50 + n, 3) for n in range(1, 8)}
    assert len(rollouts) == 20


def test_fresh_answers_of_a_version_that_is_none_any_more_are_dropped(registry: Registry) -> None:
    registry.rollback("policy", reason="bad")
    made = experience(registry, Engine(LIVE), Rewards())
    assert gathered(made, PROMPTS, "policy-000001", 4, random.Random(0)) == []
    assert made.buffer.left_out["stale"] == 12


def test_scores_are_pessimistic_and_pinned(registry: Registry) -> None:
    rewards = Rewards(3.0, float("nan"), -1.0)
    made = experience(registry, Engine(LIVE), rewards)
    scored = made.score_rollouts([[rollout(name, LIVE) for name in "abc"]], "reward-000005", {"helpful": 0.5})
    assert [item.rollout.rollout_id for item in scored] == ["a", "b", "c"]
    assert (scored[0].score, scored[2].score) == (2.0, -2.0) and math.isnan(scored[1].score)
    assert rewards.versions == ["reward-000005"]


def test_answers_are_scored_in_the_parts_in_which_they_come(registry: Registry) -> None:
    """What is scored while the engine still writes is not waited for, and spreads are those of all."""
    rewards = Rewards(3.0, 4.0)
    made = experience(registry, Engine(LIVE), rewards)

    def parts() -> Iterator[list[Rollout]]:
        yield []
        yield [rollout("a", LIVE), rollout("b", LIVE)]
        assert rewards.versions == ["reward-000005"], "those before are scored when the next are asked for"
        yield [rollout("c", LIVE)]

    scored = made.score_rollouts(parts(), "reward-000005", {})
    assert [(item.rollout.rollout_id, item.score) for item in scored] == [("a", 2.0), ("b", 3.0), ("c", 2.0)]
    assert made.spreads == [0.5] * 3 and len(rewards.versions) == 2, "nothing was asked about no answer"


def test_what_came_before_the_engine_was_away_is_not_asked_for_again(registry: Registry) -> None:
    class Leaving(Engine):
        def stream(self, prompts: Sequence[Tokens], n: int, max_tokens: int, temperature: float) -> Iterator[Part]:
            yield prompts[:1], self.sample(prompts[:1], n, max_tokens, temperature)
            if len(self.asked) == 1:
                raise EngineUnavailable("restarting")
            yield prompts[1:], self.sample(prompts[1:], n, max_tokens, temperature)

    engine = Leaving(LIVE)
    rollouts = gathered(experience(registry, engine, Rewards()), PROMPTS, LIVE, 4, random.Random(0))
    assert len(engine.prompts) == len({*engine.prompts}) == 3, "twelve answers, four to a prompt"
    assert [item.prompt_token_ids for item in rollouts] == [prompt for prompt in engine.prompts for _ in range(4)]


def test_an_answer_without_a_token_is_not_scored_and_has_no_score(registry: Registry) -> None:
    made = experience(registry, Engine(LIVE), Rewards(3.0, 4.0))
    rollouts = [rollout("a", LIVE), dataclasses.replace(rollout("empty", LIVE), token_ids=()), rollout("b", LIVE)]
    scores = [item.score for item in made.score_rollouts([rollouts], "reward-000005", {})]
    assert scores[::2] == [2.0, 3.0] and math.isnan(scores[1])


def test_the_curriculum_learns_of_scores_and_says_which_prompts_are_asked(registry: Registry) -> None:
    drawn = Counter[Tokens]()
    for seed in range(30):
        engine = Engine(LIVE)
        made = experience(registry, engine, Rewards(1.0, 1.0, 1.0, 5.0), curriculum="spread")
        answers = [rollout(f"{p}", LIVE, p) for p in PROMPTS[:2] for _ in range(2)]
        made.score_rollouts([answers], "reward-000005", {})
        gathered(made, PROMPTS[:2], LIVE, 0, random.Random(seed))
        drawn.update(engine.prompts[:1])
    assert drawn[PROMPTS[1]] > 20, "whose answers differ in worth"


def test_it_waits_until_the_live_version_serves(registry: Registry) -> None:
    engine = Engine("policy-000001", LIVE)
    assert experience(registry, engine, Rewards()).wait_until_served(LIVE, PROMPTS[0])
    assert engine.versions == [LIVE]


def test_a_version_that_was_rolled_back_meanwhile_is_not_waited_for(registry: Registry) -> None:
    made = experience(registry, Engine("policy-000001"), Rewards())
    registry.rollback("policy", reason="the engine refused it")
    assert not made.wait_until_served(LIVE, PROMPTS[0])


def test_a_version_that_is_not_served_for_half_a_minute_is_gone_on_with(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The live version is that, whatever the engine says: what it answers names the version that wrote it."""
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    monkeypatch.setattr(module, "POLL_S", 0.0)
    engine = Engine("policy-000001")
    assert experience(registry, engine, Rewards()).wait_until_served(LIVE, PROMPTS[0])
    assert next(clock) == 50, "asked at 10, 20, 30 and 40 seconds"


def test_patience_ends_with_a_stop() -> None:
    stop, said = threading.Event(), []

    def waiting(doing: str, error: Exception) -> None:
        said.append(f"{doing}: {error}")
        stop.set()

    def fail() -> None:
        raise EngineUnavailable("loading")

    with pytest.raises(Stopped):
        Retrier(stop, waiting).call("asking", fail)
    assert said == ["asking: loading"]
