"""What no person said is believed as far as it agrees with people, by one taste that explains both."""

import json
import math

import pytest
import torch
from torch import Tensor

from rlhf_online.events import AI
from rlhf_online.training.votes.label_reliability import DIRECTIONS, GRID, SCALES, LabelReliability, log_evidence

WIDTH = 8


def votes(count: int, right: float, seed: int, *, sharp: float = 4.0, width: int = WIDTH) -> Tensor:
    """Rows signed as who is right so often says, where the taste is the first column."""
    generator = torch.Generator().manual_seed(seed)
    rows_Nd = torch.randn(count, width, generator=generator).double()
    better_N = torch.rand(count, generator=generator) < torch.sigmoid(sharp * rows_Nd[:, 0])
    said_N = torch.where(torch.rand(count, generator=generator) < right, better_N, ~better_N)
    return rows_Nd * torch.where(said_N, 1.0, -1.0).double().unsqueeze(1)


def rho(*batches: tuple[Tensor, Tensor]) -> float:
    reliability = LabelReliability()
    for people_Nd, labels_Md in batches:
        reliability.observe(AI, people_Nd, labels_Md)
    return reliability.of(AI)


def test_nothing_seen_is_the_prior():
    reliability = LabelReliability()
    assert reliability.weight(AI) == pytest.approx(0.25, abs=0.01) and reliability.figures() == {}
    for people, labels in ((0, 50), (50, 0)):
        reliability.observe(AI, votes(people, 1.0, 1), votes(labels, 1.0, 2))
    assert reliability.figures() == {}, "who has nobody to agree with is as believed as before"


@pytest.mark.parametrize("right", [0.95, 0.85, 0.7, 0.5])
def test_the_reliability_is_found(right: float):
    assert rho((votes(300, 1.0, 1), votes(300, right, 2))) == pytest.approx(2 * right - 1, abs=0.15)


def test_who_is_always_wrong_is_known_though_they_agree_with_themselves_more_than_people_do():
    """60 people's votes of little sharpness, against 300 labels that are all of one mind."""
    people_Nd = votes(60, 1.0, 1, sharp=1.0)
    contrary = LabelReliability()
    contrary.observe(AI, people_Nd, votes(300, 0.0, 2, sharp=20.0))
    assert contrary.of(AI) < -0.5 and contrary.weight(AI) == 0
    assert rho((people_Nd, votes(300, 1.0, 2, sharp=20.0))) > 0.5


def test_a_models_votes_count_as_far_as_has_been_shown():
    """By the mean of ρ less its deviation: next to nothing of a few labels, or where they are a coin's."""
    weights = []
    for labels, right in ((3, 0.9), (300, 0.9), (300, 0.5)):
        reliability = LabelReliability()
        reliability.observe(AI, votes(30, 1.0, 1), votes(labels, right, 2))
        weights.append(reliability.weight(AI))
        assert weights[-1] < max(0.0, reliability.of(AI)) + 1e-9
    unknown, good, coin = weights
    assert unknown < 0.2 and coin < 0.1 and good > 0.5


def test_evidence_adds_up_over_updates_and_old_evidence_fades():
    people_Nd = votes(40, 1.0, 1)
    batches = [(people_Nd, votes(20, 0.9, seed)) for seed in range(2, 12)]
    assert rho(*batches[:1]) < rho(*batches)
    changed = [(people_Nd, votes(100, 0.1, seed)) for seed in range(20, 40)]
    assert rho(*batches, *changed) < -0.4


def test_the_evidence_is_the_integral_over_the_taste():
    """In one dimension, by quadrature; Laplace's method is off by little."""
    people_Nd, labels_Md = votes(20, 1.0, 1, width=1), votes(15, 0.8, 2, width=1)
    x_N = torch.cat((people_Nd, labels_Md))[:, 0]
    x_N = x_N / x_N.square().mean().sqrt()
    theta_T = torch.linspace(-40, 40, 8001).double()
    tanh_TN = torch.tanh(theta_T.unsqueeze(1) * x_N / 2)
    expected = []
    for value in GRID:
        rho_N = torch.tensor([1.0] * 20 + [value] * 15).double()
        likelihood_T = torch.log((1 + rho_N * tanh_TN) / 2).sum(1)
        priors = [-theta_T.square() / (2 * scale) - math.log(2 * math.pi * scale) / 2 for scale in SCALES]
        expected.append(
            torch.logsumexp(torch.stack([likelihood_T + prior for prior in priors]), (0, 1)) + math.log(0.01)
        )
    assert log_evidence(people_Nd, labels_Md) == pytest.approx([float(value) for value in expected], abs=0.3)


def test_wide_features_are_seen_in_the_directions_in_which_votes_differ_most():
    people_Nd, labels_Md = votes(200, 1.0, 1), votes(200, 0.9, 2)
    faint = torch.randn(400, 3 * DIRECTIONS, generator=torch.Generator().manual_seed(3)).double() * 1e-3
    wide_Nd = torch.cat((torch.cat((people_Nd, labels_Md)), faint), 1)
    assert rho((wide_Nd[:200], wide_Nd[200:])) == pytest.approx(rho((people_Nd, labels_Md)), abs=0.05)


def test_what_is_no_number_is_not_seen_and_what_was_seen_is_kept():
    reliability = LabelReliability()
    reliability.observe(AI, votes(50, 1.0, 1), votes(50, 1.0, 2))
    before = reliability.to_json()
    reliability.observe(AI, votes(5, 1.0, 3), torch.full((5, WIDTH), math.nan).double())
    assert reliability.to_json() == before
    again = LabelReliability()
    again.load_json(json.loads(json.dumps(before)))
    assert again.figures() == reliability.figures() != {}
