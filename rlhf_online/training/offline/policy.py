"""A policy from votes at once, without a reward model and without sampling: DPO, IPO, KTO, or the best answers.

dpo, ipo      pairs: the best of what a vote compares against the worst (`algorithms.preference_losses.dpo_loss`)
kto           thumbs; where there are none, the best and the worst answers of comparisons stand for good and bad ones
best-of-n     the best answers' likelihood (Touvron et al. 2023, arXiv 2307.09288, section 3.2.3)

Of several objectives the losses are added, each as often as its weight says, and votes of weight 0 are left out: the
linear scalarisation that Zhou et al. 2023 (arXiv 2310.03708) compare theirs with.

The reference is the model as it was. Every random choice comes from the seed.
"""

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor

from rlhf_online.algorithms.preference_losses import dpo_loss, kto_loss
from rlhf_online.config.offline import OfflineSettings
from rlhf_online.errors import InvalidInput
from rlhf_online.feedback.votes import Comparison, Rating, Vote, is_thumb
from rlhf_online.intervals import share
from rlhf_online.models import precision, trunk
from rlhf_online.models.policy import Policy
from rlhf_online.models.precision import Written
from rlhf_online.models.tokens import Pair, length
from rlhf_online.training.offline.budget import affordable
from rlhf_online.training.offline.votes import Gathered
from rlhf_online.training.optimiser import NamedAdam, OnStep

MICRO_BATCH_TOKENS = 4096
WARMUP = 0.1
"""Share of the steps in which the learning rate rises."""


@dataclass(frozen=True, slots=True)
class Example:
    """The answers that one vote teaches, the better one first; of one alone `good` says which it is. `reference` are
    their log-probabilities under the model as it was, `weight` is what its loss counts."""

    pairs: tuple[Pair, ...]
    conversation_id: str
    weight: float
    good: bool = True
    reference: tuple[float, ...] = ()


def learn(
    settings: OfflineSettings, gathered: Gathered, device: torch.device, seconds: float, on_step: OnStep
) -> dict[str, Any]:
    """Write the policy to `settings.out`, a model folder or an adapter; what is told of it. Raises InvalidInput."""
    learned, held_out = (_usable(settings, votes) for votes in (gathered.learned, gathered.held_out))
    if not any(taught(settings, learned)):
        raise InvalidInput(f"no vote says which answers are better: {settings.algorithm} has nothing to learn from")
    dtype = precision.choose("auto", device, trunk.read_config(settings.model))
    policy = Policy.load(
        settings.model,
        tuning=settings.tuning,
        lora=trunk.Lora.of(settings),
        device=device,
        dtype=dtype,
        seed=settings.seed,
    )

    def gradients(votes: Sequence[Vote]) -> None:
        for rows in _grouped(_with_reference(policy, taught(settings, votes)), policy):
            _logprobs(policy, rows).sum().backward()
        for parameter in policy.parameters().values():
            parameter.grad = None

    def scores(votes: Sequence[Vote]) -> None:
        _with_reference(policy, taught(settings, votes))

    budget = affordable(learned, held_out, epochs=settings.epochs, seconds=seconds, learn=gradients, measure=scores)
    examples = _with_reference(policy, taught(settings, learned[: budget.votes]))
    stats = _train(policy, settings, examples, budget.epochs, on_step)
    measured = measure(policy, settings.algorithm, taught(settings, held_out))
    write(policy, settings)
    return {
        "learned": budget.votes,
        "of": len(learned),
        "without_an_order": len(gathered.learned) - len(learned),
        "passes": budget.epochs,
        "dtype": precision.name(dtype),
        "tokens_a_second": round(1 / budget.learning) if budget.learning else 0,
        **stats,
        **measured,
    }


# What is learned


def _usable(settings: OfflineSettings, votes: Sequence[Vote]) -> list[Vote]:
    """The votes of the kind that the algorithm learns from, where they count anything; all that say what is better
    where KTO finds no thumb."""
    votes = [vote for vote in votes if settings.counts(vote.objective)]
    ordered: list[Vote] = [vote for vote in votes if isinstance(vote, Comparison) and len(vote.tiers) > 1]
    thumbs: list[Vote] = [vote for vote in votes if is_thumb(vote)]
    return thumbs or ordered if settings.algorithm == "kto" else ordered


def taught(settings: OfflineSettings, votes: Sequence[Vote]) -> list[Example]:
    made: list[Example] = []
    for vote in votes:
        about = (vote.conversation_id, settings.counts(vote.objective))
        rows = [(vote.prompt_token_ids, candidate.token_ids) for candidate in vote.candidates]
        if isinstance(vote, Rating):
            made.append(Example((rows[0],), *about, vote.up))
            continue
        best, worst = rows[vote.tiers[0][0]], rows[vote.tiers[-1][-1]]
        match settings.algorithm:
            case "kto":
                made += [Example((best,), *about), Example((worst,), *about, good=False)]
            case "best-of-n":
                made.append(Example((best,), *about))
            case _:
                made.append(Example((best, worst), *about))
    return made


def _with_reference(policy: Policy, examples: Sequence[Example]) -> list[Example]:
    found = iter(policy.logprobs([pair for example in examples for pair in example.pairs], reference=True))
    return [replace(example, reference=tuple(sum(next(found)) for _ in example.pairs)) for example in examples]


# Learning


def _train(
    policy: Policy, settings: OfflineSettings, examples: list[Example], epochs: int, on_step: OnStep
) -> dict[str, float]:
    """Statistics of the last pass, means over its steps."""
    adam = NamedAdam(policy.parameters(), betas=(0.9, 0.999), eps=1e-8)
    rng = random.Random(f"offline {settings.seed}")
    steps, done = epochs * math.ceil(len(examples) / settings.batch), 0
    sums: dict[str, float] = {}
    taken = 0
    on_step(done, steps)
    for _ in range(epochs):
        rng.shuffle(examples)
        sums, taken = {}, 0
        for start in range(0, len(examples), settings.batch):
            adam.zero_grad()
            found = _step(policy, settings, examples[start : start + settings.batch])
            done += 1
            if math.isfinite(adam.clip(1.0)) and all(map(math.isfinite, found.values())):
                rising = max(1, round(WARMUP * steps))
                adam.step(settings.rate * min(1.0, done / rising) * (1 - 0.9 * done / steps))
                taken += 1
                for name, value in found.items():
                    sums[name] = sums.get(name, 0.0) + value
            on_step(done, steps)
    return {name: total / max(1, taken) for name, total in sums.items()}


def _step(policy: Policy, settings: OfflineSettings, batch: Sequence[Example]) -> dict[str, float]:
    """Add a minibatch's gradient; its loss and what the loss says of it."""
    sums: dict[str, float] = {}
    loss_of = _loss(policy, settings, batch)
    for rows in _grouped(batch, policy):
        loss, stats = loss_of(rows, _logprobs(policy, rows))
        loss = rows[0].weight * loss
        loss.backward()
        for name, value in {"loss": loss, **stats}.items():
            sums[name] = sums.get(name, 0.0) + value.detach().item()
    return sums


def _loss(
    policy: Policy, settings: OfflineSettings, batch: Sequence[Example]
) -> Callable[[Sequence[Example], Tensor], tuple[Tensor, dict[str, Tensor]]]:
    """The loss of part of the minibatch, given the log-probabilities of its answers, such that all parts add up."""
    if settings.algorithm == "best-of-n":
        tokens = sum(len(example.pairs[0][1]) for example in batch)
        return lambda rows, logprobs_B: (-logprobs_B.sum() / tokens, {})
    if settings.algorithm in ("dpo", "ipo"):
        kind = "ipo" if settings.algorithm == "ipo" else "dpo"

        def of_pairs(rows: Sequence[Example], logprobs_B: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            chosen_B, rejected_B = logprobs_B.reshape(-1, 2).unbind(1)
            reference_B2 = torch.tensor([example.reference for example in rows]).to(logprobs_B)
            return dpo_loss(
                chosen_B, rejected_B, *reference_B2.unbind(1), beta=settings.beta, kind=kind, denominator=len(batch)
            )

        return of_pairs
    kl = _reference_point(policy, batch)
    good = max(1, sum(example.good for example in batch))
    bad = max(1, len(batch) - good)

    def of_thumbs(rows: Sequence[Example], logprobs_B: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        loss, stats = kto_loss(
            logprobs_B,
            torch.tensor([example.reference[0] for example in rows]).to(logprobs_B),
            torch.tensor([example.good for example in rows]).to(logprobs_B.device),
            kl,
            beta=settings.beta,
            desirable_weight=len(batch) / (2 * good),
            undesirable_weight=len(batch) / (2 * bad),
            denominator=len(batch),
        )
        del stats["reference_point"]
        return loss, stats

    return of_thumbs


@torch.no_grad()
def _reference_point(policy: Policy, batch: Sequence[Example]) -> float:
    """KTO's estimate of KL(π ‖ π_ref): the mean log-ratio of the prompts with answers to *other* prompts of the batch;
    0 where all prompts are one."""
    shifted = [*batch[1:], *batch[:1]]
    others = [
        (example.pairs[0][0], other.pairs[0][1])
        for example, other in zip(batch, shifted, strict=True)
        if example.pairs[0][0] != other.pairs[0][0]
    ]
    if not others:
        return 0.0
    ratios = [
        sum(now) - sum(was)
        for now, was in zip(policy.logprobs(others), policy.logprobs(others, reference=True), strict=True)
    ]
    return sum(ratios) / len(ratios)


def _grouped(examples: Sequence[Example], policy: Policy) -> Iterator[list[Example]]:
    """Whole examples of one weight, as many tokens as a pass with gradients may take, of similar length."""
    limit, group, size = policy.token_budget(MICRO_BATCH_TOKENS), [], 0
    for example in sorted(examples, key=lambda example: (example.weight, max(map(length, example.pairs)))):
        width = max(map(length, example.pairs)) * len(example.pairs)
        if group and (size + width > limit or group[0].weight != example.weight):
            yield group
            group, size = [], 0
        group.append(example)
        size += width
    if group:
        yield group


def _logprobs(policy: Policy, rows: Sequence[Example]) -> Tensor:
    """Of all answers of the examples, in their order."""
    return policy.forward(policy.collate([pair for example in rows for pair in example.pairs])).logprobs_BA.sum(1)


# Afterwards


def measure(policy: Policy, algorithm: str, examples: Sequence[Example]) -> dict[str, Any]:
    """On held-out votes: how often the better answer has gained more than the worse one, and how much the good ones
    have gained, nats an answer."""
    if not examples:
        return {"held_out": 0}
    examples = _with_reference(policy, examples)
    now = iter(policy.logprobs([pair for example in examples for pair in example.pairs]))
    gains = [[sum(next(now)) - was for was in example.reference] for example in examples]
    good = [gain[0] for gain, example in zip(gains, examples, strict=True) if example.good]
    bad = [gain[0] for gain, example in zip(gains, examples, strict=True) if not example.good]
    told: dict[str, Any] = {"held_out": len(examples), "held_out_gain": sum(good) / max(1, len(good))}
    if bad:
        told["held_out_gain_of_bad"] = sum(bad) / len(bad)
    if algorithm in ("dpo", "ipo", "ilql"):
        right = [float(better > worse) + 0.5 * (better == worse) for better, worse in gains]
        found = share(right, [example.conversation_id for example in examples])
        told |= {"held_out_accuracy": found.value, "held_out_accuracy_low": found.low}
        told |= {"held_out_accuracy_high": found.high, "held_out_accuracy_n": found.n}
    return told


def write(policy: Policy, settings: OfflineSettings) -> None:
    """A model folder that serves; an adapter is added to the weights, unless it is asked for alone."""
    if settings.tuning == "full" or not settings.merged:
        policy.write_version(settings.out)
        return
    with TemporaryDirectory() as folder:
        policy.write_version(Path(folder))
        lm = trunk.load_lm(settings.model, device=torch.device("cpu"), dtype=torch.float32)
        merged = PeftModel.from_pretrained(lm, folder).merge_and_unload()
        trunk.save_model(
            merged, settings.out, base=settings.model, written=Written.of(settings.model), keep_config=True
        )
