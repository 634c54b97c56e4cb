"""Implicit language Q-learning (Snell et al. 2022, arXiv 2206.11871): values of tokens from logged answers alone.

A state is a prompt and the tokens of an answer so far, an action the next token, and an answer's reward comes with its
last token. Pure functions.

    V(h)     expectile of Q(h, a) over the tokens that the log has there: no token that nobody wrote is ever evaluated
    Q(h, a)  reward + γ V(h a)
    π(a|h)   ∝ π_β(a|h) exp((Q(h, a) − V(h)) / β)

Shapes: K Q heads, B answers, T tokens, V vocabulary; N states.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from rlhf_online.algorithms.arguments import bounded, right_padded
from rlhf_online.algorithms.masked import Stats, masked_fill, masked_mean


@dataclass(frozen=True, slots=True)
class Valued:
    """What heads say of logged answers: `chosen_KBT`, the Q heads at their tokens, and `total_KBT`, the log-sum-exp of
    each over all tokens; `target_BT`, the least of the slowly moving copies of the heads; `values_BT`, V before each
    token."""

    chosen_KBT: Tensor
    total_KBT: Tensor
    target_BT: Tensor
    values_BT: Tensor


def ilql_loss(
    valued: Valued,
    rewards_BT: Tensor,
    mask_BT: Tensor,
    *,
    expectile: float,
    cql_coef: float,
    gamma: float = 1.0,
    denominator: float | Tensor | None = None,
) -> tuple[Tensor, Stats]:
    """Mean over tokens of

        Σ_k (r + γ V(h') − Q_k(h, a))²                       (eq. 4; V of an answer's end is 0)
        + |τ − 1(Q̂(h, a) < V(h))| (Q̂(h, a) − V(h))²          (eq. 5, τ the `expectile`)
        + α Σ_k (log Σ_b exp Q_k(h, b) − Q_k(h, a))          (eq. 6, α the `cql_coef`)

    Q̂ is `valued.target_BT`. No gradient flows into targets.
    Stats: `td`, `expectile`, `cql` (the three terms, without α), `value` (mean V of the states before a token).
    """
    bounded("expectile", expectile, above=0, most=1)
    bounded("cql_coef", cql_coef, least=0)
    bounded("gamma", gamma, least=0, most=1)
    right_padded("mask", mask_BT)
    chosen_KBT, values_BT = valued.chosen_KBT, masked_fill(valued.values_BT, mask_BT)
    next_BT = torch.cat([values_BT[:, 1:], torch.zeros_like(values_BT[:, :1])], 1)
    towards_BT = (rewards_BT + gamma * next_BT).detach()
    td_BT = (towards_BT - chosen_KBT).square().sum(0)
    error_BT = valued.target_BT.detach() - values_BT
    weight_BT = torch.where(error_BT < 0, 1 - expectile, expectile)
    terms = {
        "td": masked_mean(td_BT, mask_BT, denominator),
        "expectile": masked_mean(weight_BT * error_BT.square(), mask_BT, denominator),
        "cql": masked_mean((valued.total_KBT - chosen_KBT).sum(0), mask_BT, denominator),
    }
    loss = terms["td"] + terms["expectile"] + cql_coef * terms["cql"]
    stats = {name: term.detach() for name, term in terms.items()}
    return loss, stats | {"value": masked_mean(values_BT.detach(), mask_BT, denominator)}


def steered(logprobs_NV: Tensor, advantages_NV: Tensor, beta: float) -> Tensor:
    """Log-probabilities of π_β(a|h) exp(A(h, a) / β), normalised, (N, V): the policy whose expected advantage less
    β KL(π ‖ π_β) is the greatest at each state. β is the inverse of the paper's."""
    bounded("beta", beta, above=0)
    return (logprobs_NV + advantages_NV / beta).log_softmax(-1)
