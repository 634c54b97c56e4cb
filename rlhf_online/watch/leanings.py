"""What do people come to like, or to dislike? A sequential test of comparisons, token by token; `drift` tests thumbs.

A reward model that is surprised learns, and within two updates it is surprised no more. What surprised it has a
direction, though: where everybody comes to dislike *please*, the answers with it lose more often than foretold, vote
after vote, and a handful of such votes tell more than how large the surprise was.

*Residual.* Of a comparison and a token, over the pairs of answers of which one holds it and the other does not:

    z = Σ ± (1 − P(better))  /  √ Σ P(better) (1 − P(better))          + where the better one holds it, − where not

P is the model's, before it learned from the vote. Of a model that is right z has mean 0 and about variance 1, whatever
answers are shown. LONGER, the longer of two answers, is treated as one more token.

*p.* The rank of z among earlier ones of its token, as in `drift`; and its rank among these and their mirror images. The
larger one counts. By the first a bias that the model always had is no news; by the second it is none either that the
model has got rid of it, for what is new then is that z is balanced.

*Bets.* f(p) = 1 + a (1 − 2p) has mean 1 for a uniform p, less for a larger one, and wins only if z has moved to one
side: a spread that grows pays nothing. Both sides are bet on, each with several a, by Shiryaev–Roberts sums (`drift`).

*False alarms.* Within n votes the sum of one token and side reaches L with probability n / L at most, while the z of
the token are exchangeable. Probabilities are added over tokens: the k-th token that is watched, k = 0, 1, …, has the
share FIRST / ((FIRST + k)(FIRST + k + 1)) of the alarms in vain, which add up to one.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

LONGER = -1
"""The token that the longer of two answers holds."""
STAKES = (0.3, 0.6, 0.9)
"""The a that are bet with."""
LEAST = 20
"""Votes on a token before it is watched: ranks among fewer tell little."""
FIRST, MOST = 32, 1024
"""Tokens that have most of the alarms in vain; tokens that are known of at all."""
GRID, EDGE = 8, 4
"""z is kept in eighths, and ±4 at most."""
CENTRE = GRID * EDGE
LEAST_VARIANCE = 1e-4


def residuals(
    answers: Sequence[Sequence[int]], pairs: Sequence[tuple[int, int]], gaps: Sequence[float]
) -> dict[int, float]:
    """z of each token that tells some answers from others. `pairs` are (better, worse) of them, and `gaps` the log-odds
    that the model gave the better ones."""
    held = [frozenset(tokens) for tokens in answers]
    moved: defaultdict[int, float] = defaultdict(float)
    variance: defaultdict[int, float] = defaultdict(float)
    for (better, worse), gap in zip(pairs, gaps, strict=True):
        p = 1 / (1 + math.exp(-min(max(gap, -30.0), 30.0)))
        longer = len(answers[better]) - len(answers[worse])
        for side, tokens, is_longer in (
            (1, held[better] - held[worse], longer > 0),
            (-1, held[worse] - held[better], longer < 0),
        ):
            for token in (*tokens, LONGER) if is_longer else tokens:
                moved[token] += side * (1 - p)
                variance[token] += p * (1 - p)
    return {token: value / math.sqrt(max(variance[token], LEAST_VARIANCE)) for token, value in moved.items()}


@dataclass(slots=True)
class Bet:
    """The sum R of all bettors' capital; the largest gain of one of them in logs (CUSUM, Page 1954), and since which
    vote and when it has been gaining."""

    total: float = 0.0
    gain: float = 0.0
    begun: int = 0
    begun_ms: int = 0

    def win(self, factor: float, number: int, at_ms: int) -> None:
        """The `number`-th vote, given then, has multiplied what was bet by that."""
        self.total = (1.0 + self.total) * factor
        if self.gain <= 0.0:
            self.gain, self.begun, self.begun_ms = 0.0, number, at_ms
        self.gain += math.log(factor)

    def to_json(self) -> list[float | int]:
        return [self.total, self.gain, self.begun, self.begun_ms]


@dataclass(frozen=True, slots=True)
class Leaning:
    """Answers with this token have come to win more often than foretold, or to lose; `evidence` 1 is an alarm."""

    evidence: float
    token: int
    liked: bool
    bet: Bet


def _bets() -> list[Bet]:
    return [Bet() for _ in STAKES]


@dataclass(slots=True)
class _Token:
    """How many votes there were of each z; which one it is of those that are watched, −1 before; bets on its losing and
    on its winning."""

    counts: list[int] = field(default_factory=lambda: [0] * (2 * CENTRE + 1))
    place: int = -1
    sides: tuple[list[Bet], list[Bet]] = field(default_factory=lambda: (_bets(), _bets()))

    @property
    def limit(self) -> float:
        """What a sum must reach, as a multiple of the votes within which one alarm may come in vain."""
        return 2 * (FIRST + self.place) * (FIRST + self.place + 1) / FIRST


class Leanings:
    """Sees the residuals of every vote once, in order. Begin another after an alarm. `within` is the number of votes
    within which an alarm may come in vain."""

    def __init__(self, within: float) -> None:
        self._within = within
        self._tokens: dict[int, _Token] = {}
        self._watched = 0

    def observe(self, found: Mapping[int, float], *, believed: float, number: int, at_ms: int, tie: float) -> None:
        """Of the `number`-th vote, given then by somebody who is `believed` so far; `tie` ∈ (0, 1] is random."""
        for token, z in sorted(found.items()):
            if (known := self._tokens.get(token)) is None:
                if len(self._tokens) >= MOST:
                    continue
                known = self._tokens[token] = _Token()
            at = CENTRE + round(min(max(z, -EDGE), EDGE) * GRID)
            votes = sum(known.counts)
            if known.place < 0 and votes >= LEAST:
                known.place, self._watched = self._watched, self._watched + 1
            if known.place >= 0:
                mirrored = known.counts[::-1]
                for bets, own, other, place in (
                    (known.sides[0], mirrored, known.counts, 2 * CENTRE - at),
                    (known.sides[1], known.counts, mirrored, at),
                ):
                    p = _rank(own, other, votes, place, tie)
                    for stake, bet in zip(STAKES, bets, strict=True):
                        bet.win(1.0 + believed * stake * (1.0 - 2.0 * p), number, at_ms)
            known.counts[at] += 1

    def surest(self, tokens: Iterable[int] | None = None) -> Leaning | None:
        """The one with most evidence, of these tokens or of all."""
        leanings = (each for token in (self._tokens if tokens is None else tokens) for each in self._of(token))
        return max(leanings, key=lambda leaning: leaning.evidence, default=None)

    def _of(self, token: int) -> Iterator[Leaning]:
        if (known := self._tokens.get(token)) is not None and known.place >= 0:
            for liked, bets in zip((False, True), known.sides, strict=True):
                mean = sum(bet.total for bet in bets) / len(bets)
                yield Leaning(mean / (known.limit * self._within), token, liked, max(bets, key=lambda bet: bet.total))

    def to_json(self) -> list[Any]:
        return [
            [
                token,
                known.place,
                [(at, count) for at, count in enumerate(known.counts) if count],
                *([bet.to_json() for bet in bets] for bets in known.sides),
            ]
            for token, known in self._tokens.items()
        ]

    def load_json(self, values: Sequence[Any]) -> None:
        self._tokens, self._watched = {}, 0
        for token, place, counts, losing, winning in values:
            known = _Token(place=place, sides=([Bet(*bet) for bet in losing], [Bet(*bet) for bet in winning]))
            for at, count in counts:
                known.counts[at] = count
            self._tokens[token] = known
            self._watched += place >= 0


def _rank(own: Sequence[int], other: Sequence[int], votes: int, place: int, tie: float) -> float:
    """The larger p-value of a z in that place, among as many earlier ones as there were votes: `own`, and `own` with
    their mirror images, `other`. Of the equal ones, itself among them, the share `tie` counts."""
    larger, equal = sum(own[place + 1 :]), own[place] + 1
    mirrored, also = sum(other[place + 1 :]), other[place]
    alone = (larger + tie * equal) / (votes + 1)
    return max(alone, (larger + mirrored + tie * (equal + also)) / (2 * votes + 1))
