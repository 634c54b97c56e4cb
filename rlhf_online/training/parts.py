"""What a trainer is made of; `services.trainer.wiring` builds it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rlhf_online.gate.golden_prompts import GoldenPrompt
from rlhf_online.rewards.rules.ruleset import Rules
from rlhf_online.rewards.sources import RewardService
from rlhf_online.rewards.weights import Weights
from rlhf_online.training.checkpoint import Checkpoints
from rlhf_online.training.experience import Experience
from rlhf_online.training.held_back import HeldBackModel
from rlhf_online.training.intake import Intake
from rlhf_online.training.learners import Learners
from rlhf_online.training.lease import Lease
from rlhf_online.training.ledger import Ledger
from rlhf_online.training.outcomes import VoteOutcomes
from rlhf_online.training.publication import Publisher
from rlhf_online.training.reporter import Reporter
from rlhf_online.training.retrier import Retrier
from rlhf_online.training.settings import TrainerSettings
from rlhf_online.training.watched_votes import WatchedVotes
from rlhf_online.versions.registry import Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainerParts:
    """The objects that the loop calls in turn."""

    settings: TrainerSettings
    lease: Lease
    registry: Registry
    checkpoints: Checkpoints
    ledger: Ledger
    intake: Intake
    outcomes: VoteOutcomes
    learners: Learners
    held_back: HeldBackModel | None
    """None where the gate judges without one."""
    publisher: Publisher
    experience: Experience
    rewards: RewardService
    rules: Callable[[], Rules]
    """Reads the operator's current rules."""
    weights: Callable[[Rules], Weights]
    """Reads the operator's current weight of each objective, and of these rules."""
    reporter: Reporter
    watched: WatchedVotes
    retrier: Retrier
    golden: Sequence[tuple[GoldenPrompt, tuple[int, ...]]] = ()
    """The operator's golden prompts, and their tokens."""
