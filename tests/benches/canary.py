"""How often the canary's test is wrong, and how soon it is right:
`python -m tests.benches.canary [--runs 2000] [--json]`.

Simulated people vote on a candidate and the live version; after every 10 votes somebody looks, and would promote or
roll back as soon as the test lets them. In an A/A canary both versions are the same to people, so that either is a
mistake: at most 5 % may be promoted, and 5 % rolled back, however often one looks. Beside it the test that everybody
knows, for a number of votes fixed beforehand, looked at as often; it must be seen to cheat, or the bench proves
nothing. With people who prefer the candidate 60 to 40, at least 80 % of the canaries must be promoted within 400 votes.

`busy`: half of the votes are a few people's, and people have tastes of their own: each prefers the candidate in a share
of their votes that is drawn from 0 to 1, a half in the mean. There a test that takes votes for people is wrong even
where it may be looked at. `thumbs`: a tenth of the people are answered by the candidate.
"""

import argparse
import json
import math
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rlhf_online.canary.betting import Outcomes, log_capital, mirrored
from rlhf_online.canary.people import People, Side

ALPHA, POWER, LOOK = 0.05, 0.8, 10
LIMIT = math.log(1 / ALPHA)
Z = 1.644854
"""One-sided 5 %, as the e-value's."""
PEOPLE = 40
"""In a canary of busy people: 40 people give half of all votes."""

Votes = Iterator[tuple[People, "FixedTest"]]


@dataclass(slots=True)
class FixedTest:
    """The z-test of two-sided differences for a fixed number of votes: of signs for pairs, of two shares for thumbs."""

    wins: int = 0
    losses: int = 0
    up: dict[Side, int] | None = None
    rated: dict[Side, int] | None = None

    def z(self) -> float:
        if self.up is None or self.rated is None:
            return (self.wins - self.losses) / math.sqrt(max(1, self.wins + self.losses))
        live, candidate = self.rated["live"], self.rated["candidate"]
        if not live or not candidate:
            return 0.0
        share = (self.up["live"] + self.up["candidate"]) / (live + candidate)
        deviation = math.sqrt(share * (1 - share) * (1 / live + 1 / candidate))
        return (self.up["candidate"] / candidate - self.up["live"] / live) / deviation if deviation else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """`votes` yields after every look's votes."""

    name: str
    same: bool
    votes: Callable[[random.Random], Votes]
    most: int
    """Votes of one canary."""
    bound: bool = True
    """Whether the figure decides the bench's `ok`."""


def pairs(better: float, ties: float = 0.0) -> Callable[[random.Random], Votes]:
    """Each person votes once."""

    def votes(rng: random.Random) -> Votes:
        people, fixed = People(), FixedTest()
        person = 0
        while True:
            for _ in range(LOOK):
                person += 1
                value = 0.5 if rng.random() < ties else float(rng.random() < better)
                people.compare(f"{person}", "", value)
                fixed.wins += value == 1
                fixed.losses += value == 0
            yield people, fixed

    return votes


def busy(better: float) -> Callable[[random.Random], Votes]:
    """Half of the votes are those of PEOPLE people, the others one a person's; each has a taste."""

    def votes(rng: random.Random) -> Votes:
        people, fixed = People(), FixedTest()
        tastes = [rng.betavariate(2 * better, 2 * (1 - better)) for _ in range(PEOPLE)]
        vote = 0
        while True:
            for _ in range(LOOK):
                vote += 1
                known = rng.random() < 0.5
                who = rng.randrange(PEOPLE)
                taste = tastes[who] if known else rng.betavariate(2 * better, 2 * (1 - better))
                won = rng.random() < taste
                people.compare(f"{who}" if known else f"once {vote}", f"{vote}", float(won))
                fixed.wins += won
                fixed.losses += not won
            yield people, fixed

    return votes


def thumbs(live: float, candidate: float, share: float) -> Callable[[random.Random], Votes]:
    """Each person rates one to five answers of one side; how much they like anything differs."""

    def votes(rng: random.Random) -> Votes:
        people = People()
        fixed = FixedTest(up={"live": 0, "candidate": 0}, rated={"live": 0, "candidate": 0})
        assert fixed.up is not None and fixed.rated is not None
        person, left = 0, 0
        side: Side = "live"
        taste = 0.0
        while True:
            for _ in range(LOOK):
                if not left:
                    person, left = person + 1, rng.randint(1, 5)
                    side = "candidate" if rng.random() < share else "live"
                    mean = candidate if side == "candidate" else live
                    taste = rng.betavariate(3 * mean, 3 * (1 - mean))
                left -= 1
                up = rng.random() < taste
                people.rate(f"{person}", f"{left}", side, up=up)
                fixed.up[side] += up
                fixed.rated[side] += 1
            yield people, fixed

    return votes


SCENARIOS = (
    Scenario(name="A/A, pairs", same=True, votes=pairs(0.5), most=1000),
    Scenario(name="A/A, pairs, 30 % ties", same=True, votes=pairs(0.5, ties=0.3), most=1000),
    Scenario(name="A/A, pairs, busy people", same=True, votes=busy(0.5), most=1000),
    Scenario(name="A/A, thumbs", same=True, votes=thumbs(0.7, 0.7, 0.1), most=1000),
    Scenario(name="60/40, pairs", same=False, votes=pairs(0.6), most=400),
    Scenario(name="60/40, pairs, 30 % ties", same=False, votes=pairs(0.6, ties=0.3), most=400, bound=False),
    Scenario(name="60/40, pairs, busy people", same=False, votes=busy(0.6), most=400, bound=False),
    Scenario(name="70/30, pairs", same=False, votes=pairs(0.7), most=400),
    Scenario(name=".6 → .8, thumbs, half", same=False, votes=thumbs(0.6, 0.8, 0.5), most=1000, bound=False),
)


@dataclass(slots=True)
class Found:
    """Of how many canaries."""

    promoted: int = 0
    rolled_back: int = 0
    z_promoted: int = 0
    after: list[int] | None = None
    """Votes until the promotion."""


def evidence(people: People) -> tuple[float, float]:
    """ln of the evidence that the candidate is better, and that it is worse."""
    said: tuple[Outcomes, ...] = (people.pairs.outcomes, people.thumbs)
    return sum(map(log_capital, said)), sum(log_capital(mirrored(each)) for each in said)


def run(scenario: Scenario, runs: int, seed: int) -> Found:
    """Simulate `runs` canaries, each to its end or its first decision by either test."""
    found = Found(after=[])
    assert found.after is not None
    for number in range(runs):
        rng = random.Random(f"{scenario.name} {seed} {number}")
        decided = z_decided = False
        for look, (people, fixed) in enumerate(scenario.votes(rng), 1):
            if not decided:
                people.look()
                better, worse = evidence(people)
                decided = max(better, worse) >= LIMIT
                if better >= LIMIT:
                    found.promoted += 1
                    found.after.append(look * LOOK)
                elif decided:
                    found.rolled_back += 1
            if not z_decided and fixed.z() >= Z:
                found.z_promoted += 1
                z_decided = True
            if (decided and z_decided) or look * LOOK >= scenario.most:
                break
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2000, help="canaries of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="one JSON object")
    arguments = parser.parse_args()
    rows, ok = [], True
    for scenario in SCENARIOS:
        found = run(scenario, arguments.runs, arguments.seed)
        after = sorted(found.after or [0])
        row = {
            "canaries": scenario.name,
            "votes": scenario.most,
            "promoted": found.promoted / arguments.runs,
            "rolled_back": found.rolled_back / arguments.runs,
            "z_promoted": found.z_promoted / arguments.runs,
            "votes_median": after[len(after) // 2],
        }
        if scenario.same:
            ok &= row["promoted"] <= ALPHA and row["rolled_back"] <= ALPHA and row["z_promoted"] > 2 * ALPHA
        elif scenario.bound:
            ok &= row["promoted"] >= POWER and row["rolled_back"] <= ALPHA
        rows.append(row)
        if not arguments.json:
            _show(row, head=len(rows) == 1)
    if arguments.json:
        print(json.dumps({"runs": arguments.runs, "look_every": LOOK, "alpha": ALPHA, "rows": rows, "ok": bool(ok)}))
    else:
        print("ok" if ok else "NOT ok")
    return 0 if ok else 1


def _show(row: dict[str, str | int | float], *, head: bool) -> None:
    if head:
        print(f"{'':<26}{'votes':>6}{'promoted':>10}{'rolled back':>13}{'z, promoted':>13}{'median votes':>14}")
    print(
        f"{row['canaries']:<26}{row['votes']:>6}{row['promoted']:>10.3f}{row['rolled_back']:>13.3f}"
        f"{row['z_promoted']:>13.3f}{row['votes_median']:>14}",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
