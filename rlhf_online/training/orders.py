"""What rank 0 has the other ranks do to their models, each as it does the same to its own (`distributed.order`).

`followers` carries them out. In a process on its own an order does nothing.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from rlhf_online.events import Erasure
from rlhf_online.feedback import votes
from rlhf_online.feedback.votes import Vote
from rlhf_online.models.tokens import Pair
from rlhf_online.rollout.types import LabelledAnswer, ScoredRollout
from rlhf_online.training import distributed
from rlhf_online.training.checkpoint import CheckpointPart

Model = Literal["policy", "reward", "held_back"]


def restore(model: Model, part: CheckpointPart) -> None:
    """Become what this part of a checkpoint says."""
    distributed.order("restore", lambda: {"model": model, "values": part.values}, part.tensors)


def forget(model: Model, revoked: Collection[tuple[str, str]], erased: Collection[Erasure]) -> None:
    """See `RewardUpdater.forget` and `.erase`."""
    distributed.order(
        "forget",
        lambda: {"model": model, "revoked": sorted(revoked), "erased": [asdict(erasure) for erasure in erased]},
    )


def learn(model: Model, new: Sequence[Vote], held_out: Sequence[Vote], reference: Sequence[Pair]) -> None:
    """See `RewardUpdater.update`."""
    distributed.order(
        "learn",
        lambda: {
            "model": model,
            "new": list(map(votes.to_json, new)),
            "held_out": list(map(votes.to_json, held_out)),
            "reference": [[list(prompt), list(answer)] for prompt, answer in reference],
        },
    )


def init_value(weights: Mapping[str, float]) -> None:
    """See `Learners.init_value`."""
    distributed.order("init_value", lambda: {"weights": dict(weights)})


def update_policy(scored: Sequence[ScoredRollout], labelled: Sequence[LabelledAnswer]) -> None:
    """See `PolicyUpdater.update`."""
    distributed.order(
        "update_policy",
        lambda: {"scored": [asdict(item) for item in scored], "labelled": [asdict(item) for item in labelled]},
    )


def follow(folder: Path, reference: Path, *, new_reference: bool) -> None:
    """See `Learners.follow`. The folders are called as their versions, by which other machines find theirs."""
    distributed.order(
        "follow", lambda: {"version": folder.name, "reference": reference.name, "new_reference": new_reference}
    )


def lend(model: Model, *, sharded: bool) -> None:
    """Where the model is sharded: give what the others hold of its part of a checkpoint."""
    if sharded:
        distributed.order("lend", lambda: {"model": model})


@contextmanager
def held(model: Model, *, sharded: bool, reference: bool = False) -> Iterator[None]:
    """Where the model is sharded: the others gather it, too, with the policy's `reference` or without, and hold it so
    until the block ends; see `Learners.published`."""
    if sharded:
        distributed.order("hold", lambda: {"model": model, "reference": reference})
    try:
        yield
    finally:
        if sharded:
            distributed.order("release")


def stop() -> None:
    """There is nothing more to do."""
    distributed.order("stop")
