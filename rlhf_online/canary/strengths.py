"""How strong versions are by what people said of blind pairs, and how sure that is. Pure; for people to look at.

R. R. Davidson, "On Extending the Bradley–Terry Model to Accommodate Ties in Paired Comparison Experiments", JASA 65
(1970), equations 2.4 and 2.5: of versions with the strengths s_i = ln π_i,

    P(i is better) ∝ π_i,   P(j is better) ∝ π_j,   P(tie) ∝ ν √(π_i π_j)

The log-likelihood is concave in (s, ln ν), so Newton's method finds its maximum. The intervals take people, not votes,
for what is independent: a sandwich estimate with a cluster for each person (K.-Y. Liang, S. L. Zeger, Biometrika 73
(1986)), and no less than the inverse information, since the sandwich of a version that won all its pairs has nothing
inside. They hold at one look only; what decides is `betting`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlhf_online.intervals import Z

PRIOR_SD = 5.0
"""Nats. A normal prior around the base's strength, so weak that it shows only where a version won, or lost, all its
pairs, or was compared with nothing that leads to the base: there nothing else bounds it."""
STEPS, ENOUGH = 100, 1e-10
ELO = 400 / math.log(10)
"""Points of a nat."""

Array = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """What a person said of two versions: `first_better` is 1, 0, or ½ for a tie."""

    person: str
    first: str
    second: str
    first_better: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Strength:
    """In nats above the base, with a 95 % interval: infinite where one person said everything."""

    strength: float
    low: float
    high: float

    @property
    def elo(self) -> float:
        """The strength in Elo's points: 400 are odds of 10 : 1. For display."""
        return ELO * self.strength


def strengths(pairs: Sequence[Pair], base: str) -> dict[str, Strength]:
    """The strength of each version that was compared; `base` has 0.

    Raises ValueError for a `first_better` that is none of 0, ½ and 1, or a version against itself.
    """
    for pair in pairs:
        if pair.first_better not in (0, 0.5, 1) or pair.first == pair.second:
            raise ValueError(f"expected 0, ½ or 1 for two versions, got {pair}")
    names = sorted({name for pair in pairs for name in (pair.first, pair.second)} - {base})
    if not names:
        return {base: Strength(strength=0.0, low=0.0, high=0.0)}
    features_NOP, said_N = _features(pairs, names)
    prior_P = np.full(features_NOP.shape[2], PRIOR_SD**-2)
    estimate_P = np.zeros(features_NOP.shape[2])
    for _ in range(STEPS):
        scores_NP, information_PP = _derivatives(features_NOP, said_N, estimate_P)
        step_P = np.linalg.solve(information_PP + np.diag(prior_P), scores_NP.sum(0) - prior_P * estimate_P)
        estimate_P = estimate_P + step_P * min(1.0, 1 / max(np.abs(step_P).max(), ENOUGH))  # 1 nat a step at most
        if np.abs(step_P).max() < ENOUGH:
            break
    scores_NP, information_PP = _derivatives(features_NOP, said_N, estimate_P)
    inverse_PP = np.linalg.inv(information_PP + np.diag(prior_P))
    clustered_PP = _sandwich(scores_NP, [pair.person for pair in pairs], inverse_PP)
    half_P = Z * np.sqrt(np.maximum(np.diag(clustered_PP), np.diag(inverse_PP)))
    found = {base: Strength(strength=0.0, low=0.0, high=0.0)}
    for name, value, half in zip(names, estimate_P.tolist(), half_P.tolist(), strict=False):
        found[name] = Strength(strength=value, low=value - half, high=value + half)
    return found


def _features(pairs: Sequence[Pair], names: Sequence[str]) -> tuple[Array, NDArray[np.intp]]:
    """For each pair what its three outcomes (first, second, tie) add of each parameter to the log-probability, and
    which outcome it had. The last parameter is ln ν; without ties there is none, as ν is 0 then.
    """
    place = {name: at for at, name in enumerate(names)}
    ties = any(pair.first_better == 0.5 for pair in pairs)
    features_NOP = np.zeros((len(pairs), 3 if ties else 2, len(names) + ties))
    for row_OP, pair in zip(features_NOP, pairs, strict=True):
        for outcome, name in enumerate((pair.first, pair.second)):
            if (at := place.get(name)) is not None:
                row_OP[outcome, at] = 1.0
                row_OP[2:, at] = 0.5
        row_OP[2:, -1] = 1.0
    return features_NOP, np.array([{1: 0, 0: 1, 0.5: 2}[pair.first_better] for pair in pairs])


def _derivatives(features_NOP: Array, said_N: NDArray[np.intp], at_P: Array) -> tuple[Array, Array]:
    """Gradient of each pair's log-likelihood, and the negative Hessian of their sum."""
    logits_NO = features_NOP @ at_P
    p_NO = np.exp(logits_NO - logits_NO.max(1, keepdims=True))
    p_NO /= p_NO.sum(1, keepdims=True)
    expected_NP = np.einsum("no,nop->np", p_NO, features_NOP)
    centred_NOP = features_NOP - expected_NP[:, None]
    weighted_MP = (np.sqrt(p_NO)[..., None] * centred_NOP).reshape(-1, len(at_P))  # one product for BLAS
    information_PP = weighted_MP.T @ weighted_MP
    return features_NOP[np.arange(len(said_N)), said_N] - expected_NP, information_PP


def _sandwich(scores_NP: Array, people: Sequence[str], inverse_PP: Array) -> Array:
    """H⁻¹ (C/(C−1) Σ_c g_c g_cᵀ) H⁻¹ over C people; infinite for one."""
    _, person_N = np.unique(np.array(people), return_inverse=True)
    number = int(person_N.max()) + 1
    if number == 1:
        return np.full(inverse_PP.shape, np.inf)
    sums_CP = np.zeros((number, scores_NP.shape[1]))
    np.add.at(sums_CP, person_N, scores_NP)
    return inverse_PP @ (number / (number - 1) * sums_CP.T @ sums_CP) @ inverse_PP
