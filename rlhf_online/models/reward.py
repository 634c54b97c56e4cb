"""The reward model: a transformer trunk with K linear heads for each objective, the answers' utilities.

The K heads of an objective each read a bootstrap of the votes of their own. A head's utility is read at the answer's
last token (Stiennon et al. 2020), or is the mean of what it reads at each of the answer's tokens: a pretrained trunk's
state at one token is mostly about the next one, and only training gathers in it what came before. Only differences of
utilities are learned from rankings, so every head has its own zero: a score is normalised by the heads' means over
reference answers, and by one standard deviation an objective, so that over those answers the mean of an objective's
heads has mean 0 and variance 1. How objectives make one score is not the model's business (`rewards.compose`); it only
says how they correlate over the reference answers.

Shapes: B or N pairs, O objectives, K heads, d hidden width. A folder holds `heads.safetensors`, `reward.json`, and the
trunk: a complete model folder with tokenizer files (full), or an adapter on the base model (lora).
"""

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
from peft import PeftModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlhf_online.config import Dtype
from rlhf_online.errors import VersionCorrupt
from rlhf_online.models import frozen, precision, tree_attention, trunk
from rlhf_online.models.limits import ModelLimits
from rlhf_online.models.packing import Packed
from rlhf_online.models.precision import Written
from rlhf_online.models.score_normalisation import ScoreNormalisation
from rlhf_online.models.sharding import Shards
from rlhf_online.models.tokens import ChatTokenizer, Pair

MAX_BATCH_TOKENS = 16384
Readout = Literal["last", "mean"]


@dataclass(frozen=True, slots=True)
class Heads:
    """The heads of a new model: `members` for each of `objectives`, and where they read an answer."""

    objectives: tuple[str, ...] = ("helpful",)
    members: int = 4
    readout: Readout = "last"


NEW_HEADS = Heads()
NEW_LORA = trunk.Lora(rank=8)


class RewardModel:
    """Built by `RewardModel.load`. `heads` has a row for each head of each objective, objective by objective.

    `tokenizer` is the digest of the tokenizer that the trunk was made for; layers compute in `dtype`. Large because it
    is what is loaded, learns and is written as one.
    """

    def __init__(
        self,
        decoder: PreTrainedModel,
        linear: nn.Linear,
        heads: Heads,
        *,
        base: Path,
        tokenizer: str,
        adapter: PeftModel | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.decoder = decoder
        self.shards = Shards() if adapter else Shards(reward=decoder)
        self.readout: Readout = heads.readout
        self.heads = linear
        self.objectives = heads.objectives
        self.members = heads.members
        self.base = base
        self.dtype = dtype
        stored = Written.of(base)
        self._written = stored if adapter is None else stored.adapter()
        self.tokenizer = tokenizer
        self.packer = tree_attention.packer(decoder, self.limits.context, dtype)
        self.lower = tree_attention.lower_layers(decoder, self.packer, dtype)
        self.normalisation = ScoreNormalisation.identity(len(heads.objectives), self.members)
        self._adapter = adapter

    @classmethod
    def load(
        cls,
        base: Path,
        *,
        folder: Path | None = None,
        tuning: Literal["full", "lora"],
        heads: Heads = NEW_HEADS,
        lora: trunk.Lora = NEW_LORA,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        seed: int = 0,
    ) -> "RewardModel":
        """The reward model in `folder`, or a new one on the trunk of the language model in `base`.

        A stored model of `full` tuning needs no `base`; the heads of a stored model are its own.
        Layers compute in `dtype`. New heads begin with standard deviation 1/√(d + 1) (Stiennon et al. 2020). Raises
        InvalidInput; VersionCorrupt, also for a base model whose tokenizer is not the stored model's.
        """
        device = torch.device(device)
        source = folder if folder is not None and tuning == "full" else base
        masters = torch.promote_types(dtype, torch.float32)
        decoder = trunk.load_trunk(source, device=device, dtype=masters).requires_grad_(True)
        adapter = None
        if tuning == "lora":
            adapter = trunk.add_lora(decoder, lora, folder=folder, seed=seed, task=None)
        tokenizer = ChatTokenizer(source).digest
        if folder is not None:
            stored = _read(folder)
            heads = Heads(tuple(stored["objectives"]), stored["heads"], stored["readout"])
            if stored["tokenizer"] != tokenizer:
                raise VersionCorrupt(
                    f"{folder} was trained with another tokenizer than that in {source}: use its model"
                )
        width = int(decoder.config.hidden_size)
        with trunk.seeded(seed):
            linear = nn.Linear(width, len(heads.objectives) * heads.members)
            nn.init.normal_(linear.weight, std=(width + 1) ** -0.5)
            nn.init.zeros_(linear.bias)
        linear = linear.to(device)
        model = cls(decoder, linear, heads, base=source, tokenizer=tokenizer, adapter=adapter, dtype=dtype)
        if adapter is not None:
            frozen.narrow(decoder, dtype)
        tree_attention.compiled(decoder, model.packer, dtype)
        if folder is not None:
            _restore_heads(model, folder)
        return model

    @property
    def correlation_OO(self) -> Tensor:
        """That of the objectives' scores over the reference answers."""
        return self.normalisation.correlation_OO

    @property
    def device(self) -> torch.device:
        return self.decoder.device

    @property
    def limits(self) -> ModelLimits:
        """What the trunk was made to read."""
        return trunk.limits(self.decoder.config)

    def token_budget(self, limit: int, needed: int = 0) -> int:
        """Tokens of a forward pass with gradients: `limit`, or fewer where the memory that is free, once `needed` bytes
        are taken of it, asks for it."""
        return trunk.token_budget(
            self.decoder, limit, trunk.free_room(self.device, needed), self.dtype, self.lower.count
        )

    # Computing

    def forward(self, batch: Packed) -> Tensor:
        """Utilities, not normalised, (B, O, K)."""
        return self.heads(_seen(self, batch)).unflatten(1, (len(self.objectives), self.members))

    @torch.no_grad()
    def utilities(self, pairs: Sequence[Pair], *, max_batch_tokens: int = MAX_BATCH_TOKENS) -> Tensor:
        """Utilities, not normalised, (len(pairs), O, K) on the CPU, in the order of `pairs`."""
        utilities_NOK = torch.zeros(len(pairs), len(self.objectives), self.members)
        for group in self.packer.passes([[pair] for pair in pairs], max_batch_tokens):
            batch = self.packer.pack([pairs[index] for index in group])
            utilities_NOK[group] = self.forward(batch).float().cpu()
        return utilities_NOK

    def scores(self, pairs: Sequence[Pair], *, max_batch_tokens: int = MAX_BATCH_TOKENS) -> Tensor:
        """Each head's scores, normalised, (len(pairs), O, K) on the CPU, in the order of `pairs`."""
        return self.normalisation(self.utilities(pairs, max_batch_tokens=max_batch_tokens))

    def normalise(
        self,
        pairs: Sequence[Pair],
        *,
        untrained: Collection[str] = (),
        read: Callable[[Sequence[Pair]], Tensor] | None = None,
    ) -> None:
        """Choose zero and unit so that over `pairs` (two or more) each objective has mean 0 and variance 1, once the
        trunk is written and read again.

        `untrained` are objectives by which no vote has ordered answers: they score 0. `read` gives what `utilities`
        would, where processes share that.
        """
        with precision.rounded({n: p for n, p in self.decoder.named_parameters() if p.requires_grad}, self._written):
            utilities_NOK = (read or self.utilities)(pairs)
        untrained_O = [name in untrained for name in self.objectives]
        self.normalisation = ScoreNormalisation.over(utilities_NOK, untrained_O)

    def linear(self, coefficients_O: Tensor) -> tuple[Tensor, Tensor]:
        """Σ coefficient · the objectives' mean scores as a linear function of the last hidden state, for a value head
        to begin with: weight (1, d) and bias (1,), copies.

        Of a mean over tokens that is the mean score, 0: what is read at one token is too noisy a share (docs/LOG.md).
        """
        if self.readout == "mean":
            return torch.zeros_like(self.heads.weight[:1]), torch.zeros_like(self.heads.bias[:1])
        unit_O = (coefficients_O / self.normalisation.std_O).to(self.device)
        weight_OKd = self.heads.weight.detach().float().unflatten(0, (len(self.objectives), self.members))
        bias_OK = self.heads.bias.detach().float().reshape(len(self.objectives), self.members)
        bias_O = (bias_OK - self.normalisation.mean_OK.to(self.device)).mean(1)
        return (unit_O @ weight_OKd.mean(1)).unsqueeze(0), (unit_O @ bias_O).reshape(1)

    # Learning and keeping

    def parameters(self) -> dict[str, nn.Parameter]:
        """What learns: the trunk's weights or its adapter's, and the heads."""
        learning = {f"trunk.{n}": p for n, p in self.decoder.named_parameters() if p.requires_grad}
        return learning | {f"heads.{n}": p for n, p in self.heads.named_parameters()}

    def state(self) -> dict[str, Tensor]:
        """All that learns and the normalisation, as copies on the CPU."""
        return trunk.named("reward", dict(self.parameters())) | trunk.named("normal", self.normalisation.tensors())

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Put back what `state` gave. Raises VersionCorrupt for another model's."""
        trunk.restore(self.parameters(), trunk.unnamed("reward", tensors))
        self.normalisation = ScoreNormalisation.from_tensors(trunk.unnamed("normal", tensors))

    def save(self, folder: Path) -> None:
        """Write everything that `load` needs, for `lora` besides the base model."""
        folder.mkdir(parents=True, exist_ok=True)
        if self._adapter is not None:
            trunk.save_adapter(self._adapter, folder, self._written.usual)
        else:
            trunk.save_model(self.decoder, folder, base=self.base, written=self._written, keep_config=False)
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in self.heads.named_parameters()}
        with trunk.writing():
            save_file(weights, folder / "heads.safetensors")
        values = {
            "objectives": self.objectives,
            "heads": self.members,
            "readout": self.readout,
            "tuning": "full" if self._adapter is None else "lora",
            "tokenizer": self.tokenizer,
            "dtype": precision.name(self.dtype),
            **{name: tensor.tolist() for name, tensor in self.normalisation.tensors().items()},
        }
        (folder / "reward.json").write_text(json.dumps(values, indent=2))


@torch.no_grad()
def features(model: RewardModel, pairs: Sequence[Pair]) -> Tensor:
    """What the heads see of each answer, (len(pairs), d) on the CPU, in the order of `pairs`."""
    features_Nd = torch.zeros(len(pairs), model.heads.in_features)
    for group in model.packer.passes([[pair] for pair in pairs], MAX_BATCH_TOKENS):
        features_Nd[group] = _seen(model, model.packer.pack([pairs[index] for index in group])).float().cpu()
    return features_Nd


def _seen(model: RewardModel, batch: Packed) -> Tensor:
    """What the heads see of each answer, (B, d)."""
    with precision.computing(model.device, model.dtype):
        hidden_Xd = tree_attention.hidden_states(model.decoder, batch, model.lower)
    return _pooled(hidden_Xd, batch, model.readout, model.heads.weight.dtype)


def _pooled(hidden_Xd: Tensor, batch: Packed, readout: Readout, dtype: torch.dtype) -> Tensor:
    """What the heads see of the answers, (B, d) in their type; of an empty answer the prompt's last token."""
    if readout == "last":
        return hidden_Xd[batch.last_B].to(dtype)
    count_B1 = batch.mask_BA.sum(1, keepdim=True).clamp(min=1)
    weight_BA = (torch.arange(batch.at_BA.shape[1], device=count_B1.device) < count_B1).to(dtype) / count_B1
    return (hidden_Xd[batch.at_BA].to(dtype) * weight_BA.unsqueeze(2)).sum(1)


def computed_in(folder: Path) -> str:
    """The type that layers computed in where the reward model in `folder` learned. Raises VersionCorrupt."""
    return _read(folder)["dtype"]


STORED = ("objectives", "heads", "readout", "tuning", "tokenizer", "mean", "std", "correlation")


def _restore_heads(model: RewardModel, folder: Path) -> None:
    """Raises VersionCorrupt."""
    stored = _read(folder)
    try:
        trunk.restore(dict(model.heads.named_parameters()), load_file(folder / "heads.safetensors"))
    except (OSError, SafetensorError) as error:
        raise VersionCorrupt(f"the reward model in {folder} cannot be read: {error}") from error
    normal = {name: torch.tensor(stored[name], dtype=torch.float32) for name in model.normalisation.tensors()}
    model.normalisation = ScoreNormalisation.from_tensors(normal)


def _read(folder: Path) -> dict:
    """Raises VersionCorrupt."""
    try:
        stored = {"readout": "last", "dtype": "float32"} | json.loads((folder / "reward.json").read_text())
        if missing := [name for name in STORED if name not in stored]:
            raise ValueError(f"it lacks {', '.join(missing)}")
        if stored["dtype"] not in get_args(Dtype):
            raise ValueError(f"its dtype {stored['dtype']!r} is none of {', '.join(get_args(Dtype))}")
        if stored["readout"] not in get_args(Readout):
            raise ValueError(f"its readout {stored['readout']!r} is none of {', '.join(get_args(Readout))}")
    except (OSError, ValueError) as error:
        raise VersionCorrupt(f"{folder} holds no reward model that can be read (reward.json): {error}") from error
    return stored
