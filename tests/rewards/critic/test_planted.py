"""Planted faults tell critics that help from those that grumble, mislead, or say nothing."""

import json

import pytest

from rlhf_online.intervals import Share
from rlhf_online.rewards.critic.planted import PLANTED, PRINCIPLES, probe
from rlhf_online.rewards.judge.verdicts import Messages
from tests.support.scripted_critic import answer_in, knowing, quoting

KIND = ["Be kind."]


def test_each_fault_is_planted_into_words_that_stand_there_once() -> None:
    assert len({asked for asked, *_ in PLANTED}) == len(PLANTED)
    assert all(answer.count(words) == 1 and wrong not in answer for _, answer, words, wrong in PLANTED)


def test_who_knows_finds_all_and_passes() -> None:
    found = probe(knowing, KIND)
    count = len(PLANTED)
    assert (found.recall.value, found.recall.n, found.precision.value, found.precision.n) == (1, count, 1, count)
    assert found.silent == 0 and found.shortcomings(0.8, 0.8) == []


def test_who_finds_fault_with_everything_is_right_in_half() -> None:
    """It quotes all, of right answers too."""
    found = probe(lambda messages: quoting(answer_in(messages)), KIND)
    assert (found.recall.value, found.precision.value) == (1.0, 0.5)
    assert [each.split()[1] for each in found.shortcomings(0.3, 0.5)] == ["precision"]


def test_who_misleads_is_never_right() -> None:
    """It points at what stands beside the fault."""

    def misleading(messages: Messages) -> str:
        answer = answer_in(messages)
        here = [wrong for _, right, words, wrong in PLANTED if right.replace(words, wrong) == answer]
        return quoting(max(answer.split(here[0]), key=len) if here else answer)

    found = probe(misleading, KIND)
    assert (found.recall.value, found.precision.value) == (0.0, 0.0)
    assert len(found.shortcomings(0.3, 0.5)) == 2


def test_who_says_nothing_has_no_precision_that_is_sure() -> None:
    found = probe(lambda messages: "[]", KIND)
    assert (found.recall.value, found.precision, found.silent) == (0.0, Share(0.0, 0.0, 1.0, 0), 0)
    assert len(found.shortcomings(0.3, 0.5)) == 2
    prose = probe(lambda messages: "All is well.", KIND)
    assert prose.silent == 2 * len(PLANTED) and prose.recall.value == 0


def test_a_measured_share_must_surely_reach_what_is_asked_for() -> None:
    """Half of the faults: the lower end of the interval counts (Wilson's of half of some 29)."""
    half = {wrong for *_, wrong in PLANTED[::2]}
    found = probe(lambda messages: knowing(messages, half), KIND)
    assert (found.recall.value, found.recall.low) == (0.5, pytest.approx(0.329, abs=0.001))
    assert found.shortcomings(0.32, 0.5) == []
    [said] = found.shortcomings(0.34, 0.5)
    assert said == "a recall of 0.50, surely 0.33, and least_recall is 0.34"


def test_the_critic_is_asked_by_its_own_principles_and_those_that_the_faults_break() -> None:
    asked: list[Messages] = []
    probe(lambda messages: asked.append(messages) or json.dumps([]), KIND)
    assert len(asked) == 2 * len(PLANTED)
    assert all(f"- {principle}\n" in asked[0][0]["content"] for principle in (*PRINCIPLES, *KIND))
