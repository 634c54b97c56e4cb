"""Losses of the policy and the value: pure functions of tensors that return `(loss, stats)`.

Shapes: B answers, T tokens. Every loss is a sum over real tokens (`gspo_loss`: over answers) ÷ a `denominator` that
defaults to their number; a micro-batch passes that of its whole minibatch, and gradients add up exactly. Masked
positions change nothing, bit for bit. `stats` are detached scalars, with the same denominator where they are means.

How they combine. PPO: `ppo_loss` + c · `value_loss`, and `entropy_loss` where wanted; GRPO and RLOO: `ppo_loss` with
the advantages of `advantages.py`, no value; Dr. GRPO: the same with a constant denominator; DAPO: with a clip range.
REINFORCE: `reinforce_loss`; A2C adds c · `value_loss`, and is PPO with one step a batch: at ratio 1 the two have the
same gradient. PTX (Ouyang et al. 2022, InstructGPT, eq. 2): + γ · `nll_loss` on other text. The KL goes into the reward
(`advantages.token_rewards`, k1), or is added as β · `kl_loss` with k2.

A (B, T) tensor may as well hold one action an answer, T = 1, its log-prob the sum over the answer's tokens
(`masked.row_sums`): that is how a whole answer is one action.
"""

from typing import Literal

import torch
from torch import Tensor

from rlhf_online.algorithms import importance, kl
from rlhf_online.algorithms.arguments import boolean, bounded
from rlhf_online.algorithms.masked import Stats, masked_fill, masked_mean, row_sums
from rlhf_online.errors import InvalidInput

ClipRange = tuple[float, float]
"""(ε_low, ε_high): the ratio is clipped to 1 − ε_low … 1 + ε_high."""
_ESTIMATORS = {"k1": kl.k1, "k2": kl.k2, "k3": kl.k3}


def ppo_loss(
    logprobs_BT: Tensor,
    old_logprobs_BT: Tensor,
    advantages_BT: Tensor,
    mask_BT: Tensor,
    *,
    clip: float | ClipRange,
    dual_clip: float | None = None,
    weights_BT: Tensor | None = None,
    denominator: float | Tensor | None = None,
) -> tuple[Tensor, Stats]:
    """−mean min(ρA, clip(ρ, 1 ± ε) A), ρ = exp(log π − log π_old) (Schulman et al. 2017, arXiv 1707.06347, eq. 7).

    `clip` is ε, or (ε_low, ε_high) for 1 − ε_low … 1 + ε_high (Yu et al. 2025, DAPO, arXiv 2503.14476, eq. 8).
    With `dual_clip` c > 1, where A < 0: −mean max(min(ρA, clip(ρ, 1 ± ε) A), cA), so that a ratio that has run away
    has no gradient (Ye et al. 2020, arXiv 1912.09729). Without it that is so beyond ρ = e^20 (`importance.ratio`).

    With `weights_BT` w (`importance.truncated_weights`) it is decoupled PPO: −mean w · min(ρA, clip(ρ, 1 ± ε) A), where
    "old" is the proximal policy, which the clip holds the new one near (Hilton et al. 2021, arXiv 2110.00641). A token
    of weight 0 has loss 0 and ratio 1, and stays in the denominator.

    Stats: `ratio`, `clip_fraction`, `dual_clip_fraction`.
    """
    boolean("mask_BT", mask_BT)
    low, high = clip if isinstance(clip, tuple) else (clip, clip)
    bounded("clip", low, above=0)
    bounded("clip", high, above=0)
    if dual_clip is not None:
        bounded("dual_clip", dual_clip, above=1)
    used_BT = mask_BT if weights_BT is None else mask_BT & (weights_BT > 0)
    ratio_BT = importance.ratio(masked_fill(logprobs_BT - old_logprobs_BT, used_BT))
    advantages_BT = masked_fill(advantages_BT, used_BT)
    plain_BT, clipped_BT = ratio_BT * advantages_BT, ratio_BT.clamp(1 - low, 1 + high) * advantages_BT
    objective_BT = torch.minimum(plain_BT, clipped_BT)
    floor_BT = torch.full_like(ratio_BT, -torch.inf)
    if dual_clip is not None:
        floor_BT = torch.where(advantages_BT < 0, dual_clip * advantages_BT, floor_BT)
    with torch.no_grad():
        stats = {
            "ratio": masked_mean(ratio_BT, mask_BT, denominator),
            "clip_fraction": _fraction(clipped_BT < plain_BT, mask_BT, denominator),
            "dual_clip_fraction": _fraction(objective_BT < floor_BT, mask_BT, denominator),
        }
    objective_BT = torch.maximum(objective_BT, floor_BT)
    if weights_BT is not None:
        objective_BT = masked_fill(weights_BT, used_BT) * objective_BT
    return masked_mean(-objective_BT, mask_BT, denominator), stats


def gspo_loss(
    logprobs_BT: Tensor,
    old_logprobs_BT: Tensor,
    advantages_B: Tensor,
    mask_BT: Tensor,
    *,
    clip: float | ClipRange,
    denominator: float | Tensor | None = None,
) -> tuple[Tensor, Stats]:
    """−mean over answers of min(sA, clip(s, 1 ± ε) A) (Zheng et al. 2025, GSPO, arXiv 2507.18071, eq. 5 and 7).

    s = exp(mean over the answer's |y| tokens of log π − log π_old) is the geometric mean of its tokens' ratios: the
    whole answer is clipped, or none of it. `denominator` is in answers, and defaults to B.
    Stats: `ratio` and `clip_fraction`, of answers, and `dual_clip_fraction`, 0.
    """
    boolean("mask_BT", mask_BT)
    tokens_B = mask_BT.sum(1).clamp(min=1)
    mean_B, old_mean_B = row_sums(logprobs_BT, mask_BT) / tokens_B, row_sums(old_logprobs_BT, mask_BT) / tokens_B
    every_B1 = torch.ones_like(mean_B, dtype=torch.bool).unsqueeze(1)
    return ppo_loss(
        mean_B.unsqueeze(1),
        old_mean_B.unsqueeze(1),
        advantages_B.unsqueeze(1),
        every_B1,
        clip=clip,
        denominator=denominator,
    )


def reinforce_loss(
    logprobs_BT: Tensor, advantages_BT: Tensor, mask_BT: Tensor, *, denominator: float | Tensor | None = None
) -> tuple[Tensor, Stats]:
    """−mean A log π, the policy gradient (Williams 1992); with GAE's advantages the actor of A2C (Mnih et al. 2016).

    Stats: `logprob`.
    """
    logprobs_BT = masked_fill(logprobs_BT, mask_BT)
    loss = masked_mean(-logprobs_BT * masked_fill(advantages_BT, mask_BT), mask_BT, denominator)
    return loss, {"logprob": masked_mean(logprobs_BT.detach(), mask_BT, denominator)}


def value_loss(
    values_BT: Tensor,
    old_values_BT: Tensor,
    returns_BT: Tensor,
    mask_BT: Tensor,
    *,
    clip: float,
    denominator: float | Tensor | None = None,
) -> tuple[Tensor, Stats]:
    """½ mean max((V − R)², (V_old + clip(V − V_old, ±ε) − R)²), as in PPO's and lm-human-preferences' code.

    Stats: `value_clip_fraction`, of values that moved by more than ε, away from the return.
    """
    bounded("clip", clip, above=0)
    values_BT, old_values_BT = masked_fill(values_BT, mask_BT), masked_fill(old_values_BT, mask_BT)
    returns_BT = masked_fill(returns_BT, mask_BT)
    near_BT = old_values_BT + (values_BT - old_values_BT).clamp(-clip, clip)
    plain_BT, clipped_BT = (values_BT - returns_BT).square(), (near_BT - returns_BT).square()
    loss = 0.5 * masked_mean(torch.maximum(plain_BT, clipped_BT), mask_BT, denominator)
    with torch.no_grad():
        # V_old + (V − V_old) is V but for rounding, which is no clipping.
        far_BT = (values_BT - old_values_BT).abs() > clip
        return loss, {"value_clip_fraction": _fraction(far_BT & (clipped_BT > plain_BT), mask_BT, denominator)}


def kl_loss(
    logprobs_BT: Tensor,
    ref_logprobs_BT: Tensor,
    mask_BT: Tensor,
    *,
    estimator: Literal["k1", "k2", "k3"],
    weights_BT: Tensor | None = None,
    denominator: float | Tensor | None = None,
) -> tuple[Tensor, Stats]:
    """Mean of an estimate of KL(π ‖ π_ref) at the sampled tokens, to be minimised (see `kl.py` for the estimators).

    Off policy each is to be weighed by π ÷ the policy that sampled it: `weights_BT`, through which no gradient flows.

    On policy k2 of whole answers has the KL's gradient: pass `row_sums(…).unsqueeze(1)` of both, a mask of ones, and
    the denominator of the policy loss, so that β weighs it as it weighs a KL in the reward. k2 of tokens leaves out
    part of it, k3's gradient is another one, k1's is zero in expectation. GRPO's advantages are 1 − 1/n of RLOO's,
    which a KL in the reward shares and a KL loss does not. Stats: `kl`, (weighed) mean k1.
    """
    if estimator not in _ESTIMATORS:
        raise InvalidInput(f"estimator must be one of {', '.join(_ESTIMATORS)}, got {estimator!r}")
    logprobs_BT, ref_logprobs_BT = masked_fill(logprobs_BT, mask_BT), masked_fill(ref_logprobs_BT, mask_BT)
    estimate_BT, k1_BT = _ESTIMATORS[estimator](logprobs_BT, ref_logprobs_BT), kl.k1(logprobs_BT, ref_logprobs_BT)
    if weights_BT is not None:
        weights_BT = masked_fill(weights_BT.detach(), mask_BT)
        estimate_BT, k1_BT = weights_BT * estimate_BT, weights_BT * k1_BT
    return masked_mean(estimate_BT, mask_BT, denominator), {"kl": masked_mean(k1_BT.detach(), mask_BT, denominator)}


def entropy_loss(
    entropies_BT: Tensor, mask_BT: Tensor, *, denominator: float | Tensor | None = None
) -> tuple[Tensor, Stats]:
    """−mean H, H from `token_head.predictions`, nats (Schulman et al. 2017, eq. 9, where its weight is c₂).

    Stats: `entropy`.
    """
    entropy = masked_mean(entropies_BT, mask_BT, denominator)
    return -entropy, {"entropy": entropy.detach()}


def nll_loss(
    logprobs_BT: Tensor, mask_BT: Tensor, *, denominator: float | Tensor | None = None
) -> tuple[Tensor, Stats]:
    """−mean log π, nats a token: demonstrations, the PTX mix, and rejection sampling's best answers.

    Rejection-sampling fine-tuning (Touvron et al. 2023, Llama 2, section 3.2.3) is this on the answers that
    `advantages.best_of_group` names. Stats: `nll`.
    """
    loss = masked_mean(-logprobs_BT, mask_BT, denominator)
    return loss, {"nll": loss.detach()}


def _fraction(true_BT: Tensor, mask_BT: Tensor, denominator: float | Tensor | None) -> Tensor:
    return masked_mean(true_BT.float(), mask_BT, denominator)
