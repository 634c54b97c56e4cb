"""A language model as training asks it: what it says of the answers' tokens, and from which states.

One module that is called as a whole, because that is what can be sharded (`sharding`): the output layer, which is often
the input embedding too, belongs to it as the decoder does.

Shapes: B pairs, N answer tokens of a batch, d hidden width.
"""

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlhf_online.models import token_head, tree_attention, trunk
from rlhf_online.models.lower_layers import LowerLayers
from rlhf_online.models.packing import Packed


class Predictor(nn.Module):
    """Of `lm`, which it does not change; `lower` are layers of it that can be spared."""

    def __init__(self, lm: PreTrainedModel, lower: LowerLayers | None = None) -> None:
        super().__init__()
        self.lm = lm
        self._lower = lower

    def forward(
        self, batch: Packed, temperature_B: float | Tensor = 1.0, *, entropies: bool = False
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """The hidden states that predict the answer tokens, (N, d), and of the tokens, (N,) each, log-probabilities
        and, if asked for, the entropies of what they were drawn from. `temperature_B` divides the logits."""
        hidden_Nd, temperature_N = hidden_states(self.lm, batch, self._lower), temperatures(batch, temperature_B)
        head = trunk.output_head(self.lm)
        return hidden_Nd, *token_head.predictions(head, hidden_Nd, batch.answer_N, temperature_N, entropies=entropies)


def temperatures(batch: Packed, temperature_B: float | Tensor) -> Tensor:
    """Those of the pairs for each of their answer tokens, (N,)."""
    temperature_B = torch.as_tensor(temperature_B, dtype=torch.float32, device=batch.place_N.device)
    return batch.by_token(temperature_B.expand(len(batch.mask_BA)))


def hidden_states(lm: PreTrainedModel, batch: Packed, lower: LowerLayers | None = None) -> Tensor:
    """The last hidden states that predict the answer tokens, (N, d)."""
    return tree_attention.hidden_states(getattr(lm, lm.base_model_prefix), batch, lower)[batch.before_N]
