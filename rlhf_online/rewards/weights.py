"""The weights by which objectives make one score: a small file that an operator changes while everything runs.

`reward-weights.json` in the state folder holds {"helpful": 1.0, "harmless": 0.5}; an objective that it does not name
has weight 1. The reward service reads it every moment, for callers that name no weights; the trainer reads it once a
cycle and names what it read in every request, so that all scores of a policy update are by one set of weights. No torch
here: the command line writes it.
"""

import math
from collections.abc import Mapping, Sequence

from rlhf_online import locks
from rlhf_online.durable import make_folder, read_json, write_json
from rlhf_online.errors import FileDamaged, InvalidInput
from rlhf_online.state import StateDir
from rlhf_online.versions.catalogue import Catalogue

Weights = dict[str, float]
LONGEST_NAME = 64
"""Of one that is no objective, as far as it is repeated."""


def read(state: StateDir) -> Weights:
    """What the file says; {} if there is none. Raises InvalidInput for a file that holds no weights."""
    path = state.reward_weights
    try:
        values = read_json(path, "set the weights with `rlhf-online reward-weights`")
    except FileDamaged as error:
        raise InvalidInput(str(error)) from error
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(_is_weight(value) for value in values.values()):
        raise InvalidInput(f"{path} must hold a number of 0 or more for each objective: set it with `reward-weights`")
    return {str(name): float(value) for name, value in values.items()}


def write(state: StateDir, weights: Mapping[str, float]) -> None:
    """Replace the file, atomically and durably."""
    write_json(state.reward_weights, dict(weights))


def objectives(catalogue: Catalogue) -> list[str]:
    """Of the live reward version. Raises InvalidInput before the first, FileDamaged."""
    live = catalogue.live("reward")
    if live is None:
        raise InvalidInput("there is no reward model yet: its objectives are known when there is one")
    remedy = "roll back to the version before it, or restore it"
    try:
        file = catalogue.store.file(live, "reward.json")
    except FileNotFoundError:
        raise FileDamaged(f"{live} has no reward.json: {remedy}") from None
    values = read_json(file, remedy)
    if not isinstance(values, dict) or not isinstance(values.get("objectives"), list):
        raise FileDamaged(f"{file} names no objectives: {remedy}")
    return values["objectives"]


def complete(weights: Mapping[str, float], objectives: Sequence[str]) -> Weights:
    """A weight for each of `objectives`, in their order: 1 where none is given.

    Raises InvalidInput for a name that is none of them, for a weight that is no number of 0 or more, and for all 0.
    """
    if strangers := [name for name in weights if name not in objectives]:
        raise InvalidInput(f"{strangers[0][:LONGEST_NAME]!r} is no objective: there are {', '.join(objectives)}")
    chosen = {name: float(weights.get(name, 1.0)) for name in objectives}
    if wrong := [name for name, value in chosen.items() if not _is_weight(value)]:
        raise InvalidInput(f"the weight of {wrong[0]} must be a number of 0 or more, and is {chosen[wrong[0]]:g}")
    if not any(chosen.values()):
        raise InvalidInput("all weights are 0: no answer would be better than another; give one of them more")
    return chosen


def applicable(stored: Mapping[str, float], objectives: Sequence[str]) -> Weights:
    """What the file says of `objectives`; it may name others too, of another model. Raises InvalidInput for all 0."""
    return complete({name: value for name, value in stored.items() if name in objectives}, objectives)


def change(state: StateDir, changes: Mapping[str, float], objectives: Sequence[str]) -> Weights:
    """Set the weights of some of `objectives`, the others stay; a damaged file is written anew. All as they are then.

    Raises InvalidInput for what `complete` refuses, and then changes nothing; OSError.
    """
    make_folder(state.run)
    with locks.acquire(state.run / "reward-weights.lock"):
        try:
            stored = read(state)
        except InvalidInput:
            stored = {}
        chosen = complete(applicable(stored, objectives) | dict(changes), objectives)
        write(state, stored | chosen)
    return chosen


def _is_weight(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
