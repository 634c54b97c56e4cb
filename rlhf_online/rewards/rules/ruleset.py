"""A set of rules, read from TOML text and known by what that says.

    [propositions.hedges]
    words = ["perhaps", "it depends"]

    [propositions.asks_number]
    regex = '(?i)how (many|much)'
    of = "prompt"

    [rules.direct]
    description = "A question for a number is answered without hedging."
    when = "asks_number"                # holds only as far as this does
    weights = { hedges = -1.0 }         # in standard deviations of the reward model's score

    [[tests]]                           # `rlhf-online rules test`
    prompt = "How many legs has a spider?"
    answer = "Eight."
    expect = { hedges = 0.0 }
    better_than = "Perhaps eight."      # by all rules together

Invariant: the same text gives the same version and the same rewards.
"""

import hashlib
import math
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import Annotated

from pydantic import Field, model_validator

from rlhf_online.config.base import ObjectiveName, Section
from rlhf_online.config.explain import explained
from rlhf_online.config.given import Given
from rlhf_online.errors import ConfigError
from rlhf_online.rewards.rules.propositions import Exchange, Proposition, mistake

PREFIX = "rule:"
"""Of the objective that a rule is."""
MOST_BYTES = 64 << 10
"""Of the text: it goes with each request for scores."""

Weight = Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]


class Rule(Section):
    """Its reward is Σ weight · feature, times the feature `when`."""

    description: str = Field(default="", max_length=1000, description="What it asks for, for people.")
    when: str | None = Field(default=None, description="The proposition as far as which it holds; without one always.")
    weights: dict[str, Weight] = Field(min_length=1, description="What each proposition is worth.")


class RuleTest(Section):
    """An answer, and what the rules must say of it."""

    prompt: str = Field(default="", max_length=100_000, description="What was asked.")
    answer: str = Field(max_length=100_000, description="What was answered.")
    finished: bool = Field(default=True, description="Whether the answer ended by itself.")
    expect: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field(
        default={}, description="The features of propositions, within 0.01."
    )
    better_than: str | None = Field(default=None, description="An answer that has a lower reward by all rules.")

    @model_validator(mode="after")
    def _expects(self) -> "RuleTest":
        if not self.expect and self.better_than is None:
            raise mistake("it expects nothing: give expect, better_than or both")
        return self

    @property
    def exchange(self) -> Exchange:
        return Exchange(self.prompt, self.answer, self.finished)


class RuleSet(Section):
    """What a file holds."""

    propositions: dict[ObjectiveName, Proposition] = Field(default={}, max_length=256, description="By their names.")
    rules: dict[ObjectiveName, Rule] = Field(default={}, max_length=64, description="By their names.")
    tests: tuple[RuleTest, ...] = Field(default=(), max_length=1000, description="What `rules test` asks.")

    @model_validator(mode="after")
    def _agrees(self) -> "RuleSet":
        named = [(f"rules.{name}.weights", each) for name, rule in self.rules.items() for each in rule.weights]
        named += [(f"rules.{name}.when", rule.when) for name, rule in self.rules.items() if rule.when]
        named += [(f"tests.{at}.expect", each) for at, test in enumerate(self.tests) for each in test.expect]
        for at, name in named:
            if name not in self.propositions:
                known = ", ".join(self.propositions) or "none"
                raise mistake(f"{at}: {name!r} is no proposition: there are {known}", at)
        for one, other, why in contradictions(self):
            raise mistake(f"rules.{one} contradicts rules.{other}: {why}", f"rules.{one}")
        return self

    @property
    def objectives(self) -> list[str]:
        """The names of the rules as those of objectives, in their order."""
        return [PREFIX + name for name in self.rules]

    def features(self, exchange: Exchange) -> dict[str, float]:
        """Of each proposition."""
        return {name: proposition.feature(exchange) for name, proposition in self.propositions.items()}

    def rewards(self, exchange: Exchange) -> list[float]:
        """Of each rule, in their order."""
        features = self.features(exchange)
        return [reward(rule, features) for rule in self.rules.values()]


@dataclass(frozen=True, slots=True)
class Rules:
    """A text that was read, with the rules in it."""

    text: str
    set: RuleSet

    @property
    def version(self) -> str:
        """Named by the text's digest; "" where there is no rule."""
        return f"rules-{hashlib.sha256(self.text.encode()).hexdigest()[:12]}" if self.set.rules else ""


def reward(rule: Rule, features: Mapping[str, float]) -> float:
    """Σ weight · feature · `when`'s feature: in standard deviations of the reward model's score."""
    part = 1.0 if rule.when is None else features[rule.when]
    return part * math.fsum(weight * features[name] for name, weight in rule.weights.items())


@lru_cache(maxsize=8)
def parse(text: str, place: str = "the rules") -> Rules:
    """Raises ConfigError, which begins with `place`, and names the table, what was expected and what was got."""
    if len(text.encode()) > MOST_BYTES:
        raise ConfigError(f"{place}: {len(text.encode())} bytes, and {MOST_BYTES} may be: leave out rules or tests")
    try:
        return _validated(text, place)
    except RecursionError:
        raise ConfigError(f"{place}: its lists or tables nest too deep") from None


def _validated(text: str, place: str) -> Rules:
    try:
        values = tomllib.loads(text)
    except ValueError as error:
        raise ConfigError(f"{place}: it is no TOML: {error}") from error
    with explained([Given(place, values, is_file=True)], RuleSet):
        return Rules(text, RuleSet.model_validate(values)) if values else NONE


def contradictions(rules: RuleSet) -> Iterator[tuple[str, str, str]]:
    """Two rules that hold in the same cases, of which one pays for what the other takes off for, or whose lengths no
    answer has both: their names, and why."""
    for (one, a), (other, b) in combinations(rules.rules.items(), 2):
        if _cases(rules, a) != _cases(rules, b):
            continue
        for name, weight in a.weights.items():
            for second, against in b.weights.items():
                left, right = rules.propositions[name], rules.propositions[second]
                if left == right and weight * against < 0:
                    both = f"{name!r}" if name == second else f"{name!r} and {second!r}, which say the same,"
                    yield one, other, f"{both} counts {weight:g} in the one and {against:g} in the other"
                elif weight > 0 and against > 0 and _apart(left, right):
                    yield one, other, f"no answer has the lengths of both {name!r} and {second!r}"


def _cases(rules: RuleSet, rule: Rule) -> Proposition | None:
    return None if rule.when is None else rules.propositions[rule.when]


def _apart(left: Proposition, right: Proposition) -> bool:
    a, b = left.length, right.length
    if a is None or b is None or (left.of, a.unit) != (right.of, b.unit):
        return False
    return (a.max is not None and a.max < b.min) or (b.max is not None and b.max < a.min)


def failures(rules: RuleSet, tests: Sequence[RuleTest]) -> Iterator[str]:
    """What of the tests' expectations is not so, in words."""
    for number, test in enumerate(tests, 1):
        features = rules.features(test.exchange)
        for name, expected in test.expect.items():
            if abs(features[name] - expected) > 0.01:
                yield f"test {number}: {name} is {features[name]:.2f}, expected {expected:.2f}"
        if test.better_than is not None:
            other = Exchange(test.prompt, test.better_than, test.finished)
            ours, theirs = math.fsum(rules.rewards(test.exchange)), math.fsum(rules.rewards(other))
            if ours <= theirs:
                yield f"test {number}: the reward is {ours:.2f}, not above {theirs:.2f}, that of better_than"


NONE = Rules("", RuleSet())
"""Without any."""
