"""How much likelier one policy makes what another one sampled: ratios, and the weights that correct for it. Pure.

Shapes: B answers, T tokens. A masked position has weight 0, and changes nothing, bit for bit.
"""

from typing import Literal

from torch import Tensor

from rlhf_online.algorithms.arguments import bounded
from rlhf_online.algorithms.masked import Stats, masked_fill, masked_mean, row_sums

Per = Literal["token", "sequence"]
OUTSIDE = 0.1
"""How far from 1 a ratio may be before `outside` counts it."""
MAX_LOG_RATIO = 20.0
"""Nats. Beyond it a ratio is taken as e^20, 5e8: in float32 e^89 is infinite, and its gradient, 0 · ∞, no number."""


def ratio(log_ratio: Tensor) -> Tensor:
    """exp(log_ratio), of any shape, at least e^−20 and at most e^20, with gradient 0 beyond; exact between them."""
    return log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()


def truncated_weights(
    proximal_logprobs_BT: Tensor,
    behaviour_logprobs_BT: Tensor,
    mask_BT: Tensor,
    *,
    max_weight: float,
    reject_above: float,
    per: Per = "token",
    denominator: float | Tensor | None = None,
) -> tuple[Tensor, Stats]:
    """w = π_prox / π_behaviour of each token, (B, T), for decoupled PPO (Hilton et al. 2021, arXiv 2110.00641).

    π_prox is a recent policy, π_behaviour the one that sampled. `per` "sequence": every token of an answer has the
    answer's weight, the product of its tokens', which alone is unbiased as long as nothing is truncated (Precup, Sutton
    & Singh 2000), and varies the more the longer the answer is. w is truncated at `max_weight` (Ionides 2008); a token,
    or an answer, whose w is above `reject_above` is left out: weight 0. `math.inf` is no limit but that of `ratio`. No
    gradient flows through the weights.
    Stats: `weight`, `truncated_fraction`, `rejected_fraction`, means over real tokens ÷ `denominator`.
    """
    bounded("max_weight", max_weight, above=0)
    bounded("reject_above", reject_above, above=0)
    log_weight_BT = masked_fill(proximal_logprobs_BT, mask_BT) - masked_fill(behaviour_logprobs_BT, mask_BT)
    if per == "sequence":
        log_weight_BT = row_sums(log_weight_BT, mask_BT).unsqueeze(1).expand_as(log_weight_BT)
    weight_BT = ratio(log_weight_BT.detach())
    rejected_BT = weight_BT > reject_above
    kept_BT = mask_BT & ~rejected_BT
    used_BT = masked_fill(weight_BT.clamp(max=max_weight), kept_BT)
    stats = {
        "weight": masked_mean(used_BT, mask_BT, denominator),
        "truncated_fraction": masked_mean((kept_BT & (weight_BT > max_weight)).float(), mask_BT, denominator),
        "rejected_fraction": masked_mean(rejected_BT.float(), mask_BT, denominator),
    }
    return used_BT, stats


def answer_weights(logprobs_BT: Tensor, behaviour_logprobs_BT: Tensor, mask_BT: Tensor, *, max_weight: float) -> Tensor:
    """π / π_behaviour of whole answers, (B, 1), truncated at `max_weight`, without gradient."""
    bounded("max_weight", max_weight, above=0)
    log_weight_B = row_sums(logprobs_BT, mask_BT).detach() - row_sums(behaviour_logprobs_BT, mask_BT)
    return ratio(log_weight_B).clamp(max=max_weight).unsqueeze(1)


def outside(logprobs_BT: Tensor, behaviour_logprobs_BT: Tensor) -> Tensor:
    """Whether π / π_behaviour of a token is less than 1 − OUTSIDE or more than 1 + OUTSIDE, (B, T)."""
    return (ratio(logprobs_BT - behaviour_logprobs_BT) - 1).abs() > OUTSIDE
