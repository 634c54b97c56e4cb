"""Commits: one atomic checkpoint of everything that the trainer must not lose, after which the log may expire records.

What a commit holds, and why a kill anywhere trains exactly once, is explained in `loop` and docs/decisions/0004.
"""

import structlog

from rlhf_online.errors import LogUnavailable
from rlhf_online.eventlog.gap import Place
from rlhf_online.training.checkpoint import CheckpointPart
from rlhf_online.training.parts import TrainerParts
from rlhf_online.training.progress import Progress


def commit(
    parts: TrainerParts,
    progress: Progress,
    *,
    intake: bool = False,
    reward: bool = False,
    policy: bool = False,
    audience: str = "",
) -> None:
    """Write a checkpoint, retrying for as long as it takes; the flags say which parts changed since the last one.
    `audience`: whose policy it is that is in memory, and has changed.

    Dead letters are made durable first, since the checkpoint's ledger says that they were; what became of votes is told
    after it. Raises Fenced, Stopped.
    """
    first = parts.checkpoints.last is None

    def save() -> None:
        contents: dict[str, CheckpointPart | None] = {
            "intake": CheckpointPart({}, parts.intake.to_json()) if intake or first else None,
            "reward": parts.learners.reward_part() if reward or first else None,
            "policy": parts.learners.policy_part() if policy or first else None,
        }
        for name in progress.audiences:
            contents[part_of(name)] = parts.learners.policy_part() if name == audience else None
        if parts.held_back is not None:
            contents["held_back"] = parts.held_back.part() if reward or first else None
        state = {
            "progress": progress.to_json(),
            "buffer": parts.intake.policy_inputs.buffer.to_json(),
            "curriculum": parts.experience.curriculum.to_json(),
            "dtype": parts.learners.dtype,
        }
        sealed = {
            "ledger": parts.ledger.seal(parts.checkpoints.ledger_folder),
            "answers": parts.intake.join.answers.seal(),
        }
        parts.checkpoints.save(state, contents, sealed, Place(progress.log_identity, progress.position))

    parts.retrier.call("writing dead letters", parts.intake.write_dead_letters)
    parts.retrier.call("writing a checkpoint", save)
    if intake or first:
        parts.retrier.call("telling what became of votes", parts.outcomes.publish)
    mark_consumed(parts)


def part_of(audience: str) -> str:
    """The name of an audience's part of the checkpoint, which is as the policy's."""
    return f"audience.{audience}"


def commit_intake(parts: TrainerParts, progress: Progress) -> None:
    """Commit what was read, without a cycle."""
    progress.position = dict(parts.intake.position)
    commit(parts, progress, intake=True)


def take_back_policy(parts: TrainerParts) -> None:
    """Undo what the policy in memory has learned since the last commit."""
    before = parts.checkpoints.last
    assert before is not None, "the first half has committed"
    parts.learners.restore_policy(before.part("policy"))


def mark_consumed(parts: TrainerParts) -> None:
    """Tell the log which records no checkpoint needs any more; a failure only keeps them there for longer."""
    try:
        parts.intake.mark_consumed(parts.checkpoints.position())
    except LogUnavailable as error:
        structlog.get_logger().warning("the log was not told what is consumed", why=str(error))
