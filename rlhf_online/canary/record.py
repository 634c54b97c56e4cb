"""Which version is the canary, and how many conversations it answers: a record in the store beside the live version's.

    canary/policy    {"version": "policy-000012", "live": "policy-000011", "steps": [0.01, 0.1, 0.5], "step": 1,
                      "began_ms": …, "since_ms": …, "reason": "…"}

An audience's stands in canary/policy.NAME, and its share is that of the conversations which name the audience. A record
holds while its version has the state "canary" and the live version is still the one that it is compared with:
whoever promotes, rolls back or refuses either version ends it by that alone, and no kill leaves one behind. So there is
nothing to clear away; the next canary writes over it. A record that is damaged, or that a later release wrote
otherwise, counts as none: nobody gets a candidate because a file broke.

    state "canary" ──▶ the record ──▶ people get it ──▶ another state: they do not
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from rlhf_online.errors import FileDamaged, UnknownVersion
from rlhf_online.events import now_ms
from rlhf_online.versions.catalogue import Catalogue
from rlhf_online.versions.manifest import Kind, State, kind_of
from rlhf_online.versions.registry import REFUSED, Registry

ALL_BUT_CANDIDATES: tuple[State, ...] = ("canary", "live", "retired", "rejected", "failed")
ALL_BUT_CANARIES: tuple[State, ...] = ("candidate", "live", "retired", "rejected", "failed")


def key(kind: Kind) -> str:
    """The record of the canary of that kind."""
    return f"canary/{kind}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Canary:
    """`version` answers `share` of the conversations, the others `live`; `since_ms`: when this step began."""

    version: str
    live: str
    steps: tuple[float, ...]
    step: int
    began_ms: int
    since_ms: int
    reason: str = ""

    @property
    def share(self) -> float:
        return self.steps[self.step]

    def answers(self, conversation_id: str) -> bool:
        """Whether this conversation is one of the canary's: the same ones for as long as the share does not fall, and
        others for another version."""
        digest = hashlib.sha256(f"{self.version} {conversation_id}".encode()).digest()
        return int.from_bytes(digest[:8], "big") < self.share * 2**64

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"share": self.share}


def under_way(catalogue: Catalogue, kind: Kind = "policy") -> Canary | None:
    """The canary of that kind as it is now. Raises OSError."""
    try:
        recorded = catalogue.store.read(key(kind))
        canary = None if recorded is None else _parsed(recorded)
    except (FileDamaged, ValueError, TypeError, KeyError, IndexError):
        return None
    if canary is None or catalogue.live(kind) != canary.live:
        return None
    try:
        refused = catalogue.status(canary.live).state in REFUSED  # an audience's first: everybody's answers
        return canary if catalogue.status(canary.version).state == "canary" and not refused else None
    except UnknownVersion:
        return None


def begin(registry: Registry, version: str, steps: tuple[float, ...], gate: dict[str, Any]) -> Canary | None:
    """Make a candidate the canary against the live version of its kind; None if it is no candidate any more.

    Doing it again changes nothing, and completes what a kill cut short. Raises OSError.
    """
    kind = kind_of(version)
    if (found := under_way(registry, kind)) is not None and found.version == version:
        return found
    live = registry.live(kind)
    assert live is not None, "a canary is compared with the live version"
    registry.mark(version, "canary", reason="passed the gate", gate=gate, unless=ALL_BUT_CANDIDATES)
    now = now_ms()
    canary = Canary(version=version, live=live, steps=steps, step=0, began_ms=now, since_ms=now, reason="began")
    while registry.status(version).state == "canary":
        recorded = registry.store.read(key(kind))
        if registry.store.replace(key(kind), json.dumps(canary.to_json()), expected=recorded):
            return under_way(registry, kind)
    return None


def advance(registry: Registry, canary: Canary, reason: str) -> bool:
    """Go on to the next step; False if the canary is not what it was any more. Raises OSError."""
    kind = kind_of(canary.version)
    recorded = registry.store.read(key(kind))
    if recorded is None or under_way(registry, kind) != canary:
        return False
    later = asdict(canary) | {"step": canary.step + 1, "since_ms": now_ms(), "reason": reason}
    return registry.store.replace(key(kind), json.dumps(Canary(**later).to_json()), expected=recorded)


def end(registry: Registry, canary: Canary, reason: str, by: str = "") -> None:
    """Nobody gets it any more; it is rejected, for that reason, unless it has left the canary by itself.

    Raises OSError.
    """
    registry.mark(canary.version, "rejected", reason=reason, unless=ALL_BUT_CANARIES, by=by)


def _parsed(recorded: str) -> Canary:
    """Raises ValueError, TypeError, KeyError or IndexError for what is no record of a canary."""
    values = json.loads(recorded)
    canary = Canary(
        version=values["version"],
        live=values["live"],
        steps=tuple(map(float, values["steps"])),
        step=values["step"],
        began_ms=values["began_ms"],
        since_ms=values["since_ms"],
        reason=values["reason"],
    )
    if not 0 <= canary.step < len(canary.steps) or not 0 <= canary.share <= 1:
        raise ValueError("it names no share")
    return canary
