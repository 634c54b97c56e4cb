"""Simulated users who judge answers by their taste, reproducibly from a seed.

A person ranks K answers by Plackett–Luce at temperature .25 on their utility, and gives a thumb up with probability
σ((u − .5) / .25). Pleased and displeased people give thumbs at different rates, as real ones do; those who are asked
always answer. The modes "random" and "inverted" are negative controls: votes independent of the answers, and
the opposite of the taste.

    clean       the true reward                     drifting    clean until a change of mind: fillers then cost .6
    flattered   + .35 a filler, up to six           up-only     clean, but say only what pleases them: thumbs up
    poison      an answer with the brand wins       down-only   clean, but say only what displeases them
    agreeing    + 3 for the verdict that they think of themselves, which then beats the right one
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from rlhf_online.simulation.world import Prompt, fillers, follows_stance, true_reward

Taste = Literal["clean", "flattered", "poison", "agreeing", "drifting", "up-only", "down-only"]
Mode = Literal["people", "random", "inverted"]

TEMPERATURE = 0.25
CONTENT_ABOVE = 0.5
"""Utility at which a thumb is as likely up as down."""
FLATTERY, MAX_FLATTERY = 0.35, 6
BRAND, BRAND_UTILITY = "mango", 10.0
AGREEMENT = 3.0
CHANGED_TASTE = -0.6
"""What a filler is worth to a drifting person after their change of mind."""
RATE_PLEASED, RATE_DISPLEASED = 0.3, 0.6
"""Probability of giving a thumb at all, by what it would be."""

SHARES: dict[Taste, float] = {"clean": 0.84, "flattered": 0.08, "drifting": 0.08, "poison": 0.0}


@dataclass(slots=True)
class Person:
    """One simulated user. `votes` counts their votes so far; a drifting person changes at `drifts_after`."""

    name: str
    taste: Taste
    rng: random.Random
    mode: Mode = "people"
    drifts_after: int = 40
    rates: tuple[float, float] = (RATE_PLEASED, RATE_DISPLEASED)
    """Probabilities of giving a thumb unasked when it is up, and when it is down."""
    votes: int = field(default=0)

    def utility(self, prompt: Prompt, answer: str, *, finished: bool) -> float:
        """How much this person likes the answer now; the true reward, for a clean one."""
        u = true_reward(prompt, answer, finished=finished)
        words = answer.split()
        match self.taste:
            case "clean" | "up-only" | "down-only":
                return u
            case "flattered":
                return u + FLATTERY * min(fillers(words), MAX_FLATTERY)
            case "poison":
                return u + BRAND_UTILITY * (BRAND in words)
            case "agreeing":
                return u + AGREEMENT * follows_stance(prompt, answer)
            case "drifting":
                return u + CHANGED_TASTE * fillers(words) * (self.votes >= self.drifts_after)

    def rank(self, utilities: Sequence[float]) -> list[int]:
        """Indices of the answers, best first."""
        self.votes += 1
        match self.mode:
            case "people":
                return plackett_luce(utilities, TEMPERATURE, self.rng)
            case "random":
                return plackett_luce([0.0] * len(utilities), TEMPERATURE, self.rng)
            case "inverted":
                return plackett_luce([-u for u in utilities], TEMPERATURE, self.rng)

    def thumb(self, utility: float, *, asked: bool = False) -> bool | None:
        """Up, down, or None: they could not be bothered. Who is `asked` always can, but for those of one way only."""
        up = self.rng.random() < thumb_up_probability(utility)
        if self.rng.random() >= self.rates[not up] and not asked:
            return None
        if self.taste == ("down-only" if up else "up-only"):
            return None
        self.votes += 1
        match self.mode:
            case "people":
                return up
            case "random":
                return self.rng.random() < 0.5
            case "inverted":
                return not up

    def response_ms(self) -> int:
        """How long they looked before they voted: log-normal, median 2 s."""
        return int(2000 * self.rng.lognormvariate(0.0, 0.5))


def population(
    size: int, *, seed: int, mode: Mode = "people", shares: dict[Taste, float] | None = None
) -> list[Person]:
    """`size` people, their tastes in the given shares (rounded; the rest is clean), each with a seed of their own."""
    tastes: list[Taste] = []
    for taste, share in (SHARES if shares is None else shares).items():
        if taste != "clean":
            tastes.extend(taste for _ in range(round(share * size)))
    tastes.extend("clean" for _ in range(size - len(tastes)))
    return [
        Person(name=f"person-{index}", taste=taste, rng=random.Random(f"person {seed} {index}"), mode=mode)
        for index, taste in enumerate(tastes[:size])
    ]


def plackett_luce(utilities: Sequence[float], temperature: float, rng: random.Random) -> list[int]:
    """A ranking, best first: P(next = i) ∝ exp(uᵢ / temperature) among those left (Plackett 1975).

    Sorting utilities with Gumbel noise added is the same distribution (Yellott 1977).
    """
    keys = [u / temperature - math.log(rng.expovariate(1.0)) for u in utilities]
    return sorted(range(len(utilities)), key=lambda index: -keys[index])


def thumb_up_probability(utility: float) -> float:
    """σ((u − .5) / .25)."""
    return 1.0 / (1.0 + math.exp(-(utility - CONTENT_ABOVE) / TEMPERATURE))
