"""The checks by hand-computed figures, and the verdict that they add up to."""

import math

import pytest

from rlhf_online.gate.check import Evidence
from rlhf_online.gate.distinct import DistinctCheck
from rlhf_online.gate.kl import KlCheck
from rlhf_online.gate.length import LengthCheck
from rlhf_online.gate.settings import GateSettings
from rlhf_online.gate.verdict import judge
from rlhf_online.gate.win_rate import WinRateCheck
from tests.support.gate import answers, evidence_of

SETTINGS = GateSettings(
    samples=8,
    kl=KlCheck(max=5.0),
    win_rate=WinRateCheck(min=0.45),
    length=LengthCheck(max_ratio=1.5, min_ratio=0.5),
    distinct=DistinctCheck(min_ratio=0.0),
)


def evidence(scores: list[float], lengths: list[int], kl: float = 1.0, live_length: int = 4) -> Evidence:
    """Against a live version whose answers all score 0 and are 4 tokens long."""
    return evidence_of(answers(scores, lengths), answers([0.0] * len(scores), [live_length] * len(scores)), kl=kl)


def test_a_better_candidate_passes_and_the_figures_are_these() -> None:
    verdict = judge(evidence([1.0, 2.0, 0.0, -1.0], [4, 5, 6, 5], kl=2.5), SETTINGS)
    assert verdict.passed
    assert verdict.reasons == ()
    assert (
        verdict.figures.items()
        >= {
            "kl": 2.5,
            "samples": 4,
            "win_rate": 0.625,  # two wins, a tie, a loss
            "win_rate_stderr": pytest.approx(math.sqrt(0.22916667 / 4)),  # sample variance of (1, 1, .5, 0) is .2291667
            "score": 0.5,
            "live_score": 0.0,
            "length": 5.0,
            "live_length": 4.0,
            "length_ratio": 1.25,
        }.items()
    )


def test_of_a_single_pair_nothing_is_known_and_so_its_error_is_a_half() -> None:
    assert judge(evidence([1.0], [4]), SETTINGS).figures["win_rate_stderr"] == 0.5
    assert judge(evidence([1.0, 1.0], [4, 4]), SETTINGS).figures["win_rate_stderr"] == 0.0


@pytest.mark.parametrize(("live", "ratio"), [(1, 1.25), (0, 1.25), (2, 0.625)])
def test_a_live_version_that_says_nothing_counts_as_one_that_says_a_word(live: int, ratio: float) -> None:
    assert judge(evidence([1.0] * 4, [1, 1, 1, 2], live_length=live), SETTINGS).figures["length_ratio"] == ratio


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (evidence([1.0] * 4, [4] * 4, kl=5.1), "KL to the reference 5.10 > 5"),
        (evidence([1.0] * 4, [4] * 4, kl=math.nan), "KL to the reference nan"),
        (evidence([1.0, -1.0, -1.0, -1.0], [4] * 4), "win rate over the live version 0.25 < 0.45"),
        (evidence([1.0] * 4, [7] * 4), "1.75 times as long as the live version's > 1.5"),
        (evidence([1.0] * 4, [1] * 4), "0.25 times as long as the live version's < 0.5"),
    ],
)
def test_each_check_refuses_and_says_why(found: Evidence, reason: str) -> None:
    verdict = judge(found, SETTINGS)
    assert not verdict.passed
    assert len(verdict.reasons) == 1
    assert reason in verdict.reasons[0]


@pytest.mark.parametrize(
    "found",
    [
        evidence([1.0] * 4, [4] * 4, kl=5.0),
        evidence([1.0] * 9 + [-1.0] * 11, [4] * 20),
        evidence([1.0] * 4, [6] * 4),
        evidence([1.0] * 4, [2] * 4),
    ],
    ids=["kl", "win rate", "longest", "shortest"],
)
def test_a_limit_itself_may_be_reached(found: Evidence) -> None:
    assert judge(found, SETTINGS).passed


def test_a_verdict_names_every_objection_in_the_order_of_the_settings() -> None:
    verdict = judge(evidence([-1.0] * 4, [7] * 4, kl=9.0), SETTINGS)
    assert [reason.split()[0] for reason in verdict.reasons] == ["KL", "win", "answers"]


def test_scores_that_are_not_finite_are_left_out_and_nothing_is_no_pass() -> None:
    verdict = judge(evidence([math.nan, 1.0, 1.0, -1.0], [4] * 4), SETTINGS)
    assert verdict.figures["samples"] == 3
    assert verdict.figures["win_rate"] == pytest.approx(2 / 3)
    assert not judge(evidence([math.nan] * 4, [4] * 4), SETTINGS).passed


def test_no_baseline_is_no_pass() -> None:
    verdict = judge(evidence([], []), SETTINGS)
    assert not verdict.passed
    assert verdict.reasons == ("no answers to compare with the live version's",)


def test_examples_are_the_prompts_that_show_it_best() -> None:
    found = evidence([1.0, -2.0, 0.5, -3.0, math.nan], [4, 9, 5, 12, 4])
    assert WinRateCheck().examine(found).examples == (3, 1, 2)
    assert LengthCheck().examine(found).examples == (3, 1, 2), "answers grew: the longest"
    assert LengthCheck().examine(evidence([1.0] * 4, [3, 1, 2, 4])).examples == (1, 2, 0), "they shrank: the shortest"
