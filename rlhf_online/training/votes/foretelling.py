"""What the reward model makes of votes before it learns from them, as the watch on drift reads it."""

from collections.abc import Sequence

from rlhf_online.feedback.votes import Rating, Vote, is_thumb, ordered_pairs, pairs
from rlhf_online.models.reward import RewardModel
from rlhf_online.training import distributed
from rlhf_online.training.votes.rater_bias import RaterBias
from rlhf_online.watch.drift import Surprise, foretold


def foretell(model: RewardModel, votes: Sequence[Vote], biases: Sequence[RaterBias]) -> list[tuple[Vote, Surprise]]:
    """By the mean of `model`'s heads; `biases` are of each objective. Of people's votes: of ties, of implicit signals
    and of votes that no person gave nothing is foretold."""
    told = [vote for vote in votes if not vote.by_ai and (is_thumb(vote) or ordered_pairs(vote))]
    answers = [pair for vote in told for pair in pairs(vote)]
    if not answers:
        return []
    with model.shards.gathered():
        utilities_NO = distributed.rows(answers, model.utilities, "foretelling votes").mean(2)
    found, at = [], 0
    for vote in told:
        objective, count = vote.objective_index(model.objectives), len(vote.candidates)
        logits = _logits(vote, utilities_NO[at : at + count, objective].tolist(), biases[objective])
        kind = "thumb" if is_thumb(vote) else "comparison"
        found.append((vote, foretold(f"{model.objectives[objective]}/{kind}", logits)))
        at += count
    return found


def _logits(vote: Vote, utilities: Sequence[float], bias: RaterBias) -> list[float]:
    """Of what was said."""
    if isinstance(vote, Rating):
        logit = utilities[0] + bias.of([vote.person])[0]
        return [logit if vote.up else -logit]
    return [utilities[better] - utilities[worse] for better, worse in ordered_pairs(vote)]
