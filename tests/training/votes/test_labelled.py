"""Votes as rows that a linear taste is asked about."""

import random
from collections.abc import Sequence

import torch
from torch import Tensor

from rlhf_online.feedback.votes import Candidate, Comparison, Rating, Vote
from rlhf_online.models.tokens import Pair
from rlhf_online.training.votes.label_reliability import LabelReliability
from rlhf_online.training.votes.labelled import observe, rows


def ordered(*tokens: int, tied: bool = False, objective: str = "", by_ai: bool = False) -> Comparison:
    places = range(len(tokens))
    return Comparison(
        event_id=f"{tokens}", conversation_id="c", person="ann", prompt_token_ids=(0,), objective=objective,
        by_ai=by_ai, candidates=tuple(Candidate(token_ids=(token,)) for token in tokens),
        tiers=(tuple(places),) if tied else tuple((place,) for place in places),
    )  # fmt: skip


def thumb(token: int, *, up: bool, signal: str = "") -> Rating:
    return Rating(
        event_id=f"{token}", conversation_id="c", person="ann", prompt_token_ids=(0,),
        candidate=Candidate(token_ids=(token,)), up=up, signal=signal,
    )  # fmt: skip


def first_token(answers: Sequence[Pair]) -> Tensor:
    return torch.tensor([[float(answer[0])] for _, answer in answers])


def test_an_order_is_its_ends_difference_and_a_thumb_stands_against_the_mean_and_a_constant():
    """Tokens 1, 3, 2, 2: mean 2, deviation 1/√2."""
    rows_Nd = rows([ordered(3, 9, 1), thumb(2, up=True), thumb(2, up=False)], first_token)
    expected = [[2 * 2**0.5, 0.0], [0.0, 1.0], [0.0, -1.0]]
    assert torch.allclose(rows_Nd, torch.tensor(expected).double())


def test_labels_are_compared_with_people_by_the_same_objective_alone_and_ties_and_signals_say_nothing():
    people: list[Vote] = [ordered(n % 7 + 2, n % 3 // 2) for n in range(60)]
    labels: list[Vote] = [ordered(n % 5 + 3, n % 2, by_ai=True) for n in range(60)]
    silent: list[Vote] = [ordered(1, 2, tied=True), thumb(3, up=False, signal="stop"), ordered(1, 2, objective="kind")]
    for given, said in ((silent, people), (labels, silent[:2]), (labels, [ordered(1, 2, objective="kind")])):
        reliability = LabelReliability()
        observe(reliability, first_token, given, said, random.Random(0))
        assert reliability.figures() == {}
    reliability = LabelReliability()
    observe(reliability, first_token, [*labels, *silent], [*people, *silent], random.Random(0))
    assert reliability.of("ai") > 0.5
