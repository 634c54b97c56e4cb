"""Checks before training resumes from a checkpoint: does it belong to this log, and to this registry of versions?"""

from pathlib import Path

import structlog

from rlhf_online.errors import PositionLost, VersionCorrupt
from rlhf_online.eventlog import gap
from rlhf_online.training.intake import Intake
from rlhf_online.training.progress import Progress


def check_log_position(stored: Progress, identity: str, intake: Intake, checkpoints: Path) -> None:
    """Whether `stored` can be resumed in the log `identity`; over a gap that an operator has accepted it is moved.

    Raises PositionLost.
    """
    if gap.accepted(checkpoints, stored.log_identity, stored.position):
        position, missing = intake.resume_position(stored.log_identity, stored.position)
        for sentence in missing:
            structlog.get_logger().warning(
                "resuming without the missing records, as the operator accepted", missing=sentence
            )
        stored.log_identity, stored.position, intake.position = identity, dict(position), position
    if stored.log_identity != identity:
        raise PositionLost(
            f"the checkpoint belongs to the log {stored.log_identity}, but this log is {identity}: bring that log "
            f"back, or: {gap.HINT}"
        )


def check_lineage(stored: Progress, references: list[str]) -> None:
    """Raises VersionCorrupt for a checkpoint of another line of versions than the registry's, or one before it."""
    stored.reference = stored.reference or references[0]
    if stored.reference not in references:
        raise VersionCorrupt(
            f"the checkpoint's KL counts from {stored.reference}, and here it was only ever counted from "
            f"{', '.join(references)}: checkpoints and versions do not belong together; restore both of one time"
        )
