"""Estimators of the KL divergence from samples, and the coefficient of the KL penalty.

For a token sampled from π, with r = π_ref(token) / π(token), each estimates KL(π ‖ π_ref) (Schulman, "Approximating
KL divergence", 2020):

    k1 = −log r                 unbiased, any sign
    k2 = ½ (log r)²             biased, ≥ 0; as a loss, on policy, it has the KL's gradient
    k3 = r − 1 − log r          unbiased, ≥ 0

In a PPO update k1 belongs into the detached reward: as a loss k1 has zero expected gradient, and k3 as a loss has that
of the other divergence, KL(π_ref ‖ π) (arXiv 2510.01555, 2512.21852). k2 as a loss has the gradient of what its
log-probs are of: of whole answers, that of an answer's KL; of single tokens, that of each token's KL with the prefixes
held fixed, which leaves out what a token does to the KL of later ones. `tests/benches/optimum.py` measures all of them.

What is told of a KL (reports, the gate, an adaptive coefficient) is estimated by none of them: where both models are at
hand, so is each token's divergence, exactly (`models.token_head.compared`), and the sum over an answer's tokens is an
unbiased estimate that is never below 0 and varies less (Amini et al. 2025, arXiv 2504.10637).
"""

from dataclasses import dataclass, replace

from torch import Tensor

from rlhf_online.algorithms.arguments import bounded
from rlhf_online.algorithms.importance import MAX_LOG_RATIO


def k1(logprobs_BT: Tensor, ref_logprobs_BT: Tensor) -> Tensor:
    """log π − log π_ref, nats a token."""
    return logprobs_BT - ref_logprobs_BT


def k2(logprobs_BT: Tensor, ref_logprobs_BT: Tensor) -> Tensor:
    """½ (log π − log π_ref)², nats a token."""
    return 0.5 * (logprobs_BT - ref_logprobs_BT).square()


def k3(logprobs_BT: Tensor, ref_logprobs_BT: Tensor) -> Tensor:
    """r − 1 − log r with r = π_ref / π, nats a token; with gradient 0 where r would be above e^20."""
    log_ratio_BT = (ref_logprobs_BT - logprobs_BT).clamp(max=MAX_LOG_RATIO)
    return log_ratio_BT.expm1() - log_ratio_BT


@dataclass(frozen=True, slots=True)
class KLController:
    """The coefficient β of the KL penalty: fixed, or moved towards a target KL (Ziegler et al. 2019, eq. 8 and below).

    `target` is in nats an answer; 0 keeps `coef` as it is.
    """

    coef: float
    target: float = 0.0
    horizon: float = 10_000.0

    def __post_init__(self) -> None:
        bounded("coef", self.coef, least=0)
        bounded("target", self.target, least=0)
        bounded("horizon", self.horizon, above=0)

    def after(self, kl: float, episodes: int) -> "KLController":
        """The controller after `episodes` answers with a mean KL of `kl` nats.

        β ← β · (1 + clip(KL / target − 1, ±0.2) · min(1, episodes / horizon))

        The minimum is not in the paper: with a horizon shorter than a fifth of a batch β would turn negative.
        """
        if self.target == 0:
            return self
        error = min(max(kl / self.target - 1, -0.2), 0.2)
        return replace(self, coef=self.coef * (1 + error * min(1.0, episodes / self.horizon)))
