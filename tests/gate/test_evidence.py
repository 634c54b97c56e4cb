"""What is compared: whole answers of the live version, and the candidate's to the same prompts."""

import math
from collections.abc import Callable
from typing import Any

import pytest

from rlhf_online.gate.check import Evidence
from rlhf_online.gate.evidence import Pair, Tokens, Witnesses, baseline, gather
from rlhf_online.rewards.sources import Scored
from rlhf_online.rollout.types import Rollout, ScoredRollout
from tests.support.gate import answers, evidence_of


def scored(
    prompt: int,
    score: float,
    *,
    version: str = "policy-000001",
    temperature: float = 1.0,
    tokens: tuple[int, ...] = (7, 8, 9, 2),
    finished: bool = True,
    origin: str = "",
) -> ScoredRollout:
    rollout = Rollout(
        rollout_id="r",
        prompt_token_ids=(prompt, 3),
        token_ids=tokens,
        logprobs=(-1.0,) * len(tokens),
        policy_version=version,
        temperature=temperature,
        finished=finished,
        origin=origin,
    )
    return ScoredRollout(rollout=rollout, score=score)


def test_the_baseline_is_the_live_versions_own_answers_one_a_prompt_first() -> None:
    rollouts = [
        scored(1, 0.1),
        scored(1, 0.2),
        scored(2, 0.3, version="policy-000000"),
        scored(3, 0.4, temperature=0.7),
        scored(4, 0.5),
    ]
    assert [s.score for s in baseline(rollouts, "policy-000001", 1.0, 2, 4)] == [0.1, 0.5]
    assert [s.score for s in baseline(rollouts, "policy-000001", 1.0, 9, 4)] == [0.1, 0.5, 0.2]


def first_token(pairs: list[Pair]) -> list[Scored]:
    return [Scored(float(answer[0]), answer[0] / 10) for _, answer in pairs]


def asked_of(
    live: list[ScoredRollout],
    sample: Callable[[list[Tokens]], list[Tokens]],
    *,
    max_tokens: int = 4,
    score: Callable[[list[Pair]], list[Scored]] = first_token,
    held_back: Callable[[list[Pair]], list[Scored]] | None = None,
) -> Evidence:
    """By the candidate every token has log-probability −1, at a KL of .5 to the reference; words are "w7"."""
    witnesses = Witnesses(
        sample=sample,
        score=score,
        logprobs_and_kl=lambda pairs: [([-1.0] * len(answer), [0.5] * len(answer)) for _, answer in pairs],
        decode=lambda ids: " ".join(f"w{token}" for token in ids),
        eos_ids=(2,),
        held_back=held_back,
    )
    return gather(
        live, witnesses, max_tokens=max_tokens, reward_model={"accuracy": 0.75}, held_back_model={"accuracy": 0.625}
    )


def test_without_an_answer_of_the_live_version_nothing_is_asked() -> None:
    def never(*_: object) -> Any:
        raise AssertionError("asked")

    witnesses = Witnesses(sample=never, score=never, logprobs_and_kl=never, decode=never, eos_ids=())
    found = gather([], witnesses, max_tokens=4, reward_model={}, held_back_model={})
    assert found.score_pairs() == [] and found.kl == 0.0


def test_the_candidate_answers_the_same_prompts() -> None:
    asked: list = []

    def sample(prompts: list[Tokens]) -> list[Tokens]:
        asked.extend(prompts)
        return [(prompt[0], 2) for prompt in prompts]

    found = asked_of([scored(10, 0.0, origin="ada's"), scored(20, 15.0, tokens=(12, 2))], sample)
    assert found.origins == ["ada's", ""]
    assert (found.candidate.finished, found.live.finished) == ([True, True], [True, True])
    assert asked == found.prompts == [(10, 3), (20, 3)]
    assert found.prompt_texts == ["w10 w3", "w20 w3"]
    assert found.candidate.token_ids == [(10, 2), (20, 2)] and found.candidate.texts == ["w10 w2", "w20 w2"]
    assert (found.candidate.scores, found.candidate.spreads) == ([10.0, 20.0], [1.0, 2.0])
    assert (found.candidate.lengths, found.live.lengths) == ([2, 2], [4, 2])
    assert (found.reward_model, found.held_back_model) == ({"accuracy": 0.75}, {"accuracy": 0.625})
    assert found.candidate.held_back == found.live.held_back == [], "there is no such model"


def test_both_versions_answers_are_scored_together_whatever_the_live_ones_were_scored_before() -> None:
    asked: list[list[Pair]] = []

    def score(pairs: list[Pair]) -> list[Scored]:
        asked.append(pairs)
        return first_token(pairs)

    found = asked_of([scored(10, 99.0)], lambda prompts: [(5, 2)], score=score)
    assert asked == [[((10, 3), (5, 2)), ((10, 3), (7, 8, 9, 2))]]
    assert found.score_pairs() == [(5.0, 7.0)]


def test_log_probabilities_are_means_a_token_and_the_kl_a_mean_an_answer() -> None:
    found = asked_of([scored(10, 0.0), scored(20, 0.0)], lambda prompts: [(5, 2), (5, 5, 5, 2)])
    assert found.candidate.logprobs == [-1.0, -1.0] and found.live.logprobs == [-1.0, -1.0]
    assert found.kl == pytest.approx((2 * 0.5 + 4 * 0.5) / 2)


def test_longer_answers_of_the_live_version_are_cut_to_the_candidates_limit() -> None:
    live = [scored(10, 9.0, tokens=(7, 8, 2)), scored(20, 0.0, tokens=(4, 2))]
    found = asked_of(live, lambda prompts: [(5, 2) for _ in prompts], max_tokens=2)
    assert found.live.token_ids == [(7, 8), (4, 2)] and found.live.lengths == [2, 2]
    assert found.score_pairs() == [(5.0, 7.0), (5.0, 4.0)]


def test_an_answer_without_a_token_has_no_score() -> None:
    found = asked_of([scored(10, 0.0, tokens=()), scored(20, 0.0)], lambda prompts: [(5, 2), (6, 2)])
    assert math.isnan(found.live.scores[0]) and math.isnan(found.live.logprobs[0])
    assert found.score_pairs() == [(6.0, 7.0)]


def test_the_held_back_model_scores_the_same_answers() -> None:
    def last_token(pairs: list[Pair]) -> list[Scored]:
        return [Scored(float(answer[-1]), 0.5) for _, answer in pairs]

    live = [scored(10, 0.0), scored(20, 0.0, tokens=())]
    found = asked_of(live, lambda prompts: [(5, 3), (6, 4)], held_back=last_token)
    assert (found.candidate.held_back, found.candidate.held_back_spreads) == ([3.0, 4.0], [0.5, 0.5])
    assert found.live.held_back[0] == 2.0 and math.isnan(found.live.held_back[1])
    assert found.usable == [0]


@pytest.mark.parametrize(("unknown", "usable"), [(math.nan, [1, 2]), (math.inf, [1, 2]), (1.0, [0, 1, 2])])
def test_a_prompt_is_usable_where_both_models_give_both_answers_a_number(unknown: float, usable: list[int]) -> None:
    known, one_unknown = [1.0, 2.0, 3.0], [unknown, 2.0, 3.0]
    for place in range(4):
        columns = [one_unknown if place == number else known for number in range(4)]
        candidate = answers(columns[0], held_back=columns[1])
        found = evidence_of(candidate, answers(columns[2], held_back=columns[3]))
        assert found.usable == usable
        assert len(found.score_pairs()) == len(usable)


def test_the_worst_prompts_are_three_at_most_worst_first_and_none_that_is_not_known() -> None:
    found = asked_of([scored(prompt, 0.0) for prompt in (10, 20, 30, 40, 50)], lambda prompts: [(5, 2)] * 5)
    badness = [2.0, math.nan, 5.0, 1.0, 3.0]
    assert found.worst(lambda row: badness[row]) == (2, 4, 0)
    assert found.worst(lambda row: math.nan) == ()


def test_an_answer_cut_before_the_candidates_limit_is_no_baseline() -> None:
    short = scored(1, 0.1, finished=False)
    assert baseline([short], "policy-000001", 1.0, 1, 5) == []
    assert baseline([short], "policy-000001", 1.0, 1, 4) == [short]
    ended = scored(1, 0.1)
    assert baseline([ended], "policy-000001", 1.0, 1, 5) == [ended]
