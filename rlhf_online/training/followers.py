"""What a rank above 0 does: the orders of rank 0 (`orders`), on models of its own.

It reads no log, takes no lease and writes nothing. Whatever goes wrong ends it, and with it all ranks: rank 0 commits
nothing that not all of them have learned.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from rlhf_online.errors import RanksFailed
from rlhf_online.events import Erasure
from rlhf_online.feedback import votes
from rlhf_online.models.tokens import Pair
from rlhf_online.rollout.types import LabelledAnswer, Rollout, ScoredRollout
from rlhf_online.training import distributed
from rlhf_online.training.checkpoint import CheckpointPart
from rlhf_online.training.held_back import HeldBackModel
from rlhf_online.training.learners import Learners

Folder = Callable[[str], Path]
"""Where the files of a version are on this machine; fetched where they lie elsewhere."""


def carry_out_orders(learners: Learners, held_back: HeldBackModel | None, folder: Folder) -> None:
    """Until rank 0 says that there is nothing more to do. Raises RanksFailed, VersionCorrupt."""
    while (order := distributed.next_order()).name != "stop":
        _carry_out(order, learners, held_back, folder)


def _carry_out(order: distributed.Order, learners: Learners, held_back: HeldBackModel | None, folder: Folder) -> None:
    values = order.values
    match (order.name, values.get("model")), held_back:
        case ("restore", "held_back"), HeldBackModel():
            held_back.restore(CheckpointPart(order.tensors, values["values"]))
        case ("restore", "reward"), _:
            learners.restore_reward(CheckpointPart(order.tensors, values["values"]))
        case ("restore", "policy"), _:
            learners.restore_policy(CheckpointPart(order.tensors, values["values"]))
        case ("forget", "held_back"), HeldBackModel():
            held_back.forget(*_gone(values))
        case ("forget", "reward"), _:
            learners.forget(*_gone(values))
        case ("learn", "held_back"), HeldBackModel():
            held_back.update(*_lesson(values))
        case ("learn", "reward"), _:
            learners.learn(*_lesson(values))
        case ("init_value", _), _:
            learners.init_value(values["weights"])
        case ("update_policy", _), _:
            learners.update_policy(*_answers(values))
        case ("follow", _), _:
            version, reference = folder(values["version"]), folder(values["reference"])
            learners.follow(version, reference, new_reference=values["new_reference"])
        case ("lend", "held_back"), HeldBackModel():
            held_back.part()
        case ("lend", "reward"), _:
            learners.reward_part()
        case ("lend", "policy"), _:
            learners.policy_part()
        case ("hold", "held_back"), HeldBackModel():
            _hold(held_back.updater.model.shards.gathered())
        case ("hold", "reward"), _:
            _hold(learners.reward.model.shards.gathered())
        case ("hold", "policy"), _:
            _hold(learners.published(reference=values["reference"]))
        case _:
            raise RanksFailed(f"rank 0 orders {order.name!r}, which this rank does not know: run one release on all")


def _hold(gathered: AbstractContextManager[None]) -> None:
    """Until rank 0 releases it; nothing else is ordered meanwhile."""
    with gathered:
        released = distributed.next_order()
    assert released.name == "release", f"{released.name} while weights are held"


def _gone(values: dict[str, Any]) -> tuple[list[tuple[str, str]], list[Erasure]]:
    return [(event_id, person) for event_id, person in values["revoked"]], [
        Erasure(**item) for item in values["erased"]
    ]


def _lesson(values: dict[str, Any]) -> tuple[Sequence[votes.Vote], Sequence[votes.Vote], Sequence[Pair]]:
    reference = [(tuple(prompt), tuple(answer)) for prompt, answer in values["reference"]]
    new, held_out = ([votes.from_json(item) for item in values[name]] for name in ("new", "held_out"))
    return new, held_out, reference


def _answers(values: dict[str, Any]) -> tuple[list[ScoredRollout], list[LabelledAnswer]]:
    scored = [
        ScoredRollout(rollout=Rollout.from_json(item["rollout"]), score=item["score"]) for item in values["scored"]
    ]
    labelled = [
        LabelledAnswer(
            prompt_token_ids=tuple(item["prompt_token_ids"]),
            token_ids=tuple(item["token_ids"]),
            desirable=item["desirable"],
            event_id=item["event_id"],
        )
        for item in values["labelled"]
    ]
    return scored, labelled
