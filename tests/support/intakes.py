"""The trainer's intake on its own, without a model."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from rlhf_online.eventlog.base import Source
from rlhf_online.feedback.limits import VoteLimits
from rlhf_online.models.limits import ModelLimits
from rlhf_online.rollout.buffer import RolloutBuffer
from rlhf_online.training.intake import Intake, IntakeSettings
from rlhf_online.training.ledger import Ledger


def new_intake(source: Source, ledger: Ledger, answers: Path, **changes: Any) -> Intake:
    """One that holds out nothing and whose window is wide; its answers are sealed into that folder.

    `changes` are to its settings.
    """
    settings = IntakeSettings(
        answers=answers,
        window_ms=1_000_000,
        held_out=0.0,
        prompts=10,
        reference_answers=0,
        eos_ids=frozenset(),
        limits=VoteLimits(models=ModelLimits(vocabulary=1000, context=1000), objectives=("helpful",), tokens=100_000),
        answer_ids=lambda text: tuple(text.encode()),
    )
    return Intake(source, ledger, RolloutBuffer(10, 1), replace(settings, **changes))
