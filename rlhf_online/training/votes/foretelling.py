"""What the reward model makes of a vote before it learns from it, as the watch on drift reads it.

A vote's forecast comes from the pass that learns from it, by weights that it has not moved: those of the update's first
pass, after the steps on the votes that came before it there (prequential: Dawid 1984). No vote is read for it alone.
"""

from collections.abc import Sequence

from rlhf_online.feedback.votes import Comparison, Rating, Vote, is_thumb, ordered_pairs
from rlhf_online.watch.drift import Surprise, foretold
from rlhf_online.watch.leanings import residuals

Giver = tuple[float, float]
"""Of who gave a vote: how far they are believed, and what they add to the answer that stands first (`votes.raters`), or
to that of a thumb."""


def foretell(
    vote: Vote, utilities: Sequence[float], position_bias: Sequence[float], giver: Giver, objective: str
) -> Surprise | None:
    """By the utility of each candidate and what all people add to it for its place. Of people's votes: of ties, of
    implicit signals and of votes that no person gave nothing is foretold."""
    believed, own = giver
    match vote:
        case Rating() if is_thumb(vote) and not vote.by_ai:
            logit = utilities[0] + own
            return foretold(f"{objective}/thumb", [logit if vote.up else -logit], believed=believed)
        case Comparison() if ordered_pairs(vote) and not vote.by_ai:
            added = [bias + own * (at.position == 0) for bias, at in zip(position_bias, vote.candidates, strict=True)]
            total = [utility + more for utility, more in zip(utilities, added, strict=True)]
            ordered = ordered_pairs(vote)
            gaps = [total[better] - total[worse] for better, worse in ordered]
            found = residuals([candidate.token_ids for candidate in vote.candidates], ordered, gaps)
            return foretold(f"{objective}/comparison", gaps, believed=believed, residuals=found)
        case _:
            return None
