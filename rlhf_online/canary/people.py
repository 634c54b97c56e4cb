"""What counts in the test: each person once, with one number in [0, 1], however much they say. Pure.

Somebody's hundred votes tell of that person's taste, not of a hundred people's: taken for independent they make a few
busy people look like a crowd. So a person's votes are gathered until the next look, and then they count, once, with
their mean; what they say later changes nothing. When somebody is counted depends on how many votes there are and not on
what they say, so that a person's number is what it would have been at any other time, and people's numbers are
independent: what `betting` needs.

    blind pairs    1 for the candidate, 0 for the live version, ½ for a tie: the mean of the person's own
    thumbs         ½ + (u − v)/2, u the share of thumbs up on the candidate's answers, v that on the live version's. Of
                   one person who rated both it is that person's number; else people who rated the candidate and people
                   who rated the live version stand against each other, each person in one such set and once

Either has the mean ½ where nobody finds a difference. A person who compares counts by what they compared.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, Literal, Self

Side = Literal["live", "candidate"]
Votes = dict[str, float]
"""By what they are on: of two on the same answers the later one holds."""
MOST = 50_000
"""Who is remembered of those that were counted; of conversations there may be any number."""


class Once:
    """Numbers of somebody's, gathered until a look; `outcomes` are the means of those that were `counted`.

    `counted` holds the last MOST of them: whoever goes on after so many others is counted once more.
    """

    def __init__(self) -> None:
        self.outcomes: Counter[float] = Counter()
        self.counted: dict[str, None] = {}
        self._waiting: dict[str, Votes] = {}

    def add(self, who: str, about: str, value: float) -> None:
        if who not in self.counted:
            self._waiting.setdefault(who, {})[about] = value

    def forget(self, who: str, containing: str) -> None:
        """Take back what is about something that contains that text, unless it is counted."""
        if who in self._waiting:
            _forget(self._waiting[who], containing)

    def look(self) -> list[str]:
        """Count everybody who waits; returns them."""
        waiting, self._waiting = self._waiting, {}
        counted = [who for who, votes in waiting.items() if votes]
        self.outcomes.update(mean(waiting[who]) for who in counted)
        self.counted.update(dict.fromkeys(counted))
        for forgotten in list(islice(self.counted, max(0, len(self.counted) - MOST))):
            del self.counted[forgotten]
        return counted

    def to_json(self) -> dict[str, Any]:
        """What `from_json` takes."""
        return {
            "outcomes": sorted(self.outcomes.items()),
            "counted": list(self.counted),
            "waiting": {who: dict(votes) for who, votes in self._waiting.items()},
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        once = cls()
        once.outcomes = Counter({x: n for x, n in values["outcomes"]})
        once.counted = dict.fromkeys(values["counted"])
        once._waiting = {who: dict(votes) for who, votes in values["waiting"].items()}
        return once


class People:
    """`pairs.outcomes` and `thumbs` are the numbers so far."""

    def __init__(self) -> None:
        self.pairs = Once()
        self.thumbs: Counter[float] = Counter()
        self._by_thumbs: set[str] = set()
        """People who are counted in `thumbs`."""
        self._rated: dict[str, dict[Side, Votes]] = {}

    def __len__(self) -> int:
        """People who are counted, those included of whom it is forgotten."""
        return self.pairs.outcomes.total() + len(self._by_thumbs)

    def compare(self, person: str, about: str, value: float) -> None:
        """A blind pair: 1 where the candidate's answer is better, 0 where the live version's is, ½ for a tie."""
        if person not in self._by_thumbs:
            self.pairs.add(person, about, value)

    def rate(self, person: str, about: str, side: Side, *, up: bool) -> None:
        """A thumb on an answer of `side`."""
        if person not in self._by_thumbs and person not in self.pairs.counted:
            self._rated.setdefault(person, {}).setdefault(side, {})[about] = float(up)

    def forget(self, person: str, containing: str) -> None:
        """Take votes back that are about something that contains that text, unless their person is counted."""
        self.pairs.forget(person, containing)
        for votes in self._rated.get(person, {}).values():
            _forget(votes, containing)

    def look(self) -> None:
        """Count everybody who can be. Those who rated one side wait until somebody has rated the other one."""
        for person in self.pairs.look():
            self._rated.pop(person, None)
        alone: dict[Side, list[str]] = {"live": [], "candidate": []}
        for person, rated in list(self._rated.items()):
            sides: dict[Side, Votes] = {side: votes for side, votes in rated.items() if votes}
            if len(sides) == 2:
                self._count([person], [person])
            elif sides:
                alone[next(iter(sides))].append(person)
        for candidate, live in _sets(alone["candidate"], alone["live"]):
            self._count(candidate, live)

    def _count(self, candidate: Sequence[str], live: Sequence[str]) -> None:
        upon = [mean(self._rated[person]["candidate"]) for person in candidate]
        against = [mean(self._rated[person]["live"]) for person in live]
        self.thumbs[0.5 + (sum(upon) / len(upon) - sum(against) / len(against)) / 2] += 1
        for person in {*candidate, *live}:
            self._by_thumbs.add(person)
            del self._rated[person]

    def to_json(self) -> dict[str, Any]:
        """What `from_json` takes."""
        return {
            "pairs": self.pairs.to_json(),
            "thumbs": sorted(self.thumbs.items()),
            "by_thumbs": sorted(self._by_thumbs),
            "rated": {person: {side: dict(v) for side, v in rated.items()} for person, rated in self._rated.items()},
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        people = cls()
        people.pairs = Once.from_json(values["pairs"])
        people.thumbs = Counter({x: n for x, n in values["thumbs"]})
        people._by_thumbs = set(values["by_thumbs"])
        people._rated = {
            person: {side: dict(votes) for side, votes in rated.items()} for person, rated in values["rated"].items()
        }
        return people


def mean(votes: Votes) -> float:
    return sum(votes.values()) / len(votes)


def _forget(votes: Votes, containing: str) -> None:
    for about in [about for about in votes if containing in about]:
        del votes[about]


def _sets(candidate: Sequence[str], live: Sequence[str]) -> list[tuple[Sequence[str], Sequence[str]]]:
    """As many sets as the smaller side has people, each with one of these; the others are dealt out among them."""
    number = min(len(candidate), len(live))
    return [(candidate[i::number], live[i::number]) for i in range(number)]
