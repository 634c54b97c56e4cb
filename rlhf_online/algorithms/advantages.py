"""How much better than expected: advantages of tokens (GAE), and of whole answers (groups, a baseline).

Shapes: B answers, T tokens; N answers in groups, one a prompt. Answers are right padded: the True entries of a mask's
row come first. A value V_t is that of the state before token t; after an answer's last token the value is 0, whether it
ended by itself or was cut off.

Advantages of whole answers take a score an answer, β · its summed k1 already subtracted where the KL is in the reward,
and go to every token of the answer (`per_token`).
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rlhf_online.algorithms.arguments import bounded, right_padded
from rlhf_online.algorithms.masked import masked_fill


def token_rewards(scores_B: Tensor, kl_BT: Tensor, mask_BT: Tensor, kl_coef: float) -> Tensor:
    """−β · KL at every token, and the answer's score added at its last real token; 0 at masked positions.

    Raises InvalidInput for a mask that is not right padded.
    """
    right_padded("mask_BT", mask_BT)
    bounded("kl_coef", kl_coef, least=0)
    rewards_BT = masked_fill(-kl_coef * kl_BT, mask_BT)
    last_B = mask_BT.sum(1) - 1
    last_BT = torch.arange(mask_BT.shape[1], device=mask_BT.device) == last_B.unsqueeze(1)
    return rewards_BT + torch.where(last_BT, scores_B.unsqueeze(1).to(rewards_BT), torch.zeros_like(rewards_BT))


def gae(
    rewards_BT: Tensor, values_BT: Tensor, mask_BT: Tensor, *, gamma: float, gae_lambda: float
) -> tuple[Tensor, Tensor]:
    """Advantages and returns, both (B, T), 0 at masked positions (Schulman et al. 2016, arXiv 1506.02438, eq. 16).

    δ_t = r_t + γ V_{t+1} − V_t;  A_t = δ_t + γλ A_{t+1};  return_t = A_t + V_t.

    Raises InvalidInput for a mask that is not right padded: a hole would cut the sums in two.
    """
    right_padded("mask_BT", mask_BT)
    bounded("gamma", gamma, above=0, most=1)
    bounded("gae_lambda", gae_lambda, least=0, most=1)
    rewards_BT, values_BT = masked_fill(rewards_BT, mask_BT), masked_fill(values_BT, mask_BT)
    advantages_BT = torch.zeros_like(rewards_BT)
    advantage_B = rewards_BT.new_zeros(len(rewards_BT))
    next_value_B = torch.zeros_like(advantage_B)
    for t in range(rewards_BT.shape[1] - 1, -1, -1):
        delta_B = rewards_BT[:, t] + gamma * next_value_B - values_BT[:, t]
        advantage_B = masked_fill(delta_B + gamma * gae_lambda * advantage_B, mask_BT[:, t])
        advantages_BT[:, t] = advantage_B
        next_value_B = values_BT[:, t]
    return advantages_BT, masked_fill(advantages_BT + values_BT, mask_BT)


def per_token(advantages_B: Tensor, mask_BT: Tensor) -> Tensor:
    """An answer's advantage at each of its tokens, (B, T); 0 at masked positions."""
    return masked_fill(advantages_B.unsqueeze(1).expand(mask_BT.shape), mask_BT)


def grpo(scores_N: Tensor, groups_N: Tensor, *, std: bool) -> Tensor:
    """(r − mean) / std of the answer's group (Shao et al. 2024, DeepSeekMath, arXiv 2402.03300), (N,).

    `groups_N` are integers, equal within a group. The variance is the biased one (÷ n), plus 1e-8. Without `std` only
    the mean is subtracted (Liu et al. 2025, Dr. GRPO, arXiv 2503.20783): dividing weighs prompts by how little their
    scores differ, so that what is maximised is no longer the mean reward. The mean contains the answer itself, which
    shrinks the expected gradient by 1 − 1/n. A group of one has advantage 0.
    """
    index_N, size_G = _groups(groups_N)
    centred_N = scores_N - _group_means(scores_N, index_N, size_G)[index_N]
    if not std:
        return centred_N
    return centred_N * torch.rsqrt(_group_means(centred_N.square(), index_N, size_G) + 1e-8)[index_N]


def rloo(scores_N: Tensor, groups_N: Tensor) -> Tensor:
    """r_i − mean of the other scores of its group (Kool et al. 2019; Ahmadian et al. 2024, arXiv 2402.14740), (N,).

    = n / (n − 1) · (r_i − mean of the group). A group of one has nothing to compare with: advantage 0.
    """
    index_N, size_G = _groups(groups_N)
    centred_N = scores_N - _group_means(scores_N, index_N, size_G)[index_N]
    return centred_N * (size_G.to(scores_N) / (size_G - 1).clamp(min=1))[index_N]


def reinforce(scores_N: Tensor, baseline: float | Tensor) -> Tensor:
    """r − b (Williams 1992), (N,). Without bias as long as b does not depend on the scores: see `RunningMean`."""
    return scores_N - baseline


@dataclass(frozen=True, slots=True)
class RunningMean:
    """REINFORCE's baseline: the mean score of earlier updates, each weighing `decay` of the next one.

    The batch's own mean would need no memory, but contains the answer that it is compared with, which shrinks the
    gradient by 1 − 1/N and, in a batch of one, to nothing. Before the first update it is 0.
    """

    decay: float = 0.9
    total: float = 0.0
    weight: float = 0.0

    def __post_init__(self) -> None:
        bounded("decay", self.decay, least=0, most=1)

    @property
    def mean(self) -> float:
        return self.total / self.weight if self.weight else 0.0

    def after(self, scores_N: Tensor) -> "RunningMean":
        """The mean when an update has used these scores; subtract it from the next one's."""
        total = self.decay * self.total + scores_N.mean().item()
        return replace(self, total=total, weight=self.decay * self.weight + 1)


def best_of_group(scores_N: Tensor, groups_N: Tensor) -> Tensor:
    """(N,) bool: the answer with the highest score of each group, the first of several; for best-of-n fine-tuning."""
    index_N, size_G = _groups(groups_N)
    best_N = torch.zeros_like(index_N, dtype=torch.bool)
    for group in range(len(size_G)):
        (members_n,) = torch.nonzero(index_N == group, as_tuple=True)
        best_N[members_n[scores_N[members_n].argmax()]] = True
    return best_N


def _groups(groups_N: Tensor) -> tuple[Tensor, Tensor]:
    """Each answer's group as 0, 1, …, and the sizes of the groups."""
    _, index_N, size_G = torch.unique(groups_N, return_inverse=True, return_counts=True)
    return index_N, size_G


def _group_means(values_N: Tensor, index_N: Tensor, size_G: Tensor) -> Tensor:
    sums_G = torch.zeros(len(size_G), dtype=values_N.dtype, device=values_N.device)
    return sums_G.index_add(0, index_N, values_N) / size_G
