"""The gate's verdict, by hand-computed figures."""

import math

import pytest

from rlhf_online.config import GateSettings, RewardTraining
from rlhf_online.gate import Side, baseline, doubt, examine, judge
from rlhf_online.rollout.buffer import Rollout, ScoredRollout

SETTINGS = GateSettings(max_kl=5.0, min_win_rate=0.45, max_length_ratio=1.5, min_length_ratio=0.5, samples=8)
LIVE = Side(scores=[0.0, 0.0, 0.0, 0.0], lengths=[4, 4, 4, 4])


def scored(
    prompt: int,
    score: float,
    *,
    version: str = "policy-000001",
    temperature: float = 1.0,
    tokens: tuple[int, ...] = (7, 8, 9, 2),
    finished: bool = True,
) -> ScoredRollout:
    rollout = Rollout(
        rollout_id="r",
        prompt_token_ids=(prompt, 3),
        token_ids=tokens,
        logprobs=(-1.0,) * len(tokens),
        policy_version=version,
        temperature=temperature,
        finished=finished,
    )
    return ScoredRollout(rollout=rollout, score=score)


def test_a_better_candidate_passes_and_the_figures_are_these() -> None:
    verdict = judge(Side(scores=[1.0, 2.0, 0.0, -1.0], lengths=[4, 5, 6, 5]), LIVE, 2.5, SETTINGS)
    assert verdict.passed
    assert verdict.reasons == ()
    assert verdict.figures["win_rate"] == 0.625  # two wins, a tie, a loss
    # sample variance of (1, 1, .5, 0) is .2291667
    assert verdict.figures["win_rate_stderr"] == pytest.approx(math.sqrt(0.22916667 / 4))
    assert verdict.figures["score"] == 0.5
    assert verdict.figures["length_ratio"] == 1.25
    assert verdict.figures["kl"] == 2.5
    assert verdict.figures["samples"] == 4


@pytest.mark.parametrize(
    ("side", "kl", "reason"),
    [
        (Side(scores=[1.0] * 4, lengths=[4] * 4), 5.1, "KL to the reference 5.10 > 5"),
        (Side(scores=[1.0] * 4, lengths=[4] * 4), math.nan, "KL to the reference nan"),
        (Side(scores=[1.0, -1.0, -1.0, -1.0], lengths=[4] * 4), 1.0, "win rate over the live version 0.25 < 0.45"),
        (Side(scores=[1.0] * 4, lengths=[7] * 4), 1.0, "1.75 times as long"),
        (Side(scores=[1.0] * 4, lengths=[1] * 4), 1.0, "0.25 times as long"),
    ],
)
def test_each_criterion_refuses_and_says_why(side: Side, kl: float, reason: str) -> None:
    verdict = judge(side, LIVE, kl, SETTINGS)
    assert not verdict.passed
    assert len(verdict.reasons) == 1
    assert reason in verdict.reasons[0]


def test_scores_that_are_not_finite_are_left_out_and_nothing_is_no_pass() -> None:
    verdict = judge(Side(scores=[math.nan, 1.0, 1.0, -1.0], lengths=[4] * 4), LIVE, 1.0, SETTINGS)
    assert verdict.figures["samples"] == 3
    assert verdict.figures["win_rate"] == pytest.approx(2 / 3)
    assert not judge(Side(scores=[math.nan] * 4, lengths=[4] * 4), LIVE, 1.0, SETTINGS).passed


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


def test_the_candidate_answers_the_same_prompts() -> None:
    asked: list = []

    def sample(prompts: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
        asked.extend(prompts)
        return [(prompt[0], 2) for prompt in prompts]

    verdict = examine(
        [scored(10, 0.0), scored(20, 15.0)],
        SETTINGS,
        max_tokens=4,
        sample=sample,
        score=lambda pairs: [float(answer[0]) for _, answer in pairs],
        kl_of=lambda pairs: float(len(pairs)),
    )
    assert asked == [(10, 3), (20, 3)]
    assert verdict.figures["win_rate"] == 1.0
    assert verdict.figures["kl"] == 2.0
    assert verdict.figures["length_ratio"] == 0.5


def test_longer_answers_of_the_live_version_are_cut_to_the_candidates_limit_and_scored_again() -> None:
    asked: list[list] = []

    def score(pairs: list) -> list[float]:
        asked.append(pairs)
        return [1.0, 1.0, 3.0]

    # At their full length the live answers score 9 and 0: a loss and a win, at half their length.
    verdict = examine(
        [scored(10, 9.0), scored(20, 0.0, tokens=(7, 2))],
        SETTINGS,
        max_tokens=2,
        sample=lambda prompts: [(5, 2) for _ in prompts],
        score=score,
        kl_of=lambda pairs: 0.0,
    )
    assert asked == [[((10, 3), (5, 2)), ((20, 3), (5, 2)), ((10, 3), (7, 8))]]
    assert verdict.figures["live_score"] == 1.5
    assert verdict.figures["length_ratio"] == 1.0


def test_an_answer_cut_before_the_candidates_limit_is_no_baseline() -> None:
    short = scored(1, 0.1, finished=False)
    assert baseline([short], "policy-000001", 1.0, 1, 5) == []
    assert baseline([short], "policy-000001", 1.0, 1, 4) == [short]
    ended = scored(1, 0.1)
    assert baseline([ended], "policy-000001", 1.0, 1, 5) == [ended]


def test_no_baseline_is_no_pass() -> None:
    verdict = examine([], SETTINGS, max_tokens=4, sample=lambda p: [], score=lambda p: [], kl_of=lambda p: 0.0)
    assert not verdict.passed
    assert verdict.reasons


@pytest.mark.parametrize(
    ("figures", "least", "doubted"),
    [
        ({"accuracy_low": 0.55, "accuracy_n": 300, "thumb_n": 0}, 0.5, False),
        ({"accuracy_low": 0.5, "accuracy_n": 30, "thumb_n": 0}, 0.5, True),
        ({"accuracy_low": 0.0, "accuracy_n": 0, "thumb_auc_low": 0.6, "thumb_n": 80}, 0.5, False),
        ({"accuracy_low": 0.55, "accuracy_n": 300, "thumb_auc_low": 0.6, "thumb_n": 80}, 0.7, True),
        ({}, 0.5, True),
        ({}, 0.0, False),
    ],
)
def test_the_policy_waits_for_a_reward_model_that_is_better_than_chance(figures, least, doubted) -> None:
    said = doubt(figures, RewardTraining.model_validate({"policy_accuracy": least}))
    assert bool(said) is doubted
    if doubted:
        assert f"asks for more than {least:g}" in said and "more votes are needed" in said


def test_the_policy_waits_for_the_first_vote_that_teaches_whatever_accuracy_is_asked_for() -> None:
    settings = RewardTraining.model_validate({"policy_accuracy": 0.0})
    assert "no vote has taught the reward model" in doubt({"taught": 0, "accuracy_n": 0}, settings)
    assert not doubt({"taught": 1, "accuracy_n": 0}, settings)
