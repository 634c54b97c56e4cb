"""The two models that learn, as the loop sees them: restore, learn, sample, write.

Where several processes train together (`distributed`) what changes a model is ordered of all of them, and they must
come to the same weights; what only asks it is done by rank 0 alone, to which the others lend their pieces where weights
are sharded (`models.sharding`).
"""

import gc
import random
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from rlhf_online.events import Erasure
from rlhf_online.feedback.limits import VoteLimits
from rlhf_online.feedback.votes import Vote
from rlhf_online.models import comparison, precision, trunk
from rlhf_online.models.limits import ModelLimits
from rlhf_online.models.reward import RewardModel
from rlhf_online.models.tokens import ChatTokenizer, Pair
from rlhf_online.rewards import compose
from rlhf_online.rollout.types import LabelledAnswer, ScoredRollout
from rlhf_online.training import distributed, orders, policy_update
from rlhf_online.training.checkpoint import CheckpointPart
from rlhf_online.training.optimiser import OnStep, unseen
from rlhf_online.training.policy_update import PolicyReport, PolicyUpdater
from rlhf_online.training.reward_update import RewardReport, RewardUpdater
from rlhf_online.versions.manifest import ProbeSequence

Tokens = tuple[int, ...]
VOTE_TOKENS, VOTE_BUDGETS = 16_384, 2
"""Largest vote: this many times what one forward pass with gradients may take."""
PROBE_TOKENS = 256
"""Longest sequence of a probe: it is computed while the engine is paused."""


def vote_tokens(model: RewardModel) -> int:
    """Tokens of the largest vote that the model can learn from, the same in every type and whatever memory is free."""
    room = trunk.usual_room(model.device)
    return VOTE_BUDGETS * trunk.token_budget(model.decoder, VOTE_TOKENS, room, torch.float32)


class Learners:
    """`load_policy(folder, reference)` builds an updater on the weights of the version in `folder`, with the version in
    `reference` as what the KL counts from. `other_trunk`: the reward model did not begin as the policy, so that its
    heads know nothing of the policy's states. Large because whatever changes a model passes here, for all ranks."""

    def __init__(
        self,
        reward: RewardUpdater,
        policy: PolicyUpdater,
        tokenizer: ChatTokenizer,
        load_policy: Callable[[Path, Path], PolicyUpdater],
        *,
        other_trunk: bool = False,
    ) -> None:
        self.reward = reward
        self.policy = policy
        self.tokenizer = tokenizer
        self._load_policy = load_policy
        self._other_trunk = other_trunk

    @property
    def limits(self) -> ModelLimits:
        """What both models can read."""
        return self.policy.policy.limits.both(self.reward.model.limits)

    @property
    def dtype(self) -> str:
        """What the models compute in."""
        return precision.name(self.policy.policy.dtype)

    @property
    def vote_limits(self) -> VoteLimits:
        """What both models can learn from."""
        model = self.reward.model
        return VoteLimits(models=self.limits, objectives=model.objectives, tokens=vote_tokens(model))

    def labels(self, count: int, rng: random.Random, weights: Mapping[str, float]) -> list[LabelledAnswer]:
        """Up to `count` answers with people's thumbs, if the next policy update learns from such; none held out, and
        none by an objective of weight 0."""
        if not self.policy.algorithm.needs.labels:
            return []
        names = self.reward.model.objectives
        thumbs = [vote for vote in self.reward.thumbs if weights[names[vote.objective_index(names)]] > 0]
        return [
            LabelledAnswer(
                prompt_token_ids=vote.prompt_token_ids,
                token_ids=vote.candidate.token_ids,
                desirable=vote.up,
                event_id=vote.event_id,
            )
            for vote in rng.sample(thumbs, min(count, len(thumbs)))
        ]

    def forget(self, revoked: Collection[tuple[str, str]], erased: Collection[Erasure]) -> None:
        """See `RewardUpdater.forget` and `.erase`."""
        orders.forget("reward", revoked, erased)
        self.reward.forget(revoked)
        self.reward.erase(erased)

    def learn(
        self, new: Sequence[Vote], held_out: Sequence[Vote], reference: Sequence[Pair], on_step: OnStep = unseen
    ) -> RewardReport:
        """The reward model learns from votes; see `RewardUpdater.update`."""
        orders.learn("reward", new, held_out, reference)
        report = self.reward.update(new, held_out, reference, on_step)
        distributed.agree("the reward model after its update", self.reward.fingerprint)
        return report

    def update_policy(
        self, scored: Sequence[ScoredRollout], labelled: Sequence[LabelledAnswer], on_step: OnStep = unseen
    ) -> PolicyReport:
        """The policy learns; see `PolicyUpdater.update`."""
        orders.update_policy(scored, labelled)
        report = self.policy.update(scored, labelled, on_step)
        distributed.agree("the policy after its update", self.policy.fingerprint)
        return report

    def init_value(self, weights: Mapping[str, float]) -> bool:
        """Begin with what the reward model says by these weights of its objectives as the policy's value: once, and not
        before an algorithm needs one. True if it was now. With another trunk it begins at 0."""
        orders.init_value(weights)
        model, head = self.reward.model, self.policy.policy.value_head
        if self._other_trunk:
            return self.policy.init_value(torch.zeros_like(head.weight), torch.zeros_like(head.bias))
        weights_O = torch.tensor([weights[name] for name in model.objectives])
        return self.policy.init_value(*model.linear(compose.coefficients(weights_O, model.correlation_OO)))

    def reward_part(self) -> CheckpointPart:
        orders.lend("reward", sharded=self.reward.model.shards.cut)
        return CheckpointPart(*self.reward.state())

    def policy_part(self) -> CheckpointPart:
        orders.lend("policy", sharded=self.policy.policy.shards.cut)
        return CheckpointPart(*self.policy.state())

    def restore_reward(self, part: CheckpointPart) -> None:
        """Raises VersionCorrupt for another model's state."""
        orders.restore("reward", part)
        self.reward.load_state(part.tensors, part.values)

    def restore_policy(self, part: CheckpointPart) -> None:
        """Raises VersionCorrupt for another model's state."""
        orders.restore("policy", part)
        self.policy.load_state(part.tensors, part.values)

    def follow(self, folder: Path, reference: Path, *, new_reference: bool = False) -> None:
        """Give the policy the weights of the version in `folder`; the value head and the KL controller stay.

        With `new_reference` the controller begins anew: what it learned was about another reference. The models that
        were there are let go of first, since there may be no room for both.
        """
        orders.follow(folder, reference, new_reference=new_reference)
        values, head = policy_update.values(self.policy), self.policy.policy.value_head
        del self.policy
        gc.collect()  # layers that are compiled or sharded refer to themselves, and would stay
        updater = self._load_policy(folder, reference)
        first = policy_update.values(updater)
        kept = {"kl_coef": first["kl_coef"], "baseline": first["baseline"]} if new_reference else {}
        trunk.restore(dict(updater.policy.value_head.named_parameters()), dict(head.named_parameters()))
        policy_update.load_values(updater, values | kept)
        self.policy = updater
        distributed.agree("the policy as loaded", self.policy.fingerprint)

    def sample(self, prompts: Sequence[Tokens], *, max_tokens: int, temperature: float, seed: int) -> list[Tokens]:
        """Answers by the weights that are to serve."""
        with self.published():
            return self.policy.policy.sample(
                prompts, max_tokens=max_tokens, temperature=temperature, seed=seed, eos_ids=self.tokenizer.eos_ids
            )

    def logprobs(self, pairs: Sequence[Pair]) -> list[tuple[float, ...]]:
        """Of the answers' tokens at temperature 1, by the weights that are to serve."""
        with self.published():
            return self.policy.policy.logprobs(pairs)

    def logprobs_and_kl(self, pairs: Sequence[Pair]) -> list[tuple[tuple[float, ...], tuple[float, ...]]]:
        """Also the KL to the reference at each token; see `comparison.logprobs_and_kl`."""
        with self.published(reference=True):
            return comparison.logprobs_and_kl(self.policy.policy, pairs)

    def probe(self, prompts: Sequence[Tokens], *, max_tokens: int, seed: int) -> tuple[ProbeSequence, ...]:
        """Prompts with those answers, for a version's manifest."""
        answers = self.sample(prompts, max_tokens=max_tokens, temperature=1.0, seed=seed)
        sequences = [(prompt + answer)[-PROBE_TOKENS:] for prompt, answer in zip(prompts, answers, strict=True)]
        with self.published():
            return self.policy.policy.probe(sequences)

    def write_policy(self, folder: Path) -> None:
        """Write the files of a version that serves what the policy has learned."""
        with self.published():
            self.policy.policy.write_version(folder)

    def write_reward(self, folder: Path) -> None:
        """Write the files of a version of the reward model."""
        model = self.reward.model
        with orders.held("reward", sharded=model.shards.cut), model.shards.gathered():
            model.save(folder)

    @contextmanager
    def published(self, *, reference: bool = False) -> Iterator[None]:
        """See `PolicyUpdater.published`."""
        held = orders.held("policy", sharded=self.policy.policy.shards.cut, reference=reference)
        with held, self.policy.published(reference=reference):
            yield
