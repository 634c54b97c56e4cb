"""Votes cut into micro-batches."""

import pytest

from rlhf_online.feedback.votes import Candidate, Rating
from rlhf_online.training.votes.passes import _schedule, micro_batches


def _votes(*lengths: int) -> list[Rating]:
    """Thumbs of so many tokens, two of them the prompt's."""
    return [
        Rating(
            event_id=f"e{row}",
            conversation_id="c",
            person="p",
            prompt_token_ids=(1, 3),
            candidate=Candidate(token_ids=(9,) * (length - 2)),
            up=True,
        )
        for row, length in enumerate(lengths)
    ]


def _cut(lengths: list[int], baseline: list[int], limit: int) -> list[int]:
    pairs = [((1, 3), (9,) * (length - 2)) for length in baseline]
    return [len(piece) for piece in micro_batches(_votes(*lengths), pairs, limit)]


def test_as_many_whole_votes_as_fit_padding_included():
    assert _cut([5, 5, 5, 5, 5], [], 10) == [2, 2, 1], "two of five tokens are ten"
    assert _cut([5, 5, 5, 5, 5], [], 9) == [1, 1, 1, 1, 1]
    assert _cut([3, 3, 6], [], 17) == [2, 1], "the widest pads all three to six tokens"
    assert _cut([3, 3, 6], [], 18) == [3]


def test_a_vote_that_is_too_large_stands_alone():
    assert _cut([50, 3, 3], [], 10) == [1, 2]


def test_the_baseline_is_read_with_each():
    assert _cut([5, 5, 5], [5, 5], 20) == [2, 1]
    assert _cut([5, 5, 5], [10], 20) == [1, 1, 1], "it pads, too"


def test_no_votes_are_one_empty_batch():
    assert micro_batches([], [], 10) == [[]]


def test_the_learning_rate_falls_to_a_tenth_and_rises_first_where_the_optimiser_is_young():
    """The first tenth of the first update's steps: a quarter, a half, three quarters, and then as in any other."""
    falling = [1 - 0.9 * done / 40 for done in range(40)]
    assert [_schedule(done, 40, warm_up=False) for done in range(40)] == pytest.approx(falling)
    rising = [min(1.0, (done + 1) / 4) * rate for done, rate in enumerate(falling)]
    assert [_schedule(done, 40, warm_up=True) for done in range(40)] == pytest.approx(rising)
    assert _schedule(0, 4, warm_up=True) == 1.0, "four steps have no tenth"
