"""Votes that the models cannot learn from are refused, with a reason that is a metric's label."""

from dataclasses import replace

import pytest

from rlhf_online.errors import UnusableVote
from rlhf_online.feedback.limits import VoteLimits, check_vote
from rlhf_online.feedback.votes import Comparison
from rlhf_online.models.limits import ModelLimits
from tests.support.comparisons import comparison

LIMITS = VoteLimits(models=ModelLimits(vocabulary=78, context=128), objectives=("helpful", "brief"), tokens=40)


def test_a_vote_that_fits_is_taken() -> None:
    check_vote(comparison(4, (30, 31, 2)), LIMITS)
    check_vote(replace(comparison(2, (30, 2)), objective="brief"), LIMITS)


@pytest.mark.parametrize(
    ("vote", "reason", "why"),
    [
        (comparison(8, (30, 31, 2)), "large", "8 answers take 48 tokens at once, and 40"),
        (comparison(2, (999, 2)), "vocabulary", "vocabulary of 78"),
        (comparison(2, (-1, 2)), "vocabulary", "vocabulary of 78"),
        (comparison(2, ()), "empty", "has no token"),
        (replace(comparison(2, (30, 2)), objective="harmless"), "objective", "'harmless' is none of helpful, brief"),
    ],
)
def test_one_that_does_not_is_refused(vote: Comparison, reason: str, why: str) -> None:
    with pytest.raises(UnusableVote, match=why) as refused:
        check_vote(vote, LIMITS)
    assert refused.value.reason == reason


def test_as_many_tokens_count_as_all_answers_take_with_the_longest() -> None:
    """They are padded to it. The prompt counts with each of them."""
    vote = comparison(2, (30, 2))
    long = replace(vote.candidates[0], token_ids=(30,) * 9)
    vote = replace(vote, candidates=(long, vote.candidates[1]))
    size = 2 * (len(vote.prompt_token_ids) + 9)
    check_vote(vote, replace(LIMITS, tokens=size))
    with pytest.raises(UnusableVote, match=f"take {size} tokens at once, and {size - 1} can be"):
        check_vote(vote, replace(LIMITS, tokens=size - 1))


def test_an_answer_longer_than_the_context_is_refused() -> None:
    with pytest.raises(UnusableVote, match="an answer of 200 tokens does not fit a context of 128") as refused:
        check_vote(comparison(2, (30,) * 200), replace(LIMITS, tokens=10_000))
    assert refused.value.reason == "context"
