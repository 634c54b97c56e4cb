"""Rewards a token, and generalised advantage estimation.

Shapes: B answers, T tokens. Answers are right padded: the True entries of a mask's row come first. A value V_t is that
of the state before token t; after an answer's last token the value is 0, whether it ended by itself or was cut off.
"""

import torch
from torch import Tensor

from rlhf_online.algorithms.masked import masked_fill


def token_rewards(scores_B: Tensor, kl_BT: Tensor, mask_BT: Tensor, kl_coef: float) -> Tensor:
    """−β · KL at every token, and the answer's score added at its last real token; 0 at masked positions."""
    rewards_BT = masked_fill(-kl_coef * kl_BT, mask_BT)
    last_B = mask_BT.sum(1) - 1
    last_BT = torch.arange(mask_BT.shape[1], device=mask_BT.device) == last_B.unsqueeze(1)
    return rewards_BT + torch.where(last_BT, scores_B.unsqueeze(1).to(rewards_BT), torch.zeros_like(rewards_BT))


def gae(
    rewards_BT: Tensor, values_BT: Tensor, mask_BT: Tensor, *, gamma: float, gae_lambda: float
) -> tuple[Tensor, Tensor]:
    """Advantages and returns, both (B, T), 0 at masked positions (Schulman et al. 2016, arXiv 1506.02438, eq. 16).

    δ_t = r_t + γ V_{t+1} − V_t;  A_t = δ_t + γλ A_{t+1};  return_t = A_t + V_t.
    """
    rewards_BT, values_BT = masked_fill(rewards_BT, mask_BT), masked_fill(values_BT, mask_BT)
    advantages_BT = torch.zeros_like(rewards_BT)
    advantage_B = torch.zeros_like(rewards_BT[:, 0])
    next_value_B = torch.zeros_like(advantage_B)
    for t in range(rewards_BT.shape[1] - 1, -1, -1):
        delta_B = rewards_BT[:, t] + gamma * next_value_B - values_BT[:, t]
        advantage_B = masked_fill(delta_B + gamma * gae_lambda * advantage_B, mask_BT[:, t])
        advantages_BT[:, t] = advantage_B
        next_value_B = values_BT[:, t]
    return advantages_BT, masked_fill(advantages_BT + values_BT, mask_BT)
