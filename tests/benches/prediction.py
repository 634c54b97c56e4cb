"""How often the alarm that the gate's predictions and people have parted is wrong, and how often it comes when it must:
`python -m tests.benches.prediction [--services 800] [--json]`.

A simulated service replaces its version thirty times, and is looked at after each. The gate measures how often a
version is better on 128 prompts; 40 people, who differ, say one to six times each which of it and the version before is
better. In what share of the services was there ever an alarm? Where people see no difference between any two versions
it is no mistake, and decides nothing.
"""

import argparse
import json
import random
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass

from rlhf_online.prediction import Counts, Outcome, assess, share

VERSIONS, PEOPLE = 30, 40
Truth = Callable[[float], float]
"""How often people find a version better of which the gate, were it asked about all prompts, would say this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """`least` and `most`: of the share of services that may have an alarm."""

    name: str
    truth: Truth
    least: float = 0.0
    most: float = 1.0


SCENARIOS = (
    Scenario(name="people are as sharp as the gate", truth=lambda better: better, most=0.01),
    Scenario(name="they see 30 % of what it sees", truth=lambda better: 0.5 + 0.3 * (better - 0.5), most=0.04),
    Scenario(name="they see no difference", truth=lambda better: 0.5),
    Scenario(name="they like 44 %, whatever it is", truth=lambda better: 0.44, least=0.9),
    Scenario(name="the more it likes, the less they do", truth=lambda better: 0.62 - 1.2 * (better - 0.5), least=0.8),
)


def rate(seeds: Iterable[int], truth: Truth) -> float:
    """The share of these services that had an alarm."""
    found = [alarms(seed, truth) for seed in seeds]
    return sum(found) / len(found)


def alarms(seed: int, truth: Truth) -> bool:
    """Whether that service ever had one."""
    rng = random.Random(seed)
    found: list[Outcome] = []
    for number in range(VERSIONS):
        better = rng.uniform(0.51, 0.66)
        predicted = min(max(rng.gauss(better, 0.044), 0.5), 1.0)  # the gate lets none pass that it finds worse
        people = sum((_person(rng, truth(better)) for _ in range(PEOPLE)), Counts())
        said = share(people)
        assert said is not None and said.clear
        found.append(Outcome(version=f"policy-{number:06d}", predicted=predicted, said=said))
        if assess(found).alarm:
            return True
    return False


def _person(rng: random.Random, better: float) -> Counts:
    opinions = rng.randint(1, 6)
    own = min(max(rng.gauss(better, 0.1), 0.0), 1.0)
    return Counts(people=1, opinions=opinions, means=sum(rng.random() < own for _ in range(opinions)) / opinions)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    scenario: str
    alarms: float
    ok: bool


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--services", type=int, default=800)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows: list[Row] = []
    for scenario in SCENARIOS:
        found = rate(range(options.services), scenario.truth)
        rows.append(Row(scenario=scenario.name, alarms=found, ok=scenario.least <= found <= scenario.most))
        if not options.json:
            verdict = "" if rows[-1].ok else f"  expected {scenario.least:.0%} to {scenario.most:.0%}"
            print(f"{scenario.name:<36} {found:>7.2%}{verdict}", flush=True)
    ok = all(row.ok for row in rows)
    if options.json:
        print(json.dumps({"services": options.services, "rows": [asdict(row) for row in rows], "ok": ok}))
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
