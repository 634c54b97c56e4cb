"""How strong versions are by what people said of blind pairs: for people to look at, never to decide by."""

import math

from typing_extensions import TypedDict

from rlhf_online.canary.strengths import Pair, strengths
from rlhf_online.versions.registry import Registry
from services.chat.bodies.documented import documented
from services.chat.console.opinions import Opinions

MOST_PAIRS = 2000
"""The newest ones: older ones are of versions that serve no more, and cost time."""


@documented
class VersionStrength(TypedDict):
    """A version that was compared."""

    version: str
    """Its name."""
    strength: float
    """In nats above the base (Davidson 1970): of two that are s apart the better is preferred e^s times as often."""
    low: float | None
    """Lower end of its 95 % interval, which takes people, not votes, for independent; null: one person said all."""
    high: float | None
    """Upper end."""
    elo: float
    """The strength in Elo's points above the base, of which 400 are odds of 10 to 1."""
    pairs: int
    """Pairs that it was in."""


@documented
class VersionStrengths(TypedDict):
    """Strengths by the newest blind pairs of two versions. They decide nothing: a canary has a test that may be
    looked at at any time."""

    base: str
    """The version with strength 0: the live one if it was compared, else the oldest that was; empty without pairs."""
    pairs: int
    """Pairs, at most 2,000."""
    people: int
    """People who said them."""
    versions: list[VersionStrength]
    """The strongest first."""


class Strengths:
    """By the pairs that `opinions` holds."""

    def __init__(self, opinions: Opinions, registry: Registry) -> None:
        self._opinions = opinions
        self._registry = registry

    def find(self) -> VersionStrengths:
        """Raises ReadModelUnavailable, OSError."""
        pairs = [
            Pair(person=person, first=version, second=other, first_better=value)
            for person, version, other, value in self._opinions.pairs(MOST_PAIRS)
        ]
        if not pairs:
            return {"base": "", "pairs": 0, "people": 0, "versions": []}
        names = {name for pair in pairs for name in (pair.first, pair.second)}
        live = self._registry.live("policy")
        base = live if live in names else min(names)
        found = strengths(pairs, base)
        rows: list[VersionStrength] = [
            {
                "version": name,
                "strength": each.strength,
                "low": each.low if math.isfinite(each.low) else None,
                "high": each.high if math.isfinite(each.high) else None,
                "elo": each.elo,
                "pairs": sum(name in (pair.first, pair.second) for pair in pairs),
            }
            for name, each in found.items()
        ]
        return {
            "base": base,
            "pairs": len(pairs),
            "people": len({pair.person for pair in pairs}),
            "versions": sorted(rows, key=lambda row: (-row["strength"], row["version"])),
        }
