"""The models that learn, as settings and versions have them begin; in each rank where several train together."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from operator import attrgetter
from pathlib import Path
from typing import Literal, Self

import structlog
import torch
from transformers import PreTrainedModel

from rlhf_online.errors import ConfigError
from rlhf_online.models import precision, tree_attention
from rlhf_online.models.frozen import FrozenWeights
from rlhf_online.models.policy import Policy
from rlhf_online.models.reward import Heads, RewardModel
from rlhf_online.models.tensor_headers import has_weights
from rlhf_online.models.tokens import ChatTokenizer, Pair
from rlhf_online.models.trunk import Lora, pick_device
from rlhf_online.state import StateDir
from rlhf_online.training import distributed
from rlhf_online.training.followers import Folder, carry_out_orders
from rlhf_online.training.held_back import SEED, HeldBackModel
from rlhf_online.training.learners import Learners
from rlhf_online.training.policy.settings import PolicyTraining
from rlhf_online.training.policy_update import PolicyUpdater
from rlhf_online.training.reward_update import RewardUpdater
from rlhf_online.training.settings import TrainerSettings
from rlhf_online.training.sft import demonstrations, fine_tuning
from rlhf_online.versions import open_registry
from rlhf_online.versions.registry import Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class Beginning:
    """The folders of the live version, of the reference and of the first version, and what layers compute in."""

    live: str
    reference: str
    genesis: str
    dtype: str

    @classmethod
    def of(cls, registry: Registry, live: str, dtype: torch.dtype) -> Self:
        return cls(
            live=str(registry.path(live)),
            reference=str(registry.path(registry.references()[-1])),
            genesis=str(registry.path(registry.versions("policy")[0])),
            dtype=precision.name(dtype),
        )

    def told(self) -> dict[str, str]:
        """For another machine: the folders' names, which are their versions'."""
        return {name: Path(value).name for name, value in asdict(self).items()}

    @classmethod
    def here(cls, told: dict[str, str], folder: Folder) -> Self:
        """The same on this one."""
        return cls(dtype=told["dtype"], **{name: str(folder(told[name])) for name in ("live", "reference", "genesis")})


def lead(
    settings: TrainerSettings, beginning: Beginning, tokenizer: ChatTokenizer
) -> tuple[Learners, HeldBackModel | None]:
    """The models of the only process, or of rank 0, which has the other ranks load theirs. Raises RanksFailed."""
    distributed.order("build", beginning.told)
    return _load(settings, beginning, tokenizer)


def follow(settings: TrainerSettings, tokenizer: ChatTokenizer) -> None:
    """What a process of a rank above 0 does, from rank 0's first order to its last. Raises RlhfError of many kinds."""
    folder = open_registry(StateDir(settings.state_dir).versions, settings=settings.versions).path
    first = distributed.next_order()
    if first.name == "build":
        carry_out_orders(*_load(settings, Beginning.here(first.values, folder), tokenizer), folder)


def _load(
    settings: TrainerSettings, beginning: Beginning, tokenizer: ChatTokenizer
) -> tuple[Learners, HeldBackModel | None]:
    """All models that learn; where several processes train together they begin alike. Raises RanksFailed."""
    once = FrozenWeights()
    learners = _learners(settings, beginning, tokenizer, once)
    held_back = _held_back(settings, beginning, tokenizer, once) if settings.gate.held_back.share else None
    return learners, held_back


def _share(model: Policy | RewardModel, weights: Iterable[PreTrainedModel | None], settings: TrainerSettings) -> None:
    """Where several processes train together they begin with the same weights, of which each keeps a piece if so asked.
    Raises RanksFailed."""
    modules = list(enumerate(weights))

    def loaded() -> str:
        """Holds them for no longer than this takes: as they are cut the whole ones are to go, one after another."""
        named = {f"{n}.{name}": p for n, module in modules if module for name, p in module.named_parameters()}
        return distributed.fingerprint(named)

    distributed.agree(f"a model as loaded ({settings.model})", loaded)
    if settings.sharding == "full" and not distributed.alone():
        model.shards.over(distributed.mesh(model.device))


def _learners(
    settings: TrainerSettings, beginning: Beginning, tokenizer: ChatTokenizer, once: FrozenWeights
) -> Learners:
    base, device = Path(settings.model), distributed.own_device(pick_device(settings.device))

    def load_policy(folder: Path, reference: Path) -> PolicyUpdater:
        policy = Policy.load(
            base,
            tuning=settings.tuning,
            version=folder,
            reference=reference,
            lora=Lora.of(settings.policy),
            device=device,
            dtype=getattr(torch, beginning.dtype),
            seed=settings.seed,
        )
        if settings.recompute:
            tree_attention.recomputed(policy.lm, policy.dtype)
        _share(policy, (policy.lm, policy.reference), settings)
        for module in (policy.lm, policy.reference):
            if module is not None and not policy.shards.cut:
                once.keep(module)
        mixed = _demonstrations(settings.policy, tokenizer, policy)
        on_cpu = settings.optimiser_state == "cpu"
        return PolicyUpdater(policy, settings.policy, settings.seed, mixed, moments_on_cpu=on_cpu)

    reward = _reward_updater(settings, beginning, tokenizer, once, trunk="reward.trunk", seed=settings.seed)
    policy = load_policy(Path(beginning.live), Path(beginning.reference))
    return Learners(reward, policy, tokenizer, load_policy, other_trunk=bool(settings.reward.trunk))


def _held_back(
    settings: TrainerSettings, beginning: Beginning, tokenizer: ChatTokenizer, once: FrozenWeights
) -> HeldBackModel:
    trunk = "gate.held_back.trunk" if settings.gate.held_back.trunk else "reward.trunk"
    return HeldBackModel(_reward_updater(settings, beginning, tokenizer, once, trunk=trunk, seed=settings.seed + SEED))


def _reward_updater(
    settings: TrainerSettings,
    beginning: Beginning,
    tokenizer: ChatTokenizer,
    once: FrozenWeights,
    *,
    trunk: str,
    seed: int,
) -> RewardUpdater:
    """A new reward model, on the trunk that the setting `trunk` names, or else on the policy's."""
    base, named = Path(settings.model), attrgetter(trunk)(settings)
    tuning: Literal["full", "lora"] = settings.reward.tuning
    if tuning == "lora" and not has_weights(base):
        raise ConfigError(
            f"reward.tuning: 'lora' needs the base model's weights, and {base} holds no *.safetensors: use 'full'"
        )
    model = RewardModel.load(
        Path(named) if named else base if has_weights(base) else Path(beginning.genesis),
        tuning=tuning,
        heads=Heads(
            objectives=settings.reward.objectives, members=settings.reward.heads, readout=settings.reward.readout
        ),
        lora=Lora.of(settings.reward),
        device=distributed.own_device(pick_device(settings.device)),
        dtype=getattr(torch, beginning.dtype),
        seed=seed,
    )
    if settings.recompute:
        tree_attention.recomputed(model.decoder, model.dtype)
    _share(model, (model.decoder,), settings)
    if not model.shards.cut:
        once.keep(model.decoder)
    if model.tokenizer != tokenizer.digest:
        raise ConfigError(f"{trunk}: the model in {named} has another tokenizer than {base}: name one with the same")
    return RewardUpdater(model, settings.reward, seed, moments_on_cpu=settings.optimiser_state == "cpu")


def _demonstrations(settings: PolicyTraining, tokenizer: ChatTokenizer, policy: Policy) -> Sequence[Pair]:
    """Those of the PTX mix."""
    if settings.ptx_coef == 0:
        return ()
    if settings.demonstrations is None:
        raise ConfigError("policy.ptx_coef is above 0, and policy.demonstrations names no file: name one")
    read = demonstrations.read_file(settings.demonstrations)
    prepared = fine_tuning.to_pairs(read.found, tokenizer, policy.limits.context, policy.limits.vocabulary)
    structlog.get_logger().info(
        "demonstrations", learned=len(prepared.pairs), left_out=len(prepared.left_out), wrong_lines=len(read.wrong)
    )
    return prepared.pairs
