"""Looks for a case that goes wrong, and makes it small: hypothesis, with a seed and nothing kept between runs."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis.errors import Unsatisfiable
from hypothesis.strategies import SearchStrategy

Case = TypeVar("Case")
UNHURRIED = (
    HealthCheck.data_too_large,
    HealthCheck.filter_too_much,
    HealthCheck.large_base_example,
    HealthCheck.too_slow,
)


class Found(AssertionError):
    """A case that went wrong: what was seen, and how to do it again."""


@dataclass(slots=True)
class Tally:
    """`cases` by what was fuzzed, `outcomes` by status; `found` are the smallest cases that went wrong."""

    cases: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    found: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        return self.cases.total()


def search(
    name: str, strategy: SearchStrategy[Case], attempt: Callable[[Case], str], tally: Tally, *, cases: int, seed: int
) -> None:
    """Make so many attempts, each of which returns its status or raises Found."""

    @seeded(seed)
    @settings(
        max_examples=cases,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=UNHURRIED,
        print_blob=False,
    )
    @given(strategy)
    def run(case: Case) -> None:
        tally.cases[name] += 1
        tally.outcomes[attempt(case)] += 1

    try:
        run()
    except Unsatisfiable:
        pass  # there is nothing of this kind that could be wrong
    except (Found, BaseExceptionGroup) as error:
        tally.found += [f"{name}: {one}" for one in _leaves(error)]


def _leaves(error: BaseException) -> list[str]:
    """What was found; hypothesis puts several, and one that came only once, into groups."""
    match error:
        case BaseExceptionGroup():
            return [leaf for one in error.exceptions for leaf in _leaves(one)]
        case Found():
            return [str(error)]
        case _:
            raise error
