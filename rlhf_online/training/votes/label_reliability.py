"""How far to believe the votes that no person gave (`ai`): ρ, learned from how well they and people's votes are
explained by one taste.

A taste is linear in what the reward model's heads see of an answer before it learns from these votes: θ ~ N(0, s I),
and a person's vote says that one answer is better, or good, with probability σ(θ·x). A labeller's vote says so with
probability (1 + ρ tanh(θ·x / 2)) / 2, which is σ(θ·x) at ρ = 1, a coin at 0, and the contrary at −1: the one-coin model
of Dawid & Skene (1979), fitted jointly with what is judged. The evidence for ρ is the marginal likelihood of people's
votes and the labeller's, θ integrated out by Laplace's method (Rasmussen & Williams 2006, eq. 3.32) and s over a grid.
So both are used: whether the labeller agrees with people, and whether it agrees with itself. That alone would let one
who is consistently wrong be believed, but ρ may be negative, and which sign fits is for people to say.

What a vote weighs in the loss is the mean of ρ less its standard deviation, and 0 where that is negative: what has not
been shown does not count, and nobody is learned from backwards.

Evidence adds up over updates, each label counting in the one that it was new in: what the trunk has learned from, it
would find again. Of what is older than MEMORY labels the share 1/e is left.

Shapes: N people's votes, M labels, d features (a vote's x, signed so that the vote says θ·x > 0), G values of ρ.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from rlhf_online.events import AI

GRID = tuple(-0.95 + 0.1 * step for step in range(20))
SCALES = (0.1, 1.0, 10.0)
"""Prior variances of θ·x for an x of usual length."""
PRIORS = {AI: (5.0, 3.0)}
"""Beta distributions of (1 + ρ)/2: a model's votes begin with ρ = ¼ ± .32."""
MEMORY = 500
MOST = 300
"""Of people's votes, and of new labels, that an update looks at: beyond that it takes time and says little."""
DIRECTIONS = 64
"""In which x differ most: the rest is left out."""
NEWTON_STEPS, HALVINGS = 30, 10


def log_evidence(people_Nd: Tensor, labels_Md: Tensor) -> list[float]:
    """For each ρ of GRID the log marginal likelihood of both. Columns are of unit scale (`standardised`)."""
    x_Nd = torch.cat((people_Nd, labels_Md)).double()
    if x_Nd.shape[1] > DIRECTIONS:
        x_Nd = x_Nd @ torch.linalg.svd(x_Nd, full_matrices=False)[2][:DIRECTIONS].T
    x_Nd = x_Nd / x_Nd.square().sum(1).mean().sqrt().clamp(min=1e-9)
    combined = torch.cartesian_prod(torch.tensor(SCALES).double(), torch.tensor(GRID).double())
    scale_C, rho_C = combined.unbind(1)
    rho_CN = torch.ones(len(combined), len(x_Nd)).double()
    rho_CN[:, len(people_Nd) :] = rho_C.unsqueeze(1)
    found_C = _laplace(x_Nd, rho_CN, scale_C)
    return torch.logsumexp(found_C.reshape(len(SCALES), len(GRID)), 0).tolist()


def _laplace(x_Nd: Tensor, rho_CN: Tensor, scale_C: Tensor) -> Tensor:
    """log ∫ N(θ; 0, scale I) Π (1 + ρ tanh(θ·x / 2)) / 2 dθ for each of C settings, by Fisher scoring to the mode."""
    ridge_Cdd = torch.eye(x_Nd.shape[1]).double() / scale_C.reshape(-1, 1, 1)

    def objective(theta_Cd: Tensor) -> Tensor:
        tanh_CN = torch.tanh(theta_Cd @ x_Nd.T / 2)
        return torch.log((1 + rho_CN * tanh_CN) / 2).sum(1) - theta_Cd.square().sum(1) / (2 * scale_C)

    def slopes(theta_Cd: Tensor) -> tuple[Tensor, Tensor]:
        """The gradient, and the expected curvature, which is positive definite."""
        tanh_CN = torch.tanh(theta_Cd @ x_Nd.T / 2)
        change_CN = rho_CN * (1 - tanh_CN.square()) / 4
        probability_CN = (1 + rho_CN * tanh_CN) / 2
        gradient_Cd = (change_CN / probability_CN) @ x_Nd - theta_Cd / scale_C.unsqueeze(1)
        weight_CN = change_CN.square() / (probability_CN * (1 - probability_CN)).clamp(min=1e-12)
        return gradient_Cd, (weight_CN.unsqueeze(2) * x_Nd).transpose(1, 2) @ x_Nd + ridge_Cdd

    theta_Cd = torch.zeros(len(scale_C), x_Nd.shape[1]).double()
    reached_C = objective(theta_Cd)
    for _ in range(NEWTON_STEPS):
        gradient_Cd, curvature_Cdd = slopes(theta_Cd)
        move_Cd = torch.cholesky_solve(gradient_Cd.unsqueeze(2), torch.linalg.cholesky(curvature_Cdd)).squeeze(2)
        step_C1 = torch.ones_like(reached_C).unsqueeze(1)
        found_C = objective(theta_Cd + move_Cd)
        for _ in range(HALVINGS):
            if not (down_C := found_C < reached_C).any():
                break
            step_C1 = torch.where(down_C.unsqueeze(1), step_C1 / 2, step_C1)
            found_C = objective(theta_Cd + step_C1 * move_Cd)
        better_C = found_C > reached_C
        theta_Cd = torch.where(better_C.unsqueeze(1), theta_Cd + step_C1 * move_Cd, theta_Cd)
        gain_C, reached_C = (found_C - reached_C).clamp(min=0), torch.maximum(found_C, reached_C)
        if gain_C.max() < 1e-5:
            break
    _, curvature_Cdd = slopes(theta_Cd)
    logdet_C = 2 * torch.linalg.cholesky(curvature_Cdd).diagonal(dim1=1, dim2=2).log().sum(1)
    return reached_C - (logdet_C + x_Nd.shape[1] * scale_C.log()) / 2


def standardised(features_Nd: Tensor) -> Tensor:
    """Of mean 0 and variance 1 in each column, over these answers."""
    centred_Nd = features_Nd.double() - features_Nd.double().mean(0)
    return centred_Nd / centred_Nd.square().mean(0).sqrt().clamp(min=1e-6)


class LabelReliability:
    """The evidence so far, of each labeller of PRIORS that was seen."""

    def __init__(self) -> None:
        self._evidence: dict[str, list[float]] = {}

    def observe(self, labeller: str, people_Nd: Tensor, labels_Md: Tensor) -> None:
        """New labels, and people's votes on whatever; without any of the latter nothing can be told."""
        finite = all(bool(rows.isfinite().all()) for rows in (people_Nd, labels_Md))
        if not (len(people_Nd) and len(labels_Md) and finite):
            return
        found_G = log_evidence(people_Nd, labels_Md)
        kept = math.exp(-len(labels_Md) / MEMORY)
        before_G = self._evidence.get(labeller, [0.0] * len(GRID))
        highest = max(found_G)
        self._evidence[labeller] = [
            round(kept * old + new - highest, 6) for old, new in zip(before_G, found_G, strict=True)
        ]

    def weight(self, labeller: str) -> float:
        """What a vote counts where a person's counts 1; while there are none to compare it with, ρ's mean."""
        mean, deviation = self._moments(labeller)
        return max(0.0, mean - deviation) if labeller in self._evidence else mean

    def of(self, labeller: str) -> float:
        """The mean of ρ."""
        return self._moments(labeller)[0]

    def _moments(self, labeller: str) -> tuple[float, float]:
        """Mean and standard deviation of ρ."""
        a, b = PRIORS[labeller]
        rho_G = torch.tensor(GRID).double()
        log_prior_G = (a - 1) * torch.log((1 + rho_G) / 2) + (b - 1) * torch.log((1 - rho_G) / 2)
        evidence_G = torch.tensor(self._evidence.get(labeller, [0.0] * len(GRID))).double()
        posterior_G = torch.softmax(log_prior_G + evidence_G, 0)
        mean = posterior_G @ rho_G
        return float(mean), float((posterior_G @ (rho_G - mean).square()).sqrt())

    def figures(self) -> dict[str, float]:
        """ρ of each labeller seen so far."""
        return {labeller: self.of(labeller) for labeller in sorted(self._evidence)}

    def to_json(self) -> dict[str, Any]:
        return dict(self._evidence)

    def load_json(self, values: Mapping[str, Sequence[float]]) -> None:
        self._evidence = {labeller: [float(value) for value in found] for labeller, found in values.items()}
