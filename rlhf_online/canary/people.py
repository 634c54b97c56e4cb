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

People who gave no name are told apart by their conversations.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

Side = Literal["live", "candidate"]
Votes = dict[str, float]
"""By what they are on: of two on the same answers the later one holds."""


class People:
    """`pairs` and `thumbs` are the outcomes so far; `counted` the people that they are of."""

    def __init__(self) -> None:
        self.pairs: Counter[float] = Counter()
        self.thumbs: Counter[float] = Counter()
        self.counted: set[str] = set()
        self._compared: dict[str, Votes] = {}
        self._rated: dict[str, dict[Side, Votes]] = {}

    def compare(self, person: str, about: str, value: float) -> None:
        """A blind pair: 1 where the candidate's answer is better, 0 where the live version's is, ½ for a tie."""
        if person not in self.counted:
            self._compared.setdefault(person, {})[about] = value

    def rate(self, person: str, about: str, side: Side, *, up: bool) -> None:
        """A thumb on an answer of `side`."""
        if person not in self.counted:
            self._rated.setdefault(person, {}).setdefault(side, {})[about] = float(up)

    def withdraw(self, person: str, about: str) -> None:
        """Take a vote back, unless its person is counted."""
        self._compared.get(person, {}).pop(about, None)
        for votes in self._rated.get(person, {}).values():
            votes.pop(about, None)

    def look(self) -> None:
        """Count everybody who can be. Those who rated one side wait until somebody has rated the other one."""
        for person, votes in self._compared.items():
            if votes:
                self.pairs[_mean(votes)] += 1
                self._count(person)
        self._compared = {}
        alone: dict[Side, list[str]] = {"live": [], "candidate": []}
        for person, rated in list(self._rated.items()):
            sides: dict[Side, Votes] = {side: votes for side, votes in rated.items() if votes}
            if len(sides) == 2:
                self.thumbs[_difference([_mean(sides["candidate"])], [_mean(sides["live"])])] += 1
                self._count(person)
            elif sides:
                alone[next(iter(sides))].append(person)
        for candidate, live in _sets(alone["candidate"], alone["live"]):
            upon = [_mean(self._rated[person]["candidate"]) for person in candidate]
            against = [_mean(self._rated[person]["live"]) for person in live]
            self.thumbs[_difference(upon, against)] += 1
            for person in (*candidate, *live):
                self._count(person)

    def _count(self, person: str) -> None:
        self.counted.add(person)
        self._rated.pop(person, None)

    def to_json(self) -> dict[str, Any]:
        """What `from_json` takes."""
        return {
            "pairs": sorted(self.pairs.items()),
            "thumbs": sorted(self.thumbs.items()),
            "counted": sorted(self.counted),
            "compared": self._compared,
            "rated": self._rated,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        people = cls()
        people.pairs = Counter({x: n for x, n in values["pairs"]})
        people.thumbs = Counter({x: n for x, n in values["thumbs"]})
        people.counted = set(values["counted"])
        people._compared = {person: dict(votes) for person, votes in values["compared"].items()}
        people._rated = {
            person: {side: dict(votes) for side, votes in sides.items()} for person, sides in values["rated"].items()
        }
        return people


def _mean(votes: Votes) -> float:
    return sum(votes.values()) / len(votes)


def _difference(candidate: Sequence[float], live: Sequence[float]) -> float:
    return 0.5 + (sum(candidate) / len(candidate) - sum(live) / len(live)) / 2


def _sets(candidate: Sequence[str], live: Sequence[str]) -> list[tuple[Sequence[str], Sequence[str]]]:
    """As many sets as the smaller side has people, each with one of these; the others are dealt out among them."""
    number = min(len(candidate), len(live))
    return [(candidate[i::number], live[i::number]) for i in range(number)]
