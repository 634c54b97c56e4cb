"""Losses of the reward model: negative log-likelihoods of what people said about answers, `(loss, stats)` each.

Shapes: B comparisons, thumbs or signals, G answers of one comparison. Every loss is a weighted sum ÷ a `denominator`
that defaults to the summed weight (at least 1e-8); a micro-batch passes that of its whole minibatch. What has weight 0
(a head's bootstrap left it out) changes nothing, bit for bit, nor does padding. `stats` are detached scalars.
"""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from rlhf_online.algorithms.arguments import boolean
from rlhf_online.algorithms.masked import Stats, masked_fill

MARGINS = (0.0, 1.0, 2.0, 3.0)
"""Margin by the strength of a pairwise preference (Touvron et al. 2023, Llama 2, table 27, the large margins)."""


def plackett_luce_nll(utilities_BG: Tensor, tiers_BG: Tensor) -> Tensor:
    """−log likelihood of each ranking, (B,), nats.

    `tiers_BG` is 0 for the best answers and grows towards the worst; −1 marks padding. Without ties this is the
    likelihood of Plackett (1975) and Luce: Π_i exp(u_i) / Σ_{j not better than i} exp(u_j). A tier of d tied answers D
    is taken by Efron's method (JASA 1977, 72:557–565), an approximation of the mean likelihood of its d! orders that is
    exact where the tied utilities are equal:

        Π_{i ∈ D} exp(u_i) / Π_{m=0}^{d−1} ( Σ_{j ∈ D ∪ lower} exp(u_j) − (m/d) Σ_{j ∈ D} exp(u_j) )

    A tie of two is so −log σ(Δ) − log σ(−Δ) − log 2: highest likelihood at equal utilities.
    """
    real_BG = tiers_BG >= 0
    utilities_BG = masked_fill(utilities_BG, real_BG)
    tied_BGG = tiers_BG.unsqueeze(2) == tiers_BG.unsqueeze(1)
    size_BG = tied_BGG.sum(2)
    position_BG = torch.tril(tied_BGG, diagonal=-1).sum(2)
    share_BG = 1 - position_BG.to(utilities_BG) / size_BG.to(utilities_BG)
    lower_BGG = tiers_BG.unsqueeze(1) > tiers_BG.unsqueeze(2)
    weight_BGG = torch.where(tied_BGG, share_BG.unsqueeze(2), lower_BGG.to(utilities_BG))
    log_denominator_BG = (utilities_BG.unsqueeze(1) + weight_BGG.log()).logsumexp(2)
    return masked_fill(log_denominator_BG - utilities_BG, real_BG).sum(1)


def plackett_luce_loss(
    utilities_BG: Tensor, tiers_BG: Tensor, weights_B: Tensor, *, denominator: float | Tensor | None = None
) -> tuple[Tensor, Stats]:
    """Σ weight · `plackett_luce_nll` ÷ denominator.

    Stats: `top1`, the weighted share of rankings whose best answer (or one tied for it) has the highest utility.
    """
    total = _total(weights_B, denominator)
    utilities_BG = masked_fill(utilities_BG, (weights_B > 0).unsqueeze(1))
    loss = (weights_B * plackett_luce_nll(utilities_BG, tiers_BG)).sum() / total
    with torch.no_grad():
        best_B = masked_fill(utilities_BG, tiers_BG >= 0, float("-inf")).argmax(1, keepdim=True)
        hit_B = tiers_BG.gather(1, best_B).squeeze(1) == 0
        return loss, {"top1": (weights_B * hit_B).sum() / total}


def bradley_terry_loss(
    chosen_B: Tensor,
    rejected_B: Tensor,
    tied_B: Tensor,
    margins_B: Tensor,
    weights_B: Tensor,
    *,
    denominator: float | Tensor | None = None,
) -> tuple[Tensor, Stats]:
    """Σ weight · (−log σ(u_chosen − u_rejected − margin)) ÷ denominator.

    Bradley & Terry (1952); the margin is that of Touvron et al. (2023), eq. 2, see MARGINS. A tie counts as half a win
    for either side: −½ log σ(Δ) − ½ log σ(−Δ), without margin. With margin 0 it is Plackett–Luce over two answers.
    Stats: `accuracy`, over pairs that are not tied; a tie of utilities counts half. Their weight is `decided`.
    """
    boolean("tied_B", tied_B)
    delta_B = masked_fill(chosen_B - rejected_B, weights_B > 0)
    won_B = -logsigmoid(delta_B - masked_fill(margins_B, ~tied_B & (weights_B > 0)))
    tie_B = -0.5 * (logsigmoid(delta_B) + logsigmoid(-delta_B))
    loss = (weights_B * torch.where(tied_B, tie_B, won_B)).sum() / _total(weights_B, denominator)
    with torch.no_grad():
        decided_B = weights_B * ~tied_B
        right_B = (delta_B > 0).to(delta_B) + 0.5 * (delta_B == 0)
        accuracy = (decided_B * right_B).sum() / decided_B.sum().clamp(min=1e-8)
        return loss, {"accuracy": accuracy, "decided": decided_B.sum()}


def thumbs_loss(
    utilities_B: Tensor,
    rater_bias_B: Tensor,
    up_B: Tensor,
    weights_B: Tensor,
    *,
    denominator: float | Tensor | None = None,
) -> tuple[Tensor, Stats]:
    """Bernoulli: Σ weight · −log P(thumb) ÷ denominator.

    P(up) = σ(u + a), a the rater's bias: some people like everything (the Rasch model with a rater's leniency).
    Stats: `accuracy` of the more probable thumb.
    """
    logits_B = masked_fill(utilities_B + rater_bias_B, weights_B > 0)
    total = _total(weights_B, denominator)
    loss = (weights_B * (softplus(logits_B) - up_B.to(logits_B) * logits_B)).sum() / total
    with torch.no_grad():
        return loss, {"accuracy": (weights_B * ((logits_B > 0) == up_B)).sum() / total}


def implicit_loss(
    utilities_B: Tensor,
    baseline_B: Tensor,
    reliability_B: Tensor,
    weights_B: Tensor,
    *,
    denominator: float | Tensor | None = None,
) -> tuple[Tensor, Stats]:
    """Σ weight · −log(ρ σ(ū − u) + (1 − ρ)/2) ÷ denominator: somebody rejected an answer without saying so.

    With probability ρ, the signal's reliability in [0, 1], it is a vote that the answer is worse than the baseline's
    utility ū, and else it says nothing: label noise that is known (Natarajan et al. 2013, NeurIPS, class-conditional
    noise of rate (1 − ρ)/2 on either side). However wrong a signal is, it costs no more than log 2 − log(1 − ρ).
    Stats: `agreement`, the weighted share of answers that are below the baseline.
    """
    below_B = masked_fill(baseline_B - utilities_B, weights_B > 0)
    rho_B = masked_fill(reliability_B, weights_B > 0, 0.5)
    nll_B = -torch.logaddexp(rho_B.log() + logsigmoid(below_B), ((1 - rho_B) / 2).log())
    total = _total(weights_B, denominator)
    loss = (weights_B * nll_B).sum() / total
    with torch.no_grad():
        return loss, {"agreement": (weights_B * (below_B > 0)).sum() / total}


def centring_loss(
    utilities_BG: Tensor, mask_BG: Tensor, weights_B: Tensor, *, denominator: float | Tensor | None = None
) -> tuple[Tensor, Stats]:
    """Σ weight · (2 · mean utility of the comparison's answers)² ÷ denominator: scores stay around 0.

    Only differences of utilities count in a comparison, so their level drifts. For a pair this is the penalty
    (u_chosen + u_rejected)² of Eisenstein et al. (2023, arXiv 2312.09244). Stats: `level`, the weighted mean utility.
    """
    boolean("mask_BG", mask_BG)
    real_BG = mask_BG & (weights_B > 0).unsqueeze(1)
    mean_B = masked_fill(utilities_BG, real_BG).sum(1) / real_BG.sum(1).clamp(min=1)
    total = _total(weights_B, denominator)
    loss = (weights_B * (2 * mean_B).square()).sum() / total
    return loss, {"level": (weights_B * mean_B).sum().detach() / total}


def _total(weights_B: Tensor, denominator: float | Tensor | None) -> float | Tensor:
    return weights_B.sum().clamp(min=1e-8) if denominator is None else denominator
