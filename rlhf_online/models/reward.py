"""The reward model: a transformer trunk with K linear heads, each of which read its own bootstrap of the votes.

A head's utility is read at the last real token of prompt and answer. Only differences of utilities are learned from
rankings, so every head has its own zero: a score is normalised by the heads' means over reference answers, and by one
standard deviation, so that over those answers the score has mean 0 and variance 1. The spread is the heads' standard
deviation (biased, ÷ K) in the same unit.

Shapes: B pairs, K heads, d hidden width. A folder holds `heads.safetensors`, `reward.json`, and the trunk: a complete
model folder with tokenizer files (full), or an adapter on the base model (lora).
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlhf_online.errors import VersionCorrupt
from rlhf_online.models import trunk
from rlhf_online.models.tokens import Batch, Pair, by_budget, collate, length

MAX_BATCH_TOKENS = 16384


class RewardModel:
    """Built by `RewardModel.load`."""

    def __init__(
        self, decoder: PreTrainedModel, heads: nn.Linear, *, base: Path, adapter: PeftModel | None = None
    ) -> None:
        self.decoder = decoder
        self.heads = heads
        self.base = base
        self.context = trunk.context_length(decoder.config)
        self.mean_K = torch.zeros(heads.out_features, device=decoder.device)
        self.std = 1.0
        self._adapter = adapter

    @classmethod
    def load(
        cls,
        base: Path,
        *,
        folder: Path | None = None,
        tuning: Literal["full", "lora"],
        heads: int = 4,
        lora_rank: int = 8,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        seed: int = 0,
    ) -> "RewardModel":
        """The reward model in `folder`, or a new one on the trunk of the language model in `base`.

        A stored model of `full` tuning needs no `base`; the number of heads of a stored model is its own. New heads
        begin with standard deviation 1/√(d + 1) (Stiennon et al. 2020). Raises InvalidInput or VersionCorrupt.
        """
        device = torch.device(device)
        source = folder if folder is not None and tuning == "full" else base
        decoder = trunk.load_trunk(source, device=device, dtype=dtype).requires_grad_(True)
        adapter = None
        if tuning == "lora":
            adapter = trunk.add_lora(decoder, rank=lora_rank, folder=folder, seed=seed, task=None)
        stored = None if folder is None else _read(folder)
        width = int(decoder.config.hidden_size)
        with trunk.seeded(seed):
            linear = nn.Linear(width, heads if stored is None else stored["heads"])
            nn.init.normal_(linear.weight, std=(width + 1) ** -0.5)
            nn.init.zeros_(linear.bias)
        model = cls(decoder, linear.to(device), base=source, adapter=adapter)
        if folder is not None and stored is not None:
            model._restore_heads(folder, stored)
        return model

    def _restore_heads(self, folder: Path, stored: dict) -> None:
        try:
            trunk.restore(dict(self.heads.named_parameters()), load_file(folder / "heads.safetensors"))
            self.mean_K = torch.tensor(stored["mean"], dtype=torch.float32, device=self.device)
            self.std = float(stored["std"])
        except (OSError, KeyError, ValueError, TypeError) as error:
            raise VersionCorrupt(f"the reward model in {folder} cannot be read: {error}") from error

    @property
    def device(self) -> torch.device:
        return self.decoder.device

    def token_budget(self, limit: int) -> int:
        """Tokens of a forward pass with gradients: `limit`, or fewer where memory asks for it."""
        return trunk.token_budget(self.decoder.config, limit, self.device)

    def collate(self, pairs: Sequence[Pair]) -> Batch:
        """Raises InvalidInput for an answer as long as the model's context."""
        return collate(pairs, pad_id=0, max_length=self.context, device=self.device)

    # Computing

    def forward(self, batch: Batch) -> Tensor:
        """Utilities, not normalised, (B, K)."""
        hidden_BTd = self.decoder(input_ids=batch.tokens_BT, use_cache=False).last_hidden_state
        last_B1d = batch.last_B.reshape(-1, 1, 1).expand(-1, 1, hidden_BTd.shape[-1])
        hidden_Bd = hidden_BTd.gather(1, last_B1d).squeeze(1)
        return self.heads(hidden_Bd.to(self.heads.weight.dtype))

    @torch.no_grad()
    def utilities(self, pairs: Sequence[Pair], *, max_batch_tokens: int = MAX_BATCH_TOKENS) -> Tensor:
        """Utilities, not normalised, (len(pairs), K) on the CPU, in the order of `pairs`."""
        utilities_NK = torch.zeros(len(pairs), self.heads.out_features)
        for group in by_budget([length(pair) for pair in pairs], max_batch_tokens):
            batch = self.collate([pairs[index] for index in group])
            utilities_NK[group] = self.forward(batch).float().cpu()
        return utilities_NK

    def score(
        self, pairs: Sequence[Pair], *, max_batch_tokens: int = MAX_BATCH_TOKENS
    ) -> tuple[list[float], list[float]]:
        """Mean and spread over the heads of each pair's score, normalised, in the order of `pairs`."""
        score_NK = (self.utilities(pairs, max_batch_tokens=max_batch_tokens) - self.mean_K.cpu()) / self.std
        return score_NK.mean(1).tolist(), score_NK.std(1, unbiased=False).tolist()

    def normalise(self, pairs: Sequence[Pair], *, max_batch_tokens: int = MAX_BATCH_TOKENS) -> None:
        """Choose the scores' zero and unit so that over `pairs` (two or more) they have mean 0 and variance 1."""
        utilities_NK = self.utilities(pairs, max_batch_tokens=max_batch_tokens)
        self.mean_K = utilities_NK.mean(0).to(self.device)
        self.std = max(1e-6, (utilities_NK - utilities_NK.mean(0)).mean(1).std(unbiased=False).item())

    # Learning and keeping

    def parameters(self) -> dict[str, nn.Parameter]:
        """What learns: the trunk's weights or its adapter's, and the heads."""
        learning = {f"trunk.{n}": p for n, p in self.decoder.named_parameters() if p.requires_grad}
        return learning | {f"heads.{n}": p for n, p in self.heads.named_parameters()}

    def state(self) -> dict[str, Tensor]:
        """All that learns and the normalisation, as copies on the CPU."""
        normal = {"mean": self.mean_K, "std": torch.tensor(self.std, dtype=torch.float64)}
        return trunk.named("reward", dict(self.parameters())) | trunk.named("normal", normal)

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Put back what `state` gave. Raises VersionCorrupt for another model's."""
        trunk.restore(self.parameters(), trunk.unnamed("reward", tensors))
        normal = trunk.unnamed("normal", tensors)
        self.mean_K, self.std = normal["mean"].to(self.device), normal["std"].item()

    def save(self, folder: Path) -> None:
        """Write everything that `load` needs, for `lora` besides the base model."""
        folder.mkdir(parents=True, exist_ok=True)
        if self._adapter is not None:
            trunk.save_adapter(self._adapter, folder)
        else:
            trunk.save_model(self.decoder, folder, base=self.base, keep_config=False)
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in self.heads.named_parameters()}
        save_file(weights, folder / "heads.safetensors")
        values = {
            "heads": self.heads.out_features,
            "tuning": "full" if self._adapter is None else "lora",
            "mean": self.mean_K.tolist(),
            "std": self.std,
        }
        (folder / "reward.json").write_text(json.dumps(values, indent=2))


def _read(folder: Path) -> dict:
    """Raises VersionCorrupt."""
    try:
        return json.loads((folder / "reward.json").read_text())
    except (OSError, ValueError) as error:
        raise VersionCorrupt(f"{folder} holds no reward model (reward.json): {error}") from error
