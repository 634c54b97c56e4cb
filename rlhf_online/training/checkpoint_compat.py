"""Checkpoints that earlier releases wrote, as today's code reads them. Pure.

Each JSON file of a checkpoint says its `format`, since a file may be carried on into later checkpoints; one without is
of format 1. To change what a file holds: raise FORMAT, and translate the old form here and nowhere else.
"""

from typing import Any

from rlhf_online.errors import CheckpointError

FORMAT = 2


def upgrade(name: str, values: dict[str, Any]) -> dict[str, Any]:
    """What the file `name` ("state", "intake", "reward", "policy") holds, in today's form.

    Raises CheckpointError for a later release's.
    """
    found = values.get("format", 1)
    if found > FORMAT:
        raise CheckpointError(f"it is of format {found}, and this release reads up to {FORMAT}: use a newer release")
    values = {key: value for key, value in values.items() if key != "format"}
    if found == 1:
        match name:
            case "state":
                return _state_1(values)
            case _:
                pass
    return values


def _state_1(values: dict[str, Any]) -> dict[str, Any]:
    """Counts of dropped answers had names of their own, and a singleton group's answer was left out as "alone"."""
    buffer, progress = values["buffer"], values["progress"]
    left_out = {"stale": buffer["dropped_stale"], "full": buffer["dropped_full"]}
    renamed = {"singleton" if why == "alone" else why: n for why, n in progress.get("left_out", {}).items()}
    return values | {
        "buffer": {"rollouts": buffer["rollouts"], "left_out": left_out},
        "progress": progress | {"left_out": renamed},
    }
