"""What the reward model makes of votes before it learns from them."""

import math
from dataclasses import replace

import pytest

from rlhf_online.feedback.votes import Candidate, Comparison, Rating
from rlhf_online.training.votes.foretelling import foretell
from rlhf_online.watch.drift import foretold
from rlhf_online.watch.leanings import residuals

COMPARISON = Comparison(
    event_id="c",
    conversation_id="c",
    person="p",
    prompt_token_ids=(1,),
    candidates=tuple(Candidate(token_ids=(at,), position=at) for at in (0, 1, 2)),
    tiers=((1,), (0, 2)),
)
THUMB = Rating(
    event_id="t",
    conversation_id="t",
    person="p",
    prompt_token_ids=(1,),
    candidate=Candidate(token_ids=(20, 2)),
    up=False,
)


def test_a_comparison_is_foretold_by_the_gaps_of_its_pairs_with_what_places_add():
    """The second of three stands above both others; all people add .2 to what stands first, and this one .5 more."""
    found = foretell(COMPARISON, [1.0, 2.0, -0.5], [0.2, 0.0, 0.0], (0.7, 0.5), "helpful")
    gaps = [2.0 - 1.7, 2.0 + 0.5]
    told = residuals([(0,), (1,), (2,)], [(1, 0), (1, 2)], gaps)
    assert found == foretold("helpful/comparison", gaps, believed=0.7, residuals=told) and set(told) == {0, 1, 2}


def test_a_thumb_is_foretold_with_its_givers_bias():
    up, down = (foretell(replace(THUMB, up=up), [0.5], [9.0], (1.0, 0.75), "harmless") for up in (True, False))
    assert (up, down) == (foretold("harmless/thumb", [1.25]), foretold("harmless/thumb", [-1.25]))


@pytest.mark.parametrize(
    "vote", [replace(COMPARISON, tiers=((0, 1, 2),)), replace(COMPARISON, by_ai=True), replace(THUMB, signal="stop"),
             replace(THUMB, by_ai=True)],
)  # fmt: skip
def test_nothing_is_foretold_of_ties_signals_and_votes_that_no_person_gave(vote: Comparison | Rating):
    assert foretell(vote, [0.0] * 3, [0.0] * 3, (1.0, 0.0), "helpful") is None


def test_what_is_no_number_foretells_none():
    broken = foretell(COMPARISON, [math.nan, 1.0, math.inf], [0.0] * 3, (0.8, 0.0), "helpful")
    assert broken and not math.isfinite(broken.excess)
