"""Checkpoints that earlier releases wrote, as today's code reads them. Pure but for the tokenizer.

Each JSON file of a checkpoint says its `format`, since a file may be carried on into later checkpoints; one without is
of format 1. To change what a file holds: raise FORMAT, and translate the old form here and nowhere else.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from rlhf_online.errors import CheckpointError
from rlhf_online.feedback.conversion import AnswerIds

FORMAT = 2


def upgrade_state(values: Mapping[str, Any]) -> dict[str, Any]:
    """What state.json holds, in today's form. Raises CheckpointError for a later release's."""
    found, values = _format(values)
    if found > 1:
        return values
    # Counts of dropped answers had names of their own, and a singleton group's answer was left out as "alone".
    buffer, progress = values["buffer"], _renamed(values["progress"], {"stage": "next_update", "pending": "judged"})
    dropped = {"stale": buffer["dropped_stale"], "full": buffer["dropped_full"]}
    left_out = _renamed(progress["left_out"], {"alone": "singleton"})
    figures = _renamed(progress["figures"], {"taught": "trained_objectives"})
    next_update = "reward" if progress["next_update"] == "votes" else "policy"
    return values | {
        "buffer": {"rollouts": buffer["rollouts"], "left_out": dropped},
        "progress": progress | {"left_out": left_out, "figures": figures, "next_update": next_update},
    }


def upgrade_part(
    name: str, values: Mapping[str, Any], tensors: dict[str, Tensor], answer_ids: AnswerIds | None = None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What the files of the part `name` ("intake", "reward", "policy") hold, in today's form.

    `answer_ids` tokenises what was stored as text. Raises CheckpointError for a later release's.
    """
    found, values = _format(values)
    if found > 1:
        return tensors, values
    match name:
        case "intake":
            assert answer_ids is not None, "the intake's votes may be text"
            return tensors, _intake_1(values, answer_ids)
        case "reward":
            return _renamed_ends(tensors, ".slots", ".position_bias"), _reward_1(values)
        case _:
            return tensors, values


def _format(values: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
    found = values.get("format", 1)
    if found > FORMAT:
        raise CheckpointError(f"it is of format {found}, and this release reads up to {FORMAT}: use a newer release")
    return found, {key: value for key, value in values.items() if key != "format"}


def _intake_1(values: dict[str, Any], answer_ids: AnswerIds) -> dict[str, Any]:
    """Votes that waited for a cycle held corrections as text."""

    def candidate(item: Mapping[str, Any]) -> dict[str, Any]:
        return {"token_ids": item["token_ids"] or answer_ids(item["text"]), "position": item["slot"]}

    def vote(item: Mapping[str, Any]) -> dict[str, Any]:
        if "candidate" in item:
            return {**item, "candidate": candidate(item["candidate"])}
        return {**item, "candidates": [candidate(each) for each in item["candidates"]]}

    renamed = _renamed(values, {"taken": "delivered", "reference": "reference_answers"})
    return renamed | {"votes": [vote(item["vote"]) for item in values["votes"]]}


def _reward_1(values: dict[str, Any]) -> dict[str, Any]:
    """Votes to replay and to measure on were lists, and what is learned beside the model had other names."""
    learned = values["learned"]
    return _renamed(values, {"taught": "trained_objectives"}) | {
        "replay": [_vote_1(item) for item in values["replay"]],
        "held_out": [_vote_1(item) for item in values["held_out"]],
        "learned": {
            "position_bias": learned["slots"],
            "rater_bias": learned["intercepts"],
            "signal_reliability": learned["reliability"],
        },
    }


def _vote_1(values: Sequence[Any]) -> dict[str, Any]:
    event_id, conversation, person, prompt, answers, ranks, slots, strength, up, unsure, signal, objective = values
    candidates = [{"token_ids": ids, "position": at} for ids, at in zip(answers, slots, strict=True)]
    vote = {
        "event_id": event_id,
        "conversation_id": conversation,
        "person": person,
        "prompt_token_ids": prompt,
        "objective": objective,
    }
    if up is not None:
        return vote | {"candidate": candidates[0], "up": up, "signal": signal}
    tiers = [[index for index, rank in enumerate(ranks) if rank == tier] for tier in sorted(set(ranks))]
    return vote | {"candidates": candidates, "tiers": tiers, "strength": strength, "unsure": unsure}


def _renamed(values: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {names.get(name, name): value for name, value in values.items()}


def _renamed_ends(tensors: Mapping[str, Tensor], old: str, new: str) -> dict[str, Tensor]:
    return {f"{name.removesuffix(old)}{new}" if name.endswith(old) else name: t for name, t in tensors.items()}
