"""The switch of learning: a record in the store of versions, which an operator sets and the trainer reads.

    learning    {"paused": true, "reason": "a burst of odd votes", "changed_ms": …}; none: learning was never paused

It lies where the live version is recorded, since whoever may promote and whoever trains share that place, and nothing
else for certain. So it holds over restarts of everything. A record that is damaged counts as paused: what was stopped
for a reason must not go on because a file broke; the next pause or resumption writes it anew.
"""

import json
from dataclasses import asdict, dataclass
from typing import Any

from rlhf_online.errors import FileDamaged
from rlhf_online.events import now_ms
from rlhf_online.versions.store import VersionStore

KEY = "learning"


@dataclass(frozen=True, slots=True, kw_only=True)
class Switch:
    """`reason`: why it was paused; `changed_ms`: since when it is so, 0 if it was never paused."""

    paused: bool = False
    reason: str = ""
    changed_ms: int = 0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def read(store: VersionStore) -> Switch:
    """As it is now. Raises OSError."""
    try:
        return _parsed(store, store.read(KEY))
    except FileDamaged as error:
        return Switch(paused=True, reason=str(error))


def pause(store: VersionStore, reason: str = "") -> Switch:
    """From now on neither model learns; paused already, it stays as it is. Raises OSError, FileDamaged."""
    return _set(store, Switch(paused=True, reason=reason, changed_ms=now_ms()))


def resume(store: VersionStore) -> Switch:
    """From now on both learn; what was voted meanwhile is learned first. Raises OSError, FileDamaged."""
    return _set(store, Switch(changed_ms=now_ms()))


def _set(store: VersionStore, wanted: Switch) -> Switch:
    while True:
        recorded = store.read(KEY)
        now = _parsed(store, recorded)
        if now.paused == wanted.paused and (now.changed_ms or recorded is None):  # a damaged one has no time
            return now
        if store.replace(KEY, json.dumps(wanted.to_json()), expected=recorded):
            return wanted


def _parsed(store: VersionStore, recorded: str | None) -> Switch:
    if recorded is None:
        return Switch()
    try:
        values = json.loads(recorded)
        switch = Switch(paused=values["paused"], reason=values["reason"], changed_ms=values["changed_ms"])
        if not isinstance(switch.paused, bool) or not isinstance(switch.reason, str):
            raise TypeError("it names no state")
        if not isinstance(switch.changed_ms, int) or switch.changed_ms <= 0:
            raise TypeError("it names no time")
    except (ValueError, TypeError, KeyError) as error:
        why = f"{store.place(KEY)} cannot be read ({error}): `rlhf-online learning resume` or `pause` writes it anew"
        return Switch(paused=True, reason=why)
    return switch
