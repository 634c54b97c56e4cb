"""Which prompts are drawn: weights by hand, chances by counting, memory bounded and kept."""

import json
import random

import pytest

from rlhf_online.rollout.curriculum import Curriculum, draw, weights
from rlhf_online.rollout.types import Rollout, ScoredRollout

A, B, C, D = (1,), (2,), (3,), (4,)


def scored(prompt: tuple[int, ...], *scores: float) -> list[ScoredRollout]:
    rollout = Rollout(
        rollout_id="x",
        prompt_token_ids=prompt,
        token_ids=(5, 2),
        logprobs=(-0.5, -0.25),
        policy_version="policy-000003",
        temperature=1.0,
        finished=True,
    )
    return [ScoredRollout(rollout=rollout, score=score) for score in scores]


def test_weights_are_spreads_with_a_floor_and_the_unknown_come_first() -> None:
    assert weights([A, B, C, D], {A: 3.0, B: 0.0, C: 1.0}) == pytest.approx([3.0, 0.1 * 4 / 3, 1.0, 3.0])
    assert weights([A, B], {}) == weights([A, B], {A: 0.0}) == [1.0, 1.0]


def test_chances_are_in_proportion_to_the_weights() -> None:
    rng, count = random.Random(1), 4000
    firsts = [draw([A, B, C], [1.0, 2.0, 5.0], 3, rng) for _ in range(count)]
    assert all(sorted(drawn) == [A, B, C] for drawn in firsts)
    for prompt, chance in ((A, 1 / 8), (B, 2 / 8), (C, 5 / 8)):
        share = sum(drawn[0] == prompt for drawn in firsts) / count
        assert abs(share - chance) < 4 * (chance * (1 - chance) / count) ** 0.5
    second = [drawn[1] for drawn in firsts if drawn[0] == C]
    assert abs(second.count(B) / len(second) - 2 / 3) < 0.04


def test_it_prefers_prompts_whose_answers_differ_and_forgets_the_oldest() -> None:
    curriculum = Curriculum("spread", capacity=3)
    curriculum.observe([*scored(A, 1.0, 1.0), *scored(B, -1.0, 3.0, float("nan")), *scored(C, 5.0)])
    curriculum.observe(scored(B, 0.0, 0.0))
    assert curriculum.to_json() == [[A, 0.0], [B, 1.0]], "half of it is the newest; one answer says nothing"
    again = Curriculum("spread", capacity=3)
    again.restore(json.loads(json.dumps(curriculum.to_json())))
    prompts = [A, B]
    drawn = [curriculum.draw(prompts, 1, random.Random(seed))[0] for seed in range(300)]
    assert drawn == [again.draw(prompts, 1, random.Random(seed))[0] for seed in range(300)]
    assert drawn.count(B) > 250
    again.observe([*scored(C, 0.0, 1.0), *scored(D, 0.0, 1.0)])
    assert [prompt for prompt, _ in again.to_json()] == [B, C, D]


def test_uniform_draws_as_random_sample_does_and_keeps_nothing() -> None:
    curriculum = Curriculum("uniform", capacity=3)
    curriculum.observe(scored(A, 0.0, 1.0))
    assert curriculum.to_json() == []
    assert curriculum.draw([A, B, C], 2, random.Random(3)) == random.Random(3).sample([A, B, C], 2)
