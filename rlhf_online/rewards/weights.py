"""The weights by which objectives make one score: a record in the store of versions, which an operator changes while
everything runs.

    reward-weights    {"helpful": 1.0, "rule:terse": 0.5}; an objective that it does not name has weight 1

Objectives are those of the reward model, of whose weights only the proportions matter, and besides them the rules in
force, whose rewards are added as often as their weights say (`rewards.rules`, `rewards.compose`).

It lies beside the switch of learning (`rlhf_online.learning`), for the same reason: services may share nothing else.
The reward service reads it every moment, for callers that name no weights; the trainer reads it once a cycle and names
what it read in every request, so that all scores of a policy update are by one set of weights. A record that is damaged
is refused: the reward service goes on with the weights that it read last, the trainer waits, and the next change writes
the record anew. As long as there is none, `reward-weights.json` in the state folder counts, where an earlier release
wrote it. No torch here: the command line writes the record.
"""

import json
from collections.abc import Mapping, Sequence

from rlhf_online.durable import read_json
from rlhf_online.errors import FileDamaged, InvalidInput
from rlhf_online.state import StateDir
from rlhf_online.versions.catalogue import Catalogue
from rlhf_online.versions.store import VersionStore

KEY = "reward-weights"
Weights = dict[str, float]
MOST = 1e6
"""Of a weight: what it is multiplied with stays a number, also in float32."""
LONGEST_NAME = 64
"""Of one that is no objective, as far as it is repeated."""
REMEDY = "set the weights with `rlhf-online reward-weights NAME=VALUE`"


def read(store: VersionStore, state: StateDir) -> Weights:
    """What the record says, or else the file of an earlier release in `state`; {} if there is neither.

    Raises InvalidInput for one that holds no weights, OSError.
    """
    try:
        return _stored(store, state, store.read(KEY))
    except FileDamaged as error:
        raise InvalidInput(str(error)) from error


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


def complete(weights: Mapping[str, float], objectives: Sequence[str], rules: Sequence[str] = ()) -> Weights:
    """A weight for each of the reward model's `objectives` and of the `rules`, in their order: 1 where none is given.

    Raises InvalidInput for a name that is none of them or both, for a weight that is no number from 0 to MOST, and
    where those of the reward model are all 0: rules add to what people say, and do not replace it.
    """
    known = [*objectives, *rules]
    if twice := [name for name in rules if name in objectives]:
        raise InvalidInput(f"{twice[0]} is a rule and an objective of the reward model: give the rule another name")
    if strangers := [name for name in weights if name not in known]:
        raise InvalidInput(f"{strangers[0][:LONGEST_NAME]!r} is no objective: there are {', '.join(known)}")
    chosen = {name: float(weights.get(name, 1.0)) for name in known}
    if wrong := [name for name, value in chosen.items() if not is_weight(value)]:
        raise InvalidInput(f"the weight of {wrong[0]} must be a number from 0 to {MOST:g}, and is {chosen[wrong[0]]:g}")
    if not any(chosen[name] for name in objectives):
        only = " of the reward model's objectives" if rules else ""
        raise InvalidInput(f"all weights{only} are 0: no answer would be better than another; give one of them more")
    return chosen


def applicable(stored: Mapping[str, float], objectives: Sequence[str], rules: Sequence[str] = ()) -> Weights:
    """What is stored of `objectives` and `rules`; it may name others too, of another model. Raises as `complete`."""
    known = {*objectives, *rules}
    return complete({name: value for name, value in stored.items() if name in known}, objectives, rules)


def change(
    store: VersionStore,
    state: StateDir,
    changes: Mapping[str, float],
    objectives: Sequence[str],
    rules: Sequence[str] = (),
) -> Weights:
    """Set the weights of some of them, the others stay; a damaged record is written anew. All as they are then.

    Raises InvalidInput for what `complete` refuses, and then changes nothing; OSError, FileDamaged for a record that is
    not permitted.
    """
    while True:
        recorded = store.read(KEY)
        try:
            stored = _stored(store, state, recorded)
        except FileDamaged:
            stored = {}
        chosen = complete(applicable(stored, objectives, rules) | dict(changes), objectives, rules)
        if store.replace(KEY, json.dumps(stored | chosen), expected=recorded):
            return chosen


def adopt(store: VersionStore, state: StateDir) -> None:
    """Make the file of an earlier release in `state`, if there is one, the record of a store that has none.

    Raises InvalidInput for a file that holds no weights, OSError.
    """
    if store.read(KEY) is None and (stored := read(store, state)):
        store.replace(KEY, json.dumps(stored), expected=None)


def _stored(store: VersionStore, state: StateDir, recorded: str | None) -> Weights:
    """`recorded`, or else the file. Raises FileDamaged."""
    if recorded is None:
        place, values = str(state.reward_weights), read_json(state.reward_weights, REMEDY)
        if values is None:
            return {}
    else:
        place = store.place(KEY)
        try:
            values = json.loads(recorded)
        except ValueError as error:
            raise FileDamaged(f"{place} holds no JSON ({error}): {REMEDY}") from error
    if not isinstance(values, dict) or not all(is_weight(value) for value in values.values()):
        raise FileDamaged(f"{place} must hold a number from 0 to {MOST:g} for each objective: {REMEDY}")
    return {name: float(value) for name, value in values.items()}


def is_weight(value: object) -> bool:
    """Whether it is a number from 0 to MOST."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= MOST
