"""Audiences: named sets of weights beside those that hold for everybody, each answered by an adapter of its own.

    audiences    {"brief": {"helpful": 0.5, "rule:terse": 2.0}, …}; what one does not name counts as for everybody

A record in the store of versions, beside `reward-weights` and for the same reason (`rewards.weights`). The trainer
reads it once a cycle; chat pods follow it, and hold the live version of each audience (`engine.audiences`). One that is
damaged is refused: no audience learns, pods go on with what they read last, and setting an audience writes it anew. No
torch here: the command line writes the record.
"""

import json
from collections.abc import Mapping, Sequence

from rlhf_online.errors import FileDamaged, InvalidInput, UnknownVersion
from rlhf_online.rewards import weights
from rlhf_online.rewards.weights import Weights
from rlhf_online.versions.catalogue import Catalogue
from rlhf_online.versions.manifest import AUDIENCE, audience_kind
from rlhf_online.versions.registry import REFUSED
from rlhf_online.versions.store import VersionStore

KEY = "audiences"
MOST = 8
REMEDY = "define the audiences anew with `rlhf-online audiences set NAME OBJECTIVE=WEIGHT …`"

Audiences = dict[str, Weights]
"""The weights that each names, by its name, in the order of the names."""


def read(store: VersionStore) -> Audiences:
    """Those that are defined. Raises InvalidInput for a record that holds none, OSError."""
    try:
        return _parsed(store, store.read(KEY))
    except FileDamaged as error:
        raise InvalidInput(str(error)) from error


def complete(
    named: Mapping[str, float], common: Mapping[str, float], objectives: Sequence[str], rules: Sequence[str] = ()
) -> Weights:
    """An audience's weight of each of the reward model's `objectives` and of the `rules`: what it names, else what is
    `common`. What it names and there is not any more is passed over. Raises InvalidInput as `weights.complete`.
    """
    return weights.applicable({**common, **named}, objectives, rules)


def define(
    store: VersionStore,
    name: str,
    changes: Mapping[str, float],
    common: Mapping[str, float],
    objectives: Sequence[str],
    rules: Sequence[str] = (),
) -> Weights:
    """Define an audience, or change some of its weights; a damaged record is written anew. What counts for it then.

    Raises InvalidInput for a name that is none, for one audience too many, and for what `weights.complete` refuses, and
    then changes nothing; OSError, FileDamaged for a record that is not permitted.
    """
    if not AUDIENCE.fullmatch(name):
        raise InvalidInput(
            f"{name[:40]!r} is no name of an audience: it has up to 32 of a-z, 0-9 and _, and begins with a letter"
        )
    weights.complete({**dict.fromkeys([*objectives, *rules], 1.0), **changes}, objectives, rules)
    while True:
        recorded = store.read(KEY)
        try:
            known = _parsed(store, recorded)
        except FileDamaged:
            known = {}
        if name not in known and len(known) >= MOST:
            raise InvalidInput(f"there are {MOST} audiences, as many as there may be ({', '.join(known)}): remove one")
        named = {**known.get(name, {}), **changes}
        chosen = complete(named, common, objectives, rules)
        if store.replace(KEY, json.dumps({**known, name: named}, sort_keys=True), expected=recorded):
            return chosen


def remove(store: VersionStore, name: str) -> None:
    """Its profile is unknown from now on, and it learns no more; its versions stay.

    Raises InvalidInput for one that is not defined, OSError.
    """
    while True:
        recorded, known = store.read(KEY), read(store)
        if name not in known:
            raise InvalidInput(f"{name[:40]!r} is no audience: there are {', '.join(known) or 'none'}")
        left = {other: named for other, named in known.items() if other != name}
        if store.replace(KEY, json.dumps(left, sort_keys=True), expected=recorded):
            return


def live(catalogue: Catalogue, name: str) -> str | None:
    """The version that answers for the audience; None before the first, and where that one failed and there was none
    before it: then the common one does. Raises OSError."""
    version = catalogue.live(audience_kind(name))
    try:
        return version if version is not None and catalogue.status(version).state not in REFUSED else None
    except UnknownVersion:
        return None


def _parsed(store: VersionStore, recorded: str | None) -> Audiences:
    """Raises FileDamaged."""
    try:
        values = json.loads("{}" if recorded is None else recorded)
    except ValueError as error:
        raise FileDamaged(f"{store.place(KEY)} holds no JSON ({error}): {REMEDY}") from error
    sound = isinstance(values, dict) and all(
        AUDIENCE.fullmatch(name) and isinstance(named, dict) and all(map(weights.is_weight, named.values()))
        for name, named in values.items()
    )
    if not sound:
        raise FileDamaged(f"{store.place(KEY)} must hold each audience's weights by its name: {REMEDY}")
    return {name: {of: float(value) for of, value in values[name].items()} for name in sorted(values)}
