"""Who rates by themselves is not everybody: what unasked thumbs say of all answers, with the help of a few asked ones.

Pleased and displeased people rate at different rates, so the share of thumbs up among those given is not the share of
answers that please. A small sample of answers picked *at random*, whose people are asked and answer, tells the two
rates: the share that pleases is that of the sample, and what was given unasked is that share of all answers times the
rate. Thumbs then count with the inverse of their rate (Horvitz & Thompson 1952).

For a reward model the rates are a constant: if they depend on the thumb alone, the log-odds of a thumb up among those
given are those among all answers plus log(rate up / rate down) (Prentice & Pyke 1979), which its intercepts learn. The
order of answers needs no correction; a probability does: subtract `log_odds`. Pure.
"""

import math
from dataclasses import dataclass

from rlhf_online.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class ThumbTally:
    """How many thumbs of a sample are up, and how many down."""

    up: int
    down: int


@dataclass(frozen=True, slots=True)
class Rates:
    """Probabilities that a person who is pleased, or not, says so unasked."""

    up: float
    down: float

    @property
    def weights(self) -> tuple[float, float]:
        """What a thumb up, and one down, counts for: the answers that it stands for."""
        return 1 / self.up, 1 / self.down

    @property
    def log_odds(self) -> float:
        """By how much the log-odds of a thumb up, among thumbs that were given, are above those of all answers."""
        return math.log(self.up / self.down)

    def share(self, given: ThumbTally) -> float:
        """Share of all answers that please, from thumbs that were given unasked, at these rates."""
        up, down = given.up * self.weights[0], given.down * self.weights[1]
        return up / (up + down)


def rates(given: ThumbTally, asked: ThumbTally, answers: int) -> Rates:
    """The rates at which `given` came from `answers` answers nobody was asked about; `asked` is of a random sample.

    Raises InvalidInput where a count is too small to tell: a kind of thumb that is missing, or no answers.
    """
    if min(given.up, given.down, asked.up, asked.down, answers) < 1:
        raise InvalidInput(f"rates need thumbs of both kinds, given and asked for, and answers; got {given}, {asked}")
    pleased = asked.up / (asked.up + asked.down)
    return Rates(min(1.0, given.up / (pleased * answers)), min(1.0, given.down / ((1 - pleased) * answers)))
