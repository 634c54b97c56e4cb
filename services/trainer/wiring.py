"""Builds a trainer from its settings, on the versions and the checkpoint that are there."""

import math
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
import torch

from rlhf_online.errors import CheckpointError, InvalidInput, RewardUnavailable
from rlhf_online.eventlog.base import Source
from rlhf_online.feedback.outcomes import OutcomeBoard
from rlhf_online.keystore import open_keyring
from rlhf_online.metrics import TrainerMetrics
from rlhf_online.models import precision
from rlhf_online.models.tokens import ChatTokenizer
from rlhf_online.models.trunk import pick_device, read_config
from rlhf_online.rewards import weights
from rlhf_online.rewards.rules import record
from rlhf_online.rewards.rules.ruleset import Rules
from rlhf_online.rewards.sources import RewardService
from rlhf_online.rewards.weights import Weights
from rlhf_online.rollout.buffer import RolloutBuffer
from rlhf_online.state import StateDir
from rlhf_online.training.bucket_checkpoints import BucketCheckpoints
from rlhf_online.training.checkpoint import Checkpoint, Checkpoints
from rlhf_online.training.experience import AnswerSampler, Experience
from rlhf_online.training.gate_questions import golden_prompts
from rlhf_online.training.held_back import HeldBackModel
from rlhf_online.training.intake import Intake, IntakeSettings
from rlhf_online.training.learners import Learners
from rlhf_online.training.lease import FileLease, KubernetesLease, Lease, LeaseObject, new_holder
from rlhf_online.training.ledger import Ledger
from rlhf_online.training.loop import Trainer
from rlhf_online.training.outcomes import VoteOutcomes
from rlhf_online.training.parts import TrainerParts
from rlhf_online.training.progress import Progress
from rlhf_online.training.publication import Publisher
from rlhf_online.training.reporter import Reporter
from rlhf_online.training.retrier import Retrier
from rlhf_online.training.settings import TrainerSettings
from rlhf_online.training.watched_votes import WatchedVotes
from rlhf_online.versions import open_bucket, open_registry
from rlhf_online.versions.registry import Registry
from services.trainer.models import Beginning, lead

if TYPE_CHECKING:
    from rlhf_online.keystore.keyring import Keyring

BUFFER_CYCLES = 4
"""Live answers kept for policy updates, in updates."""


def take_lease(settings: TrainerSettings, stop: threading.Event) -> AbstractContextManager[Lease]:
    """The lease that the settings name, held while the block runs; `stop` ends the wait for one on Kubernetes.

    Raises ConfigError outside of a pod where a pod's is asked for; entering it CheckpointError, ConfigError, Stopped.
    """
    folder = StateDir(settings.state_dir).checkpoints
    match settings.lease.kind:
        case "file":
            return FileLease.take(folder)
        case "kubernetes":
            target = LeaseObject.of_pod(settings.lease.name)
            return KubernetesLease.take(folder, target, settings.lease.duration_s, stop)


def build(
    settings: TrainerSettings,
    lease: Lease,
    source: Source,
    sampler: AnswerSampler,
    rewards: RewardService,
    tokenizer: ChatTokenizer,
    metrics: TrainerMetrics,
    stop: threading.Event,
) -> Trainer:
    """A trainer that has resumed from the newest good checkpoint, and writes while it has the lease.

    There must be a live policy version. Raises CheckpointError, Fenced, VersionCorrupt, InvalidInput; or Stopped.
    """
    state = StateDir(settings.state_dir)
    registry = open_registry(state.versions, lease.guard, settings.versions, actor="trainer")
    live = registry.live("policy")
    assert live is not None, "wait for the first policy version"
    reporter = Reporter(state, metrics)
    metrics.policy.kl_limit.set(settings.gate.kl.max)
    metrics.mismatch.limit.set(settings.rollout.max_mismatch)
    metrics.canary.needed.set(1 / settings.canary.alpha)
    metrics.gate.proxy_gap_limit.set(settings.gate.proxy_gap.max)
    retrier = Retrier(stop, reporter.waiting)
    keys = _keys(settings, state, retrier)
    checkpoints = Checkpoints(state.checkpoints, settings.keep_checkpoints, lease, _shared(settings), keys)
    checkpoint = _loaded(checkpoints, retrier)
    ledger = Ledger.load(checkpoints.ledger_folder, checkpoint.sealed["ledger"]) if checkpoint else Ledger()
    retrier.call("reading the live version", lambda: registry.verify(live))
    _check_tuning(settings, registry, live)
    learners, held_back = lead(settings, Beginning.of(registry, live, _dtype(settings, checkpoint)), tokenizer)
    buffer = RolloutBuffer(BUFFER_CYCLES * settings.rollout.per_cycle, settings.rollout.max_staleness)
    kept = replace(_intake_settings(settings, checkpoints, learners, held_back, tokenizer), keys=keys)
    parts = TrainerParts(
        settings=settings,
        lease=lease,
        registry=registry,
        checkpoints=checkpoints,
        ledger=ledger,
        intake=(intake := Intake(source, ledger, buffer, kept)),
        outcomes=VoteOutcomes(OutcomeBoard(registry.store), intake, ledger),
        learners=learners,
        held_back=held_back,
        publisher=_publisher(settings, registry, learners, keys),
        experience=Experience(
            sampler, [rewards], buffer, ledger, registry, retrier, settings.rollout, settings.reward.pessimism
        ),
        rewards=rewards,
        rules=_rules(registry),
        weights=_weights(registry, state, learners.reward.model.objectives),
        reporter=reporter,
        watched=WatchedVotes(tokenizer.decode, settings.gate.traits.traits),
        retrier=retrier,
        golden=golden_prompts(settings.gate.golden.file, tokenizer, learners.limits),
    )
    identity = retrier.call("reading the log", source.identity)
    progress = Progress(log_identity=identity, policy_version=live, reference=registry.references()[-1])
    trainer = Trainer(parts, progress)
    trainer.resume(checkpoint)
    return trainer


def _keys(settings: TrainerSettings, state: StateDir, retrier: Retrier) -> "Keyring | None":
    """A key store that is away is waited for, as other services are; the log tells of each key that is deleted."""
    patience = partial(retrier.call, "reading people's keys")
    return open_keyring(settings.keystore, state.root, fresh_s=math.inf, patience=patience)


def _shared(settings: TrainerSettings) -> BucketCheckpoints | None:
    """The checkpoints in the bucket of versions, where they are in one."""
    if not (settings.versions.in_bucket and settings.share_checkpoints):
        return None
    return BucketCheckpoints(open_bucket(settings.versions.url), new_holder())


def _publisher(settings: TrainerSettings, registry: Registry, learners: Learners, keys: "Keyring | None") -> Publisher:
    return Publisher(registry, learners, settings.reward.tuning, settings.keep_versions, settings.canary.steps, keys)


def _loaded(checkpoints: Checkpoints, retrier: Retrier) -> Checkpoint | None:
    """The newest checkpoint. A bucket that is away is waited for, but not checkpoints that cannot be read."""

    def load() -> Checkpoint | CheckpointError | None:
        try:
            return checkpoints.load()
        except CheckpointError as error:
            return error

    found = retrier.call("reading the newest checkpoint", load)
    if isinstance(found, CheckpointError):
        raise found
    return found


def _intake_settings(
    settings: TrainerSettings,
    checkpoints: Checkpoints,
    learners: Learners,
    held_back: HeldBackModel | None,
    tokenizer: ChatTokenizer,
) -> IntakeSettings:
    limits = learners.vote_limits
    return IntakeSettings(
        answers=checkpoints.answers_folder,
        window_ms=round(1000 * settings.join_window_s),
        held_out=settings.reward.held_out,
        held_back=settings.gate.held_back.share,
        prompts=settings.rollout.prompts,
        reference_answers=settings.reward.reference_answers,
        eos_ids=frozenset(tokenizer.eos_ids),
        limits=limits if held_back is None else held_back.narrow(limits),
        answer_ids=tokenizer.answer_ids,
        prompt_ids=tokenizer.prompt_ids,
        canary=settings.canary,
    )


def _rules(registry: Registry) -> Callable[[], Rules]:
    """Reads the operator's rules; while they are invalid the loop waits, as for a service that is away."""

    def read() -> Rules:
        try:
            return record.read(registry.store)
        except InvalidInput as error:
            raise RewardUnavailable(str(error)) from error

    return read


def _weights(registry: Registry, state: StateDir, objectives: Sequence[str]) -> Callable[[Rules], Weights]:
    """Reads the operator's weights; while they are invalid the loop waits, too."""

    def read(rules: Rules) -> Weights:
        try:
            return weights.applicable(weights.read(registry.store, state), objectives, rules.set.objectives)
        except InvalidInput as error:
            raise RewardUnavailable(str(error)) from error

    return read


def _dtype(settings: TrainerSettings, checkpoint: Checkpoint | None) -> torch.dtype:
    """What all models compute in: where the settings leave it open, what the checkpoint was computed in."""
    log, device = structlog.get_logger(), pick_device(settings.device)
    before = str(checkpoint.state.get("dtype", "float32")) if checkpoint else ""  # which earlier releases did not say
    dtype = precision.choose(settings.dtype, device, read_config(Path(settings.model)), before)
    log.info("computing", device=str(device), dtype=precision.name(dtype))
    if before not in ("", precision.name(dtype)):
        log.warning(
            "the checkpoint was computed in another type: learning goes on from it, not bit for bit as it would have",
            checkpoint=before,
            now=precision.name(dtype),
        )
    elif settings.dtype == "auto" and before == "float32" and precision.has_bfloat16(device) and device.type == "cuda":
        log.warning("dtype stays float32, as in the checkpoint: 'bfloat16' takes less time and memory on this GPU")
    return dtype


def _check_tuning(settings: TrainerSettings, registry: Registry, live: str) -> None:
    if (tuning := registry.manifest(live).tuning) != settings.tuning:
        raise InvalidInput(
            f"tuning is {settings.tuning!r}, but the live version {live} is of tuning {tuning!r}: use that, or another "
            "state_dir"
        )
