"""Values of tokens (`algorithms.ilql`): a trunk that learns, with two Q heads, slowly moving copies of them, and V.

A head is a layer of twice the hidden width behind the last hidden state. Q of a token is the product of what comes out
with the token's row of the language model's output embedding, which does not learn: so heads stay small whatever the
vocabulary, and what is learned of a token holds for its like. All begin at 0. Shapes: N states, d hidden width, V
vocabulary, K = 2 Q heads; see `packing`.
"""

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from rlhf_online.algorithms.ilql import steered
from rlhf_online.models import frozen, tree_attention, trunk
from rlhf_online.models.packing import Packed
from rlhf_online.models.precision import computing

K = 2
POLYAK = 0.02
"""How far the slow heads go towards the fast ones in a step."""


class ActionValues:
    """Built by `load`. Layers of the trunk compute in `dtype`, heads in float32."""

    def __init__(self, decoder: PreTrainedModel, embedding_Vd: Tensor, dtype: torch.dtype, seed: int) -> None:
        self.decoder = decoder
        self.dtype = dtype
        self._embedding_Vd = embedding_Vd.detach().float()
        self.packer = tree_attention.packer(decoder, trunk.limits(decoder.config).context, dtype)
        width = int(decoder.config.hidden_size)
        with trunk.seeded(seed):
            self.q, self.v = nn.ModuleList(_head(width, width) for _ in range(K)), _head(width, 1)
            self.slow = nn.ModuleList(_head(width, width) for _ in range(K)).requires_grad_(False)
        self.slow.load_state_dict(self.q.state_dict())
        for heads in (self.q, self.v, self.slow):
            heads.to(decoder.device)

    @classmethod
    def load(
        cls,
        base: Path,
        *,
        tuning: Literal["full", "lora"],
        lora: trunk.Lora,
        embedding_Vd: Tensor,
        device: torch.device,
        dtype: torch.dtype,
        seed: int,
    ) -> "ActionValues":
        """On the trunk of the language model in `base`, whose output embedding that is. Raises InvalidInput."""
        masters = torch.promote_types(dtype, torch.float32)
        decoder = trunk.load_trunk(base, device=device, dtype=masters).requires_grad_(True)
        if tuning == "lora":
            trunk.add_lora(decoder, lora, folder=None, seed=seed, task=None)
        model = cls(decoder, embedding_Vd, dtype, seed)
        if tuning == "lora":
            frozen.narrow(decoder, dtype)
        return model

    def parameters(self) -> dict[str, nn.Parameter]:
        """What learns: of the trunk, and the heads."""
        found = {name: each for name, each in self.decoder.named_parameters() if each.requires_grad}
        for name, heads in (("q", self.q), ("v", self.v)):
            found |= {f"{name}.{key}": each for key, each in heads.named_parameters()}
        return found

    def hidden(self, batch: Packed) -> Tensor:
        """The last hidden states before the answer tokens, float32, (N, d)."""
        with computing(self.decoder.device, self.dtype):
            found_Xd = tree_attention.hidden_states(self.decoder, batch)
        return found_Xd[batch.before_N].float()

    def of_all(self, head: nn.Module, hidden_Nd: Tensor) -> Tensor:
        """A Q head's values of every token after each state, (N, V)."""
        return head(hidden_Nd) @ self._embedding_Vd.T

    def of_tokens(self, head: nn.Module, hidden_Nd: Tensor, tokens_N: Tensor) -> Tensor:
        """Of one token after each state, (N,)."""
        return (head(hidden_Nd) * self._embedding_Vd[tokens_N]).sum(-1)

    @torch.no_grad()
    def advantages(self, hidden_Nd: Tensor) -> Tensor:
        """Q − V of every token after each state, (N, V), by the lower of the slow heads."""
        return torch.minimum(*(self.of_all(head, hidden_Nd) for head in self.slow)) - self.v(hidden_Nd)

    @torch.no_grad()
    def follow(self) -> None:
        """Move the slow heads a little towards the others."""
        for slow, fast in zip(self.slow.parameters(), self.q.parameters(), strict=True):
            slow.lerp_(fast, POLYAK)


class Steering:
    """Decoding that follows values, for `sampling.sample`: the trunk reads along, with a cache of its own."""

    def __init__(self, values: ActionValues, beta: float) -> None:
        self._values = values
        self._beta = beta

    def cache(self) -> DynamicCache:
        return DynamicCache(config=self._values.decoder.config)

    @torch.no_grad()
    def logprobs(self, logits_BV: Tensor, cache: DynamicCache, inputs: dict[str, Tensor]) -> Tensor:
        """What is sampled from where the language model's logits are these, (B, V). `inputs` are what it was given."""
        with computing(self._values.decoder.device, self._values.dtype):
            read: Any = self._values.decoder(**inputs, past_key_values=cache, use_cache=True)
        advantages_BV = self._values.advantages(read.last_hidden_state[:, -1].float())
        return steered(logits_BV.log_softmax(-1), advantages_BV, self._beta)


def _head(width: int, out: int) -> nn.Sequential:
    last = nn.Linear(2 * width, out)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(width, 2 * width), nn.SiLU(), last)
