"""People who judge the same answers too much alike: one hand with several names, or names that copy each other. Pure.

Of each two people the items that both judged are counted on which they say exactly the same. People agree, more so
where it is plain what is better: an item's chance of being judged the same is estimated from all others who judged it,
and drawn towards that of all items (two judgements' worth). How probable it is that two people agree so often by that
is the tail of a Poisson-binomial distribution. They are *alike* where even among all pairs of people (Bonferroni) it is
less probable than SIGNIFICANCE, and where there are LEAST_COMMON items at least.

It says nothing of people who judge different answers, as most do in chat; the annotators' queue gives the same answers
to several. Who is alike is shown and weighs what they weigh: friends of one taste are found, too, and only a person can
say which it is.
"""

from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from itertools import combinations

from rlhf_online.feedback.votes import Comparison, Rating, Vote, is_signal, subject

LEAST_COMMON = 8
SIGNIFICANCE = 0.001
Said = Mapping[Hashable, Mapping[str, Hashable]]
"""Of each item what each person says of it."""


def alike(votes: Sequence[Vote]) -> list[tuple[str, ...]]:
    """Groups of people, by their hashes; who is alike to one of a group is in it."""
    said = _said(votes)
    same, common = _common(said)
    counts = {item: Counter(people.values()) for item, people in said.items()}
    overall = sum(map(sum, same.values())) / max(1, sum(map(len, same.values())))
    tested = {pair for pair, items in common.items() if len(items) >= LEAST_COMMON}

    def is_alike(pair: tuple[str, str]) -> bool:
        chances = [_chance(said[item], counts[item], pair, overall) for item in common[pair]]
        agreed = sum(same[pair])
        return agreed > sum(chances) and _tail(chances, agreed) < SIGNIFICANCE / len(tested)

    return _groups(list(filter(is_alike, sorted(tested))))


def _said(votes: Sequence[Vote]) -> Said:
    """A person's last word on each item that somebody else judged, too; nothing of models' votes, signals, or texts of
    people's own."""
    said: dict[Hashable, dict[str, Hashable]] = defaultdict(dict)
    for vote in votes:
        written = isinstance(vote, Comparison) and vote.correction
        if vote.person and not (vote.by_ai or is_signal(vote) or written):
            said[subject(vote)[1:]][vote.person] = _judgement(vote)
    return {item: people for item, people in said.items() if len(people) > 1}


def _judgement(vote: Vote) -> Hashable:
    if isinstance(vote, Rating):
        return vote.up
    return tuple(rank for _, rank in sorted(zip((c.token_ids for c in vote.candidates), vote.ranks, strict=True)))


def _common(said: Said) -> tuple[dict[tuple[str, str], list[bool]], dict[tuple[str, str], list[Hashable]]]:
    """Of each two people whether they said the same of each item that both judged, and which items these are."""
    same: dict[tuple[str, str], list[bool]] = defaultdict(list)
    common: dict[tuple[str, str], list[Hashable]] = defaultdict(list)
    for item, people in said.items():
        for one, other in combinations(sorted(people), 2):
            same[one, other].append(people[one] == people[other])
            common[one, other].append(item)
    return same, common


def _chance(people: Mapping[str, Hashable], counts: Counter[Hashable], pair: tuple[str, str], overall: float) -> float:
    """How probably two people say the same of an item, by what all but these two say; `counts` are of all."""
    one, other = (people[person] for person in pair)
    with_these = counts[one] - 1 + counts[other] - 1 - (one == other)
    agreeing = sum(count * (count - 1) for count in counts.values()) / 2 - with_these
    n = len(people) - 2
    return (agreeing + 2 * overall) / (n * (n - 1) / 2 + 2)


def _tail(chances: Sequence[float], at_least: int) -> float:
    """P(that many or more of independent events happen), or no more than the rest do not: as a rule they are few."""
    rest = len(chances) - at_least
    exactly = [1.0, *[0.0] * rest]
    for chance in chances:
        for k in range(rest, 0, -1):
            exactly[k] = exactly[k] * chance + exactly[k - 1] * (1 - chance)
        exactly[0] *= chance
    return sum(exactly)


def _groups(pairs: Sequence[tuple[str, str]]) -> list[tuple[str, ...]]:
    """Connected people."""
    group: dict[str, set[str]] = {}
    for one, other in pairs:
        joined = group.get(one, {one}) | group.get(other, {other})
        group.update(dict.fromkeys(joined, joined))
    return sorted({tuple(sorted(people)) for people in group.values()})
