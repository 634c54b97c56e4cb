"""Losses that train a policy on preferences, without a reward model: pure functions that return `(loss, stats)`.

Shapes: B pairs, or B answers; a log-prob is that of a whole answer, the sum over its real tokens (`masked.row_sums`),
under the policy, or under the frozen reference ("ref"). Every loss is a sum ÷ `denominator`, which defaults to B; a
micro-batch passes that of its whole minibatch. `stats` are detached scalars, means with the same denominator.
Rewards are the implicit ones, β (log π − log π_ref).
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from rlhf_online.algorithms.arguments import boolean, bounded
from rlhf_online.algorithms.masked import Stats
from rlhf_online.errors import InvalidInput


def dpo_loss(
    chosen_logprobs_B: Tensor,
    rejected_logprobs_B: Tensor,
    chosen_ref_B: Tensor,
    rejected_ref_B: Tensor,
    *,
    beta: float,
    kind: Literal["dpo", "ipo"] = "dpo",
    denominator: float | Tensor | None = None,
) -> tuple[Tensor, Stats]:
    """With h = (log π − log π_ref)(chosen) − (log π − log π_ref)(rejected):

        dpo: −mean log σ(β h)             (Rafailov et al. 2023, arXiv 2305.18290, eq. 7)
        ipo:  mean (h − 1 / (2β))²        (Azar et al. 2023, arXiv 2310.12036, eq. 17, β their τ)

    Online DPO is this on pairs that the policy has just sampled and a reward model or people have ordered.
    Stats: `accuracy` (pairs with h > 0; h = 0 counts half), `margin` (β h), `chosen_reward`, `rejected_reward`.
    """
    if kind not in ("dpo", "ipo"):
        raise InvalidInput(f"kind must be dpo or ipo, got {kind!r}")
    bounded("beta", beta, above=0)
    chosen_B, rejected_B = chosen_logprobs_B - chosen_ref_B, rejected_logprobs_B - rejected_ref_B
    h_B = chosen_B - rejected_B
    terms_B = -logsigmoid(beta * h_B) if kind == "dpo" else (h_B - 1 / (2 * beta)).square()
    total = len(terms_B) if denominator is None else denominator
    with torch.no_grad():
        stats = {
            "accuracy": ((h_B > 0).to(h_B) + 0.5 * (h_B == 0)).sum() / total,
            "margin": beta * h_B.sum() / total,
            "chosen_reward": beta * chosen_B.sum() / total,
            "rejected_reward": beta * rejected_B.sum() / total,
        }
    return terms_B.sum() / total, stats


def kto_loss(
    logprobs_B: Tensor,
    ref_logprobs_B: Tensor,
    desirable_B: Tensor,
    kl: float | Tensor,
    *,
    beta: float,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
    denominator: float | Tensor | None = None,
) -> tuple[Tensor, Stats]:
    """Thumbs without pairs (Ethayarajh et al. 2024, arXiv 2402.01306), with r = log π − log π_ref:

        mean λ_D (1 − σ(β (r − z)))   over desirable answers
             λ_U (1 − σ(β (z − r)))   over undesirable ones

    `kl` estimates the reference point z = KL(π ‖ π_ref), nats an answer: the paper takes the mean r of answers to
    *other* prompts of the batch. Of it only what is above 0 counts, and no gradient flows through it.
    Stats: `desirable_reward`, `undesirable_reward` (sums of β r ÷ denominator), `reference_point`.
    """
    boolean("desirable_B", desirable_B)
    bounded("beta", beta, above=0)
    bounded("desirable_weight", desirable_weight, least=0)
    bounded("undesirable_weight", undesirable_weight, least=0)
    log_ratio_B = logprobs_B - ref_logprobs_B
    z = torch.as_tensor(kl, dtype=log_ratio_B.dtype, device=log_ratio_B.device).detach().clamp(min=0)
    desirable, undesirable = log_ratio_B.new_tensor((desirable_weight, undesirable_weight))
    sign_B = torch.where(desirable_B, 1.0, -1.0).to(log_ratio_B)
    weight_B = torch.where(desirable_B, desirable, undesirable)
    terms_B = weight_B * torch.sigmoid(-beta * sign_B * (log_ratio_B - z))
    total = len(terms_B) if denominator is None else denominator
    with torch.no_grad():
        stats = {
            "desirable_reward": beta * (log_ratio_B * desirable_B).sum() / total,
            "undesirable_reward": beta * (log_ratio_B * ~desirable_B).sum() / total,
            "reference_point": z,
        }
    return terms_B.sum() / total, stats
