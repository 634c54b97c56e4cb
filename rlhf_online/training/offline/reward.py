"""A reward model from votes at once: the trainer's own updater (`training.reward_update`), one update, in a time."""

import random
from collections.abc import Sequence
from typing import Any

import torch

from rlhf_online.config.offline import OfflineSettings
from rlhf_online.errors import InvalidInput
from rlhf_online.feedback.votes import Comparison, Vote, ordered_pairs, pairs
from rlhf_online.intervals import share
from rlhf_online.models import precision, trunk
from rlhf_online.models.reward import Heads, RewardModel
from rlhf_online.training.offline.budget import Budget, affordable
from rlhf_online.training.offline.votes import Gathered
from rlhf_online.training.optimiser import OnStep
from rlhf_online.training.reward_update import RewardUpdater
from rlhf_online.training.settings import RewardTraining

REFERENCE_ANSWERS = 128
"""Answers on which scores are normalised."""
TRIED_AT_ONCE = 8


def learn(
    settings: OfflineSettings, gathered: Gathered, device: torch.device, seconds: float, on_step: OnStep
) -> dict[str, Any]:
    """Write the reward model to `settings.out`; what is told of it. `seconds` are left for it. Raises InvalidInput."""
    dtype = precision.choose("auto", device, trunk.read_config(settings.model))
    model = RewardModel.load(
        settings.model,
        tuning=settings.tuning,
        heads=Heads(objectives=settings.objectives, members=settings.heads, readout=settings.readout),
        lora=trunk.Lora.of(settings),
        device=device,
        dtype=dtype,
        seed=settings.seed,
    )
    budget = _budget(model, gathered, settings.epochs, seconds)
    votes = gathered.learned[: budget.votes]
    training = RewardTraining(
        tuning=settings.tuning,
        objectives=settings.objectives,
        heads=settings.heads,
        readout=settings.readout,
        lr=settings.rate,
        batch=settings.batch,
        cold_epochs=budget.epochs,
    )
    updater = RewardUpdater(model, training, settings.seed)
    answers = [pair for vote in votes for pair in pairs(vote)]
    reference = random.Random(settings.seed).sample(answers, min(len(answers), REFERENCE_ANSWERS))
    report = updater.update(votes, gathered.held_out, reference, on_step)
    if not report.passes and sum(report.skipped.values()) >= len(votes):
        why = ", ".join(f"{count} {reason}" for reason, count in report.skipped.items())
        raise InvalidInput(f"no vote says which answers are better ({why}): a reward model has nothing to learn from")
    model.save(settings.out)
    return {
        "learned": len(votes),
        "of": len(gathered.learned),
        "passes": report.passes,
        "of_passes": budget.epochs,
        "dtype": precision.name(dtype),
        "tokens_a_second": round(1 / budget.learning) if budget.learning else 0,
        "loss": report.loss,
        "held_out_loss": report.held_out_loss,
        "skipped": report.skipped,
        **{f"held_out_{name}": value for name, value in report.measured.figures().items()},
        **lengths(gathered.held_out),
    }


def lengths(held_out: Sequence[Vote]) -> dict[str, float]:
    """How often the shorter answer of a held-out pair is the better one: what a model must beat that knows more."""
    compared = [vote for vote in held_out if isinstance(vote, Comparison)]
    right: list[float] = []
    for vote in compared:
        counts = [len(candidate.token_ids) for candidate in vote.candidates]
        right += [0.5 if counts[a] == counts[b] else float(counts[a] < counts[b]) for a, b in ordered_pairs(vote)]
    return {"held_out_shorter_wins": share(right, range(len(right))).value}


def _budget(model: RewardModel, gathered: Gathered, epochs: int, seconds: float) -> Budget:
    parameters = model.parameters().values()

    def gradients(votes: Sequence[Vote]) -> None:
        for start in range(0, len(votes), TRIED_AT_ONCE):
            chosen = [pair for vote in votes[start : start + TRIED_AT_ONCE] for pair in pairs(vote)]
            model.forward(model.packer.pack(chosen)).sum().backward()
        for parameter in parameters:
            parameter.grad = None

    def scores(votes: Sequence[Vote]) -> None:
        model.utilities([pair for vote in votes for pair in pairs(vote)])

    return affordable(
        gathered.learned, gathered.held_out, epochs=epochs, seconds=seconds, learn=gradients, measure=scores
    )
