"""The held-back reward model: the gate judges the policy by it, and nothing else ever hears what it says.

A policy that has learned from a reward model knows where that one errs, so that by that one's scores it can only look
better. This one learns from votes of other conversations (`feedback.held_out`), from random heads of its own, on the
same trunk or on that of another model; errors that stem from single votes, from chance or from the trunk are not the
same in both. What people in general get wrong, both have learned (docs/decisions/0022).

Invariants: it never learns from a conversation that the policy's reward model learns from; neither the policy nor that
reward model ever learns from its scores.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import torch

from rlhf_online.errors import VersionCorrupt
from rlhf_online.events import Erasure
from rlhf_online.feedback.limits import VoteLimits
from rlhf_online.feedback.votes import Vote
from rlhf_online.models.tokens import Pair
from rlhf_online.rewards import compose
from rlhf_online.rewards.sources import Scored
from rlhf_online.training import distributed, orders
from rlhf_online.training.checkpoint import CheckpointPart
from rlhf_online.training.learners import vote_tokens
from rlhf_online.training.optimiser import OnStep, unseen
from rlhf_online.training.reward_update import RewardReport, RewardUpdater

SEED = 7919
"""Added to the trainer's seed, so that heads, order of votes and replay are drawn anew."""


class HeldBackModel:
    """Learns by `updater`, as the policy's reward model does by its own."""

    def __init__(self, updater: RewardUpdater) -> None:
        self.updater = updater

    def narrow(self, limits: VoteLimits) -> VoteLimits:
        """`limits` of the other models, so that this one can read what is within them, too."""
        model = self.updater.model
        return replace(limits, models=limits.models.both(model.limits), tokens=min(limits.tokens, vote_tokens(model)))

    def update(
        self, votes: Sequence[Vote], held_out: Sequence[Vote], reference: Sequence[Pair], on_step: OnStep = unseen
    ) -> RewardReport:
        """Learn from `votes`; see `RewardUpdater.update`."""
        orders.learn("held_back", votes, held_out, reference)
        report = self.updater.update(votes, held_out, reference, on_step)
        distributed.agree("the held-back reward model after its update", self.updater.fingerprint)
        return report

    def trained_objectives(self, weights: Mapping[str, float]) -> int:
        """How many objectives of a weight above 0 votes have ordered answers by."""
        return sum(weights[name] > 0 for name in self.updater.trained_objectives)

    def forget(self, revoked: Collection[tuple[str, str]], erased: Collection[Erasure]) -> None:
        """See `RewardUpdater.forget` and `.erase`."""
        orders.forget("held_back", revoked, erased)
        self.updater.forget(revoked)
        self.updater.erase(erased)

    def score(
        self, pairs: Sequence[Pair], weights: Mapping[str, float], by_rules: Sequence[float] = ()
    ) -> list[Scored]:
        """Of each pair, in order: the mean over the heads and their standard deviation, in standard deviations of the
        reference answers' scores. `weights` are those of the objectives, and `by_rules` is what the rules add to each
        pair's, as in the policy's scores."""
        model = self.updater.model
        weights_O = torch.tensor([weights[name] for name in model.objectives])
        with orders.held("held_back", sharded=model.shards.cut), model.shards.gathered():
            scores_NOK = model.scores(pairs)
        scores_N, spreads_N = compose.combine(scores_NOK, weights_O, model.correlation_OO)
        added_N = torch.tensor(by_rules) if by_rules else torch.zeros_like(scores_N)
        return [Scored(*found) for found in zip((scores_N + added_N).tolist(), spreads_N.tolist(), strict=True)]

    def part(self) -> CheckpointPart:
        """Its part of a checkpoint."""
        orders.lend("held_back", sharded=self.updater.model.shards.cut)
        return CheckpointPart(*self.updater.state())

    def restore(self, part: CheckpointPart) -> None:
        """Raises VersionCorrupt for another model's state."""
        orders.restore("held_back", part)
        try:
            self.updater.load_state(part.tensors, part.values)
        except VersionCorrupt as error:
            anew = "set gate.held_back.share = 0 until the next cycle, which lets go of it, to begin it anew"
            raise VersionCorrupt(f"the held-back reward model does not fit: {error}; or {anew}") from error
