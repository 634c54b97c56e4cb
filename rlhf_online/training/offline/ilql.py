"""A policy from votes by implicit language Q-learning (`algorithms.ilql`): no reward model, and no token is valued that
nobody wrote.

    values     Q and V learn from the answers of votes; an answer's reward is 1 for the best of a vote, −1 for the worst
    decoding   the model as it was, steered by Q − V, answers the prompts of the votes once more
    weights    the policy learns to say by itself what was steered, at these answers and at those of the votes

The model as it was stands for who wrote the answers, π_β: where others did, `rlhf-online sft` on them comes first.
Every random choice comes from the seed.
"""

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rlhf_online.algorithms.ilql import Valued, ilql_loss, steered
from rlhf_online.config.offline import OfflineSettings
from rlhf_online.errors import InvalidInput
from rlhf_online.feedback.votes import Comparison, Vote, is_thumb
from rlhf_online.models import precision, sampling, trunk
from rlhf_online.models.action_values import ActionValues, Steering
from rlhf_online.models.policy import Policy, logits, output_embedding
from rlhf_online.models.tokens import ChatTokenizer, Pair, length
from rlhf_online.training.offline.budget import affordable
from rlhf_online.training.offline.policy import WARMUP, measure, taught, write
from rlhf_online.training.offline.votes import Gathered
from rlhf_online.training.optimiser import NamedAdam, OnStep

EXPECTILE, CQL = 0.7, 0.1
"""τ and α: between the paper's of its tasks (.7–.8, and .25 down to .01)."""
HEAD_RATE = 1e-3
"""Highest learning rate of Q and V, which begin at nothing."""
LOGITS = 1 << 25
"""Numbers of one vocabulary's width in a pass, of which a few copies are in memory."""
LEAST_TOKENS, MOST_TOKENS = 64, 4096
SAMPLING, SAMPLED_AT_ONCE = 0.25, 32
"""Share of the time in which steered answers are sampled, and how many are at once."""


@dataclass(frozen=True, slots=True)
class Rewarded:
    """An answer, and what it is worth."""

    pair: Pair
    reward: float


def learn(
    settings: OfflineSettings, gathered: Gathered, device: torch.device, seconds: float, on_step: OnStep
) -> dict[str, Any]:
    """Write the policy to `settings.out`, a complete model folder; what is told of it. Raises InvalidInput."""
    votes = [vote for vote in gathered.learned if settings.counts(vote.objective) and rewards(vote)]
    if not votes:
        raise InvalidInput("no vote says which answers are better: ilql has nothing to learn from")
    dtype = precision.choose("auto", device, trunk.read_config(settings.model))
    given: dict[str, Any] = {
        "tuning": settings.tuning,
        "lora": trunk.Lora.of(settings),
        "seed": settings.seed,
    }
    policy = Policy.load(settings.model, device=device, dtype=dtype, **given)
    embedding_Vd = output_embedding(policy)
    values = ActionValues.load(settings.model, embedding_Vd=embedding_Vd, device=device, dtype=dtype, **given)
    learner = _Learner(settings, policy, values, max(LEAST_TOKENS, min(MOST_TOKENS, LOGITS // len(embedding_Vd))))
    held_out = [
        vote
        for vote in gathered.held_out
        if settings.counts(vote.objective) and isinstance(vote, Comparison) and len(vote.tiers) > 1
    ]

    def scores(some: Sequence[Vote]) -> None:
        policy.logprobs([each.pair for vote in some for each in rewards(vote)], reference=True)

    budget = affordable(
        votes, held_out, epochs=settings.epochs, seconds=(1 - SAMPLING) * seconds, learn=learner.tried, measure=scores
    )
    answers = [each for vote in votes[: budget.votes] for each in rewards(vote, settings.counts(vote.objective))]
    on_step(0, steps := 3 * budget.epochs * math.ceil(len(answers) / settings.batch))
    told = learner.learn_values(answers, budget.epochs, lambda done: on_step(done, steps))
    said = learner.steered_answers(answers, SAMPLING * seconds)
    pairs = [each.pair for each in answers] + said
    told |= learner.distil(pairs, budget.epochs, lambda done: on_step(steps // 3 + done, steps))
    measured = measure(policy, settings.algorithm, taught(settings, held_out))
    write(policy, settings)
    return {
        "learned": budget.votes,
        "of": len(votes),
        "without_an_order": len(gathered.learned) - len(votes),
        "passes": budget.epochs,
        "steered_answers": len(said),
        "dtype": precision.name(dtype),
        "tokens_a_second": round(1 / budget.learning) if budget.learning else 0,
        **told,
        **measured,
    }


def rewards(vote: Vote, most: float = 1.0) -> list[Rewarded]:
    """What a vote's answers are worth: evenly from `most` down to the same below 0 by their tiers, or by a thumb; else
    nothing."""
    rows = [(vote.prompt_token_ids, candidate.token_ids) for candidate in vote.candidates]
    if isinstance(vote, Comparison):
        last = len(vote.tiers) - 1
        return [
            Rewarded(rows[at], most * (1 - 2 * place / last))
            for place, tier in enumerate(vote.tiers)
            if last
            for at in tier
        ]
    return [Rewarded(rows[0], most if vote.up else -most)] if is_thumb(vote) else []


class _Learner:
    """The two things that learn, a pass of at most `tokens` at a time."""

    def __init__(self, settings: OfflineSettings, policy: Policy, values: ActionValues, tokens: int) -> None:
        self._settings = settings
        self._policy = policy
        self._values = values
        self._tokens = tokens
        self._rng = random.Random(f"ilql {settings.seed}")

    def tried(self, votes: Sequence[Vote]) -> None:
        """All that learning from these votes takes but for sampling, once, and forgotten."""
        answers = [each for vote in votes for each in rewards(vote)]
        for group in self._passes(answers, lambda each: each.pair):
            self._loss(group, 1.0)[0].backward()
        steered_like = [rewards(vote)[0].pair for vote in votes]
        for group in self._passes([each.pair for each in answers] + steered_like, lambda pair: pair):
            self._divergence(group).sum().backward()
        for parameter in (*self._values.parameters().values(), *self._policy.parameters().values()):
            parameter.grad = None

    def learn_values(self, answers: list[Rewarded], epochs: int, on_done: Callable[[int], None]) -> dict[str, float]:
        """Statistics of the last pass, means over its steps."""
        parameters = self._values.parameters()
        heads = {name: each for name, each in parameters.items() if name.startswith(("q.", "v."))}
        adam = NamedAdam({name: each for name, each in parameters.items() if name not in heads}, heads, **ADAM)
        rates = (self._settings.rate, max(HEAD_RATE, self._settings.rate))

        def step(batch: Sequence[Rewarded]) -> dict[str, float]:
            tokens, sums = max(1, sum(len(each.pair[1]) for each in batch)), dict[str, float]()
            for group in self._passes(batch, lambda each: each.pair):
                loss, stats = self._loss(group, float(tokens))
                loss.backward()
                _add(sums, stats)
            return sums

        return self._pass_over(answers, epochs, adam, rates, step, on_done, after=self._values.follow)

    def steered_answers(self, answers: Sequence[Rewarded], seconds: float) -> list[Pair]:
        """One to each prompt, as long as the longest answer at most; to as many prompts as there is time for."""
        until = time.monotonic() + seconds
        eos_ids = ChatTokenizer(self._settings.model).eos_ids
        longest = max(len(each.pair[1]) for each in answers)
        room = max(1, self._policy.limits.context - longest)
        prompts = list(dict.fromkeys(tuple(each.pair[0]) for each in answers))
        steering = Steering(self._values, self._settings.beta)
        found: list[Pair] = []
        for start in range(0, len(prompts), SAMPLED_AT_ONCE):
            if time.monotonic() > until:
                break
            group = prompts[start : start + SAMPLED_AT_ONCE]
            with self._policy.as_reference() as lm, precision.computing(self._policy.device, self._policy.dtype):
                said = sampling.sample(
                    lm,
                    [prompt[-room:] for prompt in group],
                    max_tokens=longest,
                    temperature=1.0,
                    seed=self._settings.seed + start,
                    eos_ids=eos_ids,
                    steering=steering,
                )
            found += zip(group, said, strict=True)
        return found

    def distil(self, pairs: list[Pair], epochs: int, on_done: Callable[[int], None]) -> dict[str, float]:
        """Statistics of the last pass: `distilled_kl`, KL(steered ‖ policy), nats a token."""
        adam = NamedAdam(self._policy.parameters(), **ADAM)

        def step(batch: Sequence[Pair]) -> dict[str, float]:
            tokens, sums = max(1, sum(len(answer) for _, answer in batch)), dict[str, float]()
            for group in self._passes(batch, lambda pair: pair):
                divergence = self._divergence(group).sum() / tokens
                divergence.backward()
                _add(sums, {"distilled_kl": divergence.detach()})
            return sums

        return self._pass_over(pairs, epochs, adam, (self._settings.rate,), step, on_done)

    def _pass_over(
        self,
        rows: list[Any],
        epochs: int,
        adam: NamedAdam,
        rates: Sequence[float],
        step: Callable[[Sequence[Any]], dict[str, float]],
        on_done: Callable[[int], None],
        after: Callable[[], None] = lambda: None,
    ) -> dict[str, float]:
        steps, done, taken = epochs * math.ceil(len(rows) / self._settings.batch), 0, 0
        sums: dict[str, float] = {}
        for _ in range(epochs):
            self._rng.shuffle(rows)
            sums, taken = {}, 0
            for start in range(0, len(rows), self._settings.batch):
                adam.zero_grad()
                found = step(rows[start : start + self._settings.batch])
                done += 1
                if math.isfinite(adam.clip(1.0)) and all(map(math.isfinite, found.values())):
                    rising = max(1, round(WARMUP * steps))
                    adam.step(*(rate * min(1.0, done / rising) * (1 - 0.9 * done / steps) for rate in rates))
                    after()
                    taken += 1
                    for name, value in found.items():
                        sums[name] = sums.get(name, 0.0) + value
                on_done(done)
        return {name: total / max(1, taken) for name, total in sums.items()}

    def _loss(self, group: Sequence[Rewarded], denominator: float) -> tuple[Tensor, dict[str, Tensor]]:
        batch = self._values.packer.pack([each.pair for each in group])
        hidden_Nd = self._values.hidden(batch)
        chosen, total = list[Tensor](), list[Tensor]()
        for head in self._values.q:
            q_NV = self._values.of_all(head, hidden_Nd)
            chosen.append(batch.by_answer(q_NV.gather(1, batch.answer_N.unsqueeze(1)).squeeze(1)))
            total.append(batch.by_answer(q_NV.logsumexp(1)))
        with torch.no_grad():
            slow = [self._values.of_tokens(head, hidden_Nd, batch.answer_N) for head in self._values.slow]
        ends_BA = batch.mask_BA & ~torch.nn.functional.pad(batch.mask_BA[:, 1:], (0, 1))
        reward_B1 = torch.tensor([[each.reward] for each in group], device=hidden_Nd.device)
        value_N = self._values.v(hidden_Nd).squeeze(1)
        target_BA, value_BA = batch.by_answer(torch.minimum(*slow)), batch.by_answer(value_N)
        return ilql_loss(
            Valued(torch.stack(chosen), torch.stack(total), target_BA, value_BA),
            ends_BA * reward_B1,
            batch.mask_BA,
            expectile=EXPECTILE,
            cql_coef=CQL,
            denominator=denominator,
        )

    def _divergence(self, pairs: Sequence[Pair]) -> Tensor:
        """KL(steered ‖ policy) of each state before an answer token, nats, (N,)."""
        batch = self._policy.collate(pairs)
        with torch.no_grad():
            before_NV = logits(self._policy, batch, reference=True).log_softmax(-1)
            advantages_NV = self._values.advantages(self._values.hidden(self._values.packer.pack(pairs)))
            target_NV = steered(before_NV, advantages_NV, self._settings.beta)
        ours_NV = logits(self._policy, batch).log_softmax(-1)
        return (target_NV.exp() * (target_NV - ours_NV)).sum(-1)

    def _passes(self, rows: Sequence[Any], pair_of: Callable[[Any], Pair]) -> Iterator[list[Any]]:
        """Rows that are computed together."""
        group: list[Any] = []
        size = 0
        for row in sorted(rows, key=lambda row: length(pair_of(row))):
            if group and size + length(pair_of(row)) > self._tokens:
                yield group
                group, size = [], 0
            group.append(row)
            size += length(pair_of(row))
        if group:
            yield group


ADAM: dict[str, Any] = {"betas": (0.9, 0.999), "eps": 1e-8}


def _add(sums: dict[str, float], stats: dict[str, Tensor]) -> None:
    for name, value in stats.items():
        sums[name] = sums.get(name, 0.0) + value.item()
