"""Votes as rows x of a linear taste θ, signed so that each says θ·x > 0: what `label_reliability` compares them by.

A vote that puts answers in order is the difference of the first one and the last, a thumb what its answer has beyond
the mean of all, and a constant, since some people like everything. Signals, ties and doubts say nothing here.
"""

import random
from collections import defaultdict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from rlhf_online.events import AI
from rlhf_online.feedback.votes import Comparison, Vote, is_signal, orders_answers
from rlhf_online.models.tokens import Pair
from rlhf_online.training.votes.label_reliability import MOST, LabelReliability, standardised

Features = Callable[[Sequence[Pair]], Tensor]
"""What the reward model's heads see of answers, (N, d)."""


def observe(
    reliability: LabelReliability,
    features: Features,
    labels: Sequence[Vote],
    people: Sequence[Vote],
    rng: random.Random,
) -> None:
    """Take in new `labels`, an objective at a time, beside what `people` said by the same one."""
    by_objective: dict[str, tuple[list[Vote], list[Vote]]] = defaultdict(lambda: ([], []))
    for kind, votes in enumerate((labels, people)):
        for vote in votes:
            if orders_answers(vote) and not is_signal(vote):
                by_objective[vote.objective][kind].append(vote)
    for _, (labelled, said) in sorted(by_objective.items()):
        if labelled and said:
            labelled, said = (rng.sample(votes, min(MOST, len(votes))) for votes in (labelled, said))
            rows_Nd = rows([*said, *labelled], features)
            reliability.observe(AI, rows_Nd[: len(said)], rows_Nd[len(said) :])


def rows(votes: Sequence[Vote], features: Features) -> Tensor:
    """A row for each vote, (N, d + 1)."""
    ends = [_ends(vote) for vote in votes]
    features_Ad = standardised(features([pair for better, worse in ends for pair in (better, worse) if pair]))
    rows_Nd, at = torch.zeros(len(votes), features_Ad.shape[1] + 1, dtype=torch.float64), 0
    for row_d, (better, worse) in zip(rows_Nd, ends, strict=True):
        if better:
            row_d[:-1] += features_Ad[at]
            at += 1
        if worse:
            row_d[:-1] -= features_Ad[at]
            at += 1
        row_d[-1] = bool(better) - bool(worse)
    return rows_Nd


def _ends(vote: Vote) -> tuple[Pair | None, Pair | None]:
    """The best and the worst answer; of a thumb one alone."""
    prompt = vote.prompt_token_ids
    if isinstance(vote, Comparison):
        best, worst = (vote.candidates[tier[0]] for tier in (vote.tiers[0], vote.tiers[-1]))
        return (prompt, best.token_ids), (prompt, worst.token_ids)
    pair = (prompt, vote.candidate.token_ids)
    return (pair, None) if vote.up else (None, pair)
