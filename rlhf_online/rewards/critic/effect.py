"""What a critic's notes change: votes of who saw them beside votes of who, by the draw, did not.

Both saw the same items, and a coin decided who saw notes: so a difference is the notes' doing. Nobody knows here who is
right. But who looks closer agrees more with others who do, about what can be told at all; so notes that help raise the
agreement of those who saw them, each by themselves. Notes that talk everybody into the same mistake do as well: whether
they are right, `planted` measures.
"""

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain

from rlhf_online.events import SHOWN, WITHHELD, AnswerRef, Envelope, Feedback, Pairwise, Ranking, Thumb
from rlhf_online.feedback.agreement import Level, Tiers, Units, alpha, interval, preferences
from rlhf_online.intervals import share

ARMS = (SHOWN, WITHHELD)


@dataclass(frozen=True, slots=True)
class Measured:
    """A figure of an arm, or what notes made of it, with its 95 % interval; `n` is what it was counted of."""

    value: float
    low: float
    high: float
    n: int

    def less(self, other: "Measured") -> "Measured":
        """The difference of two independent figures (Zou and Donner 2008, "Construction of confidence limits about
        effect measures", eq. 1). Both arms judge the same items, so it is rather too wide than too narrow."""
        value = self.value - other.value
        low = value - math.hypot(self.value - self.low, other.high - other.value)
        high = value + math.hypot(self.high - self.value, other.value - other.low)
        return Measured(value, low, high, self.n + other.n)


@dataclass(slots=True)
class Arm:
    """Votes that were last given: of thumbs whether each was down, whose it was, and by item; orders of several answers
    by item; how long each vote took."""

    votes: int = 0
    down: list[bool] = field(default_factory=list)
    people: list[str] = field(default_factory=list)
    thumbs: defaultdict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    orders: list[tuple[str, Tiers]] = field(default_factory=list)
    response_ms: list[int] = field(default_factory=list)

    def add(self, vote: Feedback) -> None:
        self.votes += 1
        match vote.kind:
            case Thumb(up=up):
                self.down.append(not up)
                self.people.append(vote.person)
                self.thumbs[vote.annotation_item].append(up)
            case Ranking(tiers=tiers):
                self.orders.append((vote.annotation_item, [[*map(_name, tier)] for tier in tiers]))
            case Pairwise(chosen=chosen, rejected=rejected, tie=tie, unsure=False):
                names = [_name(chosen), _name(rejected)]
                self.orders.append((vote.annotation_item, [names] if tie else [[name] for name in names]))
            case _:
                pass
        if vote.response_ms:
            self.response_ms.append(vote.response_ms)

    def figures(self) -> dict[str, Measured]:
        """What can be told: the share of thumbs that are down, and how far people agree who judged the same item
        (Krippendorff's α), on single answers and on orders."""
        found = {}
        if self.down:
            bad = share(self.down, self.people)
            found["thumbs down"] = Measured(bad.value, bad.low, bad.high, bad.n)
        singles: list[Units] = [[values] for values in self.thumbs.values()]
        if (agreed := _agreement(singles, "nominal", sides=1)) is not None:
            found["agreement on thumbs"] = agreed
        if (agreed := _agreement(preferences(self.orders), "ordinal", sides=2)) is not None:
            found["agreement on orders"] = agreed
        return found

    def lines(self) -> str:
        """For a terminal."""
        parts = [f"{self.votes} votes"]
        for name, found in self.figures().items():
            parts.append(f"{name} {found.value:.2f} ({found.low:.2f} to {found.high:.2f}, n = {found.n})")
        if self.response_ms:
            parts.append(f"{statistics.median(self.response_ms) / 1000:.1f} s in the median")
        return ", ".join(parts)


def _name(ref: AnswerRef) -> str:
    return f"{ref.completion_id} {ref.index}"


def _agreement(items: list[Units], level: Level, *, sides: int) -> Measured | None:
    """Each unit is there from so many sides. None where there is nothing to tell."""
    units = [*chain.from_iterable(items)]
    found, within = alpha(units, level), interval(items, level)
    if found is None or within is None:
        return None
    return Measured(found, *within, sum(len(values) > 1 for values in units) // sides)


def effect(envelopes: Iterable[Envelope]) -> dict[str, Arm]:
    """By ARMS. What was replaced, or taken back, does not count."""
    said: dict[tuple[str, str], Feedback] = {}
    for envelope in envelopes:
        if isinstance(vote := envelope.event, Feedback):
            if vote.replaces:
                said.pop((vote.replaces, vote.person), None)
            if vote.notes in ARMS:
                said[envelope.event_id, vote.person] = vote
    arms = {arm: Arm() for arm in ARMS}
    for vote in said.values():
        arms[vote.notes].add(vote)
    return arms


def changes(arms: dict[str, Arm]) -> dict[str, Measured]:
    """What notes made of each figure that both arms have."""
    shown, withheld = (arms[arm].figures() for arm in ARMS)
    return {name: shown[name].less(withheld[name]) for name in shown if name in withheld}
