"""PPO and Plackett–Luce as one writes them down: what the method asks for, and nothing else.

No undo, no counting, no checks; model, answers, minibatches and types are the trainer's. The plain loops pad a pass to
its longest sequence and hold all its logits; the strong ones read what the trainer reads (`models.packing`, logits in
pieces).
"""

import random
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rlhf_online.feedback.votes import Comparison, pairs
from rlhf_online.models import token_head, tree_attention, trunk
from rlhf_online.models.compiled import plainly
from rlhf_online.models.policy import Policy
from rlhf_online.models.precision import computing
from rlhf_online.models.reward import RewardModel
from rlhf_online.models.tokens import Pair
from rlhf_online.rollout.types import ScoredRollout

CLIP, KL_COEF, GAE_LAMBDA = 0.2, 0.03, 0.95
LR = 1e-6
RANKED = 4

Reference = Callable[[], AbstractContextManager[Any]]
"""While its block runs, the model that it gives is the reference."""


@dataclass(frozen=True, slots=True)
class Padded:
    """Pairs a row each, right padded."""

    tokens_BT: Tensor
    answer_BA: Tensor
    mask_BA: Tensor
    before_BA: Tensor
    """The position whose state predicts each answer token."""
    last_B: Tensor


def padded(pairs: Sequence[Pair], device: torch.device) -> Padded:
    width = max(len(prompt) + len(answer) for prompt, answer in pairs)
    most = max(len(answer) for _, answer in pairs)
    prompt_B = torch.tensor([len(prompt) for prompt, _ in pairs])
    answer_B = torch.tensor([len(answer) for _, answer in pairs])
    step_A = torch.arange(most)
    tokens = [[*prompt, *answer, *[0] * (width - len(prompt) - len(answer))] for prompt, answer in pairs]
    return Padded(
        tokens_BT=torch.tensor(tokens).to(device),
        answer_BA=torch.tensor([[*answer, *[0] * (most - len(answer))] for _, answer in pairs]).to(device),
        mask_BA=(step_A < answer_B.unsqueeze(1)).to(device),
        before_BA=(prompt_B.unsqueeze(1) - 1 + step_A).clamp(max=width - 1).to(device),
        last_B=(prompt_B + answer_B - 1).to(device),
    )


def _chunks(pairs: Sequence[Pair], tokens: int) -> list[list[int]]:
    """Rows for passes of at most so many tokens."""
    rows = max(1, tokens // max(len(prompt) + len(answer) for prompt, answer in pairs))
    return [list(range(start, min(start + rows, len(pairs)))) for start in range(0, len(pairs), rows)]


class BarePPO:
    """Old log-probs, values and the reference's, GAE, clipped steps by Adam."""

    def __init__(
        self,
        policy: Policy,
        reference: Reference,
        rollouts: Sequence[ScoredRollout],
        *,
        epochs: int,
        minibatches: int,
        tokens: int,
        strong: bool,
    ) -> None:
        self.policy, self.reference, self.strong = policy, reference, strong
        self.epochs, self.minibatches, self.tokens = epochs, minibatches, tokens
        self.value_head = nn.Linear(int(policy.lm.config.hidden_size), 1).to(policy.device)
        self.parameters = [*policy.parameters().values(), *self.value_head.parameters()]
        self.adam = torch.optim.Adam(self.parameters, lr=LR, eps=1e-5, fused=True)
        self.pairs = [(s.rollout.prompt_token_ids, s.rollout.token_ids) for s in rollouts]
        self.scores = torch.tensor([s.score for s in rollouts])
        self.order = random.Random(0)

    def _passes(self, rows: Sequence[int]) -> list[list[int]]:
        pairs = [self.pairs[row] for row in rows]
        groups = _chunks(pairs, self.tokens)
        if self.strong:
            groups = self.policy.packer.passes([[pair] for pair in pairs], self.tokens)
        return [[rows[index] for index in group] for group in groups]

    def _read(self, model: Any, rows: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Log-probabilities, values and the mask, (B, A) each."""
        pairs = [self.pairs[row] for row in rows]
        return self._packed(model, pairs) if self.strong else self._padded(model, pairs)

    def _packed(self, model: Any, pairs: Sequence[Pair]) -> tuple[Tensor, Tensor, Tensor]:
        batch = self.policy.packer.pack(pairs)
        with computing(self.policy.device, self.policy.dtype):
            hidden = tree_attention.hidden_states(getattr(model, model.base_model_prefix), batch)[batch.before_N]
            ones = torch.ones_like(batch.answer_N)
            logprobs, _ = token_head.predictions(trunk.output_head(model), hidden, batch.answer_N, ones)
        values = self.value_head(hidden.float()).squeeze(-1)
        return batch.by_answer(logprobs), batch.by_answer(values), batch.mask_BA

    def _padded(self, model: Any, pairs: Sequence[Pair]) -> tuple[Tensor, Tensor, Tensor]:
        batch = padded(pairs, self.policy.device)
        with plainly(), computing(self.policy.device, self.policy.dtype):
            decoder = getattr(model, model.base_model_prefix)
            hidden = decoder(input_ids=batch.tokens_BT, use_cache=False).last_hidden_state
            hidden = hidden.gather(1, batch.before_BA.unsqueeze(-1).expand(-1, -1, hidden.shape[-1]))
            logits = trunk.output_head(model)(hidden).float()
            logprobs = logits.gather(-1, batch.answer_BA.unsqueeze(-1)).squeeze(-1) - logits.logsumexp(-1)
        return logprobs, self.value_head(hidden.float()).squeeze(-1), batch.mask_BA

    @torch.no_grad()
    def _start(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        shape = (len(self.pairs), max(len(answer) for _, answer in self.pairs))
        old, ref, values, mask = (torch.zeros(shape, device=self.policy.device) for _ in range(4))
        for rows in self._passes(range(len(self.pairs))):
            logprobs, told, real = self._read(self.policy.lm, rows)
            width = real.shape[1]
            old[rows, :width], mask[rows, :width], values[rows, :width] = logprobs * real, real.float(), told * real
            with self.reference() as model:
                ref[rows, :width] = self._read(model, rows)[0] * real
        rewards = -KL_COEF * (old - ref)
        last = mask.sum(1).long() - 1
        rewards[torch.arange(len(last)), last] += self.scores.to(rewards)
        advantages, carry, following = torch.zeros_like(rewards), 0.0, 0.0
        for t in range(shape[1] - 1, -1, -1):
            carry = (rewards[:, t] + following - values[:, t] + GAE_LAMBDA * carry) * mask[:, t]
            advantages[:, t], following = carry, values[:, t]
        returns, real = advantages + values, mask.bool()
        advantages = (advantages - advantages[real].mean()) / (advantages[real].std() + 1e-8)
        return old, values, advantages, returns, mask

    def __call__(self) -> None:
        start = self._start()
        rows = list(range(len(self.pairs)))
        count = len(rows) // self.minibatches
        for _ in range(self.epochs):
            self.order.shuffle(rows)
            for begin in range(0, count * self.minibatches, count):
                self._step(rows[begin : begin + count], *start)

    def _step(
        self, rows: list[int], old: Tensor, values: Tensor, advantages: Tensor, returns: Tensor, mask: Tensor
    ) -> None:
        self.adam.zero_grad(set_to_none=True)
        total = mask[rows].sum()
        for part in self._passes(rows):
            logprobs, value, real = self._read(self.policy.lm, part)
            width = real.shape[1]
            ratio, advantage = (logprobs - old[part, :width]).exp(), advantages[part, :width]
            gain = torch.minimum(ratio * advantage, ratio.clamp(1 - CLIP, 1 + CLIP) * advantage)
            before, target = values[part, :width], returns[part, :width]
            near = before + (value - before).clamp(-CLIP, CLIP)
            error = torch.maximum((value - target).square(), (near - target).square())
            (((0.5 * error - gain) * real).sum() / total).backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.adam.step()


class BareReward:
    """Plackett–Luce over rankings, four heads on the last hidden state."""

    def __init__(
        self, model: RewardModel, rankings: Sequence[Comparison], *, batch: int, tokens: int, strong: bool
    ) -> None:
        self.model, self.batch, self.tokens, self.strong = model, batch, tokens, strong
        self.heads = nn.Linear(int(model.decoder.config.hidden_size), 4).to(model.device)
        trunk_weights = [p for p in model.decoder.parameters() if p.requires_grad]
        self.parameters = [*trunk_weights, *self.heads.parameters()]
        self.adam = torch.optim.Adam(self.parameters, lr=LR, fused=True)
        self.rankings = [list(pairs(item)) for item in rankings]

    def __call__(self) -> None:
        for start in range(0, len(self.rankings), self.batch):
            votes = self.rankings[start : start + self.batch]
            self.adam.zero_grad(set_to_none=True)
            for part in self._passes(votes):
                self._backward([votes[index] for index in part], len(votes))
            torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
            self.adam.step()

    def _passes(self, votes: Sequence[Sequence[Pair]]) -> list[list[int]]:
        if self.strong:
            return self.model.packer.cut(votes, self.tokens)
        longest = max(len(prompt) + len(answer) for vote in votes for prompt, answer in vote)
        rows = max(1, self.tokens // (RANKED * longest))
        return [list(range(first, min(first + rows, len(votes)))) for first in range(0, len(votes), rows)]

    def _backward(self, votes: Sequence[Sequence[Pair]], total: int) -> None:
        answers = [pair for vote in votes for pair in vote]
        with nullcontext() if self.strong else plainly(), computing(self.model.device, self.model.dtype):
            if self.strong:
                batch = self.model.packer.pack(answers)
                last = tree_attention.hidden_states(self.model.decoder, batch)[batch.last_B]
            else:
                padding = padded(answers, self.model.device)
                hidden: Any = self.model.decoder(input_ids=padding.tokens_BT, use_cache=False).last_hidden_state
                last = hidden[torch.arange(len(answers), device=hidden.device), padding.last_B]
        utilities = self.heads(last.float()).reshape(len(votes), RANKED, -1)
        below = utilities.flip(1).logcumsumexp(1).flip(1)
        ((below - utilities).sum() / (total * utilities.shape[-1])).backward()
