"""A person's own taste beside the common reward model's, from a few of their votes: a Bayesian linear head. Pure.

What a person thinks of an answer is the common model's utility u and a linear function of what its heads see of it, φ:

    u_person = u + φ·δ        δ ~ N(0, Σ)

so that before the first vote it is what everybody's is. An order of answers is Plackett–Luce on u_person, as the
reward model learns it; a thumb is an order of its answer and the person's own threshold, one more answer, of utility 0,
with a feature of its own. Ten votes say little of δ in as many directions as a trunk has: Σ says in which ones people
differ, and how far, and is learned from people who are known. φ is what the heads see in the directions in which
answers differ most, each of variance 1 (`Space`).

*Posterior*: Laplace's approximation at the mode, which Newton's steps find, halved where they would go too far; the
likelihood is log-concave (Bishop 2006, section 4.5). *Σ*: by EM, whose step is the mean of E[δδᵀ] over people
(Dempster, Laird, Rubin 1977), with Laplace's posterior in the place of the exact one.

Shapes: V votes of a person, G answers of the largest, N and M answers, d hidden width, R features. All in float64.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

DIRECTIONS = 32
LEAST_STD = 1e-3
"""Of a direction's standard deviation, as a share of the largest one's."""
EM_STEPS = 10
MOST_STEPS = 50
LEAST_SHARE = 1e-6
"""Of a step of Newton's."""
CONVERGED = 1e-9
"""Nats by which the posterior still rises."""


@dataclass(frozen=True, slots=True)
class Space:
    """The features of answers by what the heads see of them."""

    mean_d: Tensor
    directions_dR: Tensor

    @classmethod
    def of(cls, seen_Nd: Tensor) -> "Space":
        """The principal directions of these answers, DIRECTIONS at most, each divided by its standard deviation."""
        mean_d = seen_Nd.double().mean(0)
        _, std_R, directions_Rd = torch.linalg.svd(
            (seen_Nd.double() - mean_d) / len(seen_Nd) ** 0.5, full_matrices=False
        )
        kept = (std_R > LEAST_STD * std_R[0]).nonzero().flatten()[:DIRECTIONS]
        return cls(mean_d, directions_Rd[kept].T / std_R[kept])

    @property
    def features(self) -> int:
        """R: the directions, and the one that is kept free for the threshold of thumbs."""
        return self.directions_dR.shape[1] + 1

    def __call__(self, seen_Nd: Tensor) -> Tensor:
        """(N, R)."""
        features_NR = (seen_Nd.double() - self.mean_d) @ self.directions_dR
        return torch.nn.functional.pad(features_NR, (0, 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ordered:
    """A vote: the features of its answers, the common model's utilities, and their tiers, 0 for the best. Answers of
    one tier say nothing of each other."""

    features_GR: Tensor
    utilities_G: Tensor
    tiers: tuple[int, ...]


def thumb(features_R: Tensor, utility: float, *, up: bool) -> Ordered:
    """A vote on one answer."""
    threshold_R = torch.zeros_like(features_R)
    threshold_R[-1] = 1
    return Ordered(
        features_GR=torch.stack([features_R, threshold_R]),
        utilities_G=torch.tensor([utility, 0.0], dtype=torch.float64),
        tiers=(0, 1) if up else (1, 0),
    )


@dataclass(frozen=True, slots=True)
class Profile:
    """δ's posterior."""

    mean_R: Tensor
    covariance_RR: Tensor

    def utilities(self, features_MR: Tensor, utilities_M: Tensor) -> Tensor:
        """What the person is expected to think of answers, (M,)."""
        return utilities_M + features_MR @ self.mean_R


def profile(votes: Sequence[Ordered], prior_RR: Tensor) -> Profile:
    """Of somebody's votes, where people differ by Σ = `prior_RR`."""
    likelihood, precision_RR = _Likelihood(votes), torch.linalg.inv(prior_RR)
    mean_R = torch.zeros(len(prior_RR), dtype=torch.float64)

    def posterior(delta_R: Tensor) -> float:
        return float(likelihood.log(delta_R) - delta_R @ precision_RR @ delta_R / 2)

    reached = posterior(mean_R)
    for _ in range(MOST_STEPS):
        slope_R, curvature_RR = likelihood.derivatives(mean_R)
        step_R = torch.linalg.solve(curvature_RR + precision_RR, slope_R - precision_RR @ mean_R)
        share, before = 1.0, reached
        while (reached := posterior(mean_R + share * step_R)) < before and share > LEAST_SHARE:
            share /= 2
        if reached < before + CONVERGED:
            break
        mean_R = mean_R + share * step_R
    _, curvature_RR = likelihood.derivatives(mean_R)
    return Profile(mean_R, torch.linalg.inv(curvature_RR + precision_RR))


def prior(people: Sequence[Sequence[Ordered]], features: int) -> Tensor:
    """Σ from the votes of people, (R, R). It begins as that of tastes of half a nat, the same in all directions."""
    prior_RR = 0.25 * torch.eye(features, dtype=torch.float64) / features
    for _ in range(EM_STEPS if people else 0):
        known = [profile(votes, prior_RR) for votes in people]
        moments = [each.mean_R.outer(each.mean_R) + each.covariance_RR for each in known]
        prior_RR = torch.stack(moments).mean(0)
    return prior_RR


class _Likelihood:
    """Of the orders of votes, as a function of δ: each answer is preferred to all in lower tiers."""

    def __init__(self, votes: Sequence[Ordered]) -> None:
        pad = torch.nn.utils.rnn.pad_sequence
        self._features_VGR = pad([vote.features_GR.double() for vote in votes], batch_first=True)
        self._utilities_VG = pad([vote.utilities_G.double() for vote in votes], batch_first=True)
        tiers_VG = pad([torch.tensor(vote.tiers) for vote in votes], batch_first=True, padding_value=-1)
        lower_VGG = (tiers_VG.unsqueeze(1) > tiers_VG.unsqueeze(2)) & (tiers_VG.unsqueeze(2) >= 0)
        own_GG = torch.eye(tiers_VG.shape[1], dtype=torch.bool)
        self._field_VGG = lower_VGG | own_GG
        """Of each answer itself and those that it is preferred to; itself alone where there are none."""

    def log(self, delta_R: Tensor) -> Tensor:
        logits_VGG = self._logits(delta_R)
        return (logits_VGG.diagonal(dim1=1, dim2=2) - logits_VGG.logsumexp(2)).sum()

    def derivatives(self, delta_R: Tensor) -> tuple[Tensor, Tensor]:
        """Its gradient, and its Hessian times −1."""
        shares_VGG, x_VGR = self._logits(delta_R).softmax(2), self._features_VGR
        mean_VGR = shares_VGG @ x_VGR
        second_RR = torch.einsum("vij,vjr,vjs->rs", shares_VGG, x_VGR, x_VGR)
        return (x_VGR - mean_VGR).sum((0, 1)), second_RR - torch.einsum("vir,vis->rs", mean_VGR, mean_VGR)

    def _logits(self, delta_R: Tensor) -> Tensor:
        own_VG = self._utilities_VG + self._features_VGR @ delta_R
        return own_VG.unsqueeze(1).masked_fill(~self._field_VGG, float("-inf"))
