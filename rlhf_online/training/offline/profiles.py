"""How far people's own tastes part from the live reward model's, by a log: `rlhf-online people profiles`.

    log ─▶ votes, as they are learned ─▶ a person's first FIRST ─▶ their profile (`rewards.profile`) ─▶ their later ones
                                              │                       ▲                                     ▲ foretold
           live reward model, frozen ─────────┴───────────────────────┼─────────────────────────────────────┘
                                   in what people differ, by the other half of them

Nothing is kept: a profile is a function of the log and of a reward version. What its person erases is no part of it
from then on, and of who erases everything there is none. The argument is `config.offline.ProfilesSettings` in JSON.
"""

import json
import math
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from rlhf_online import logs, process
from rlhf_online.config.offline import ProfilesSettings
from rlhf_online.errors import InvalidInput, RlhfError
from rlhf_online.feedback.votes import Rating, Vote, is_signal, ordered_pairs, orders_answers, pairs, subject
from rlhf_online.gate.statistics import mean_interval
from rlhf_online.models import precision, reward, trunk
from rlhf_online.models.reward import RewardModel, features
from rlhf_online.models.tokens import ChatTokenizer
from rlhf_online.rewards.profile import Ordered, Space, prior, profile, thumb
from rlhf_online.training.offline.votes import gather

FIRST = 10
"""Votes that a profile is made of."""
MOST_LATER = 40
"""Votes that it foretells, the next ones."""
MOST_PEOPLE = 100
"""Who is told of: those with most votes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """Of a person how many votes are foretold, and which share of their pairs is ordered as they did, by the common
    model and by the profile."""

    person: str
    later: int
    common: float
    profile: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """`taste` is how far people differ, nats of a typical answer; `gain` the share of pairs that profiles order rightly
    beyond the common model's, on average of people, with its 95 % interval."""

    taste: float
    gain: float
    gain_low: float
    gain_high: float
    people: tuple[Told, ...]


@dataclass(frozen=True, slots=True)
class _Person:
    """Votes of one person in their order, each with what the model knows of it."""

    name: str
    votes: list[Vote]
    ordered: list[Ordered]
    features_MR: Tensor
    utilities_M: Tensor

    def told(self, prior_RR: Tensor) -> Told | None:
        """None where their later votes order nothing."""
        at = sum(len(vote.candidates) for vote in self.votes[:FIRST])
        common_M, features_MR = self.utilities_M[at:], self.features_MR[at:]
        own_M = profile(self.ordered[:FIRST], prior_RR).utilities(features_MR, common_M)
        if not (said := list(_ordered(self.votes[FIRST:]))):
            return None
        later = len(self.votes) - FIRST
        return Told(person=self.name, later=later, common=_right(common_M, said), profile=_right(own_M, said))


def find(model: RewardModel, votes: Sequence[Vote]) -> Found:
    """Of whoever has given more than FIRST votes on the first objective. Raises InvalidInput where nobody has."""
    last_words = {subject(vote): vote for vote in sorted(votes, key=_when)}
    by_person: dict[str, list[Vote]] = defaultdict(list)
    for vote in sorted(last_words.values(), key=_when):
        usable = vote.person and not vote.by_ai and not is_signal(vote) and orders_answers(vote)
        if usable and vote.objective_index(model.objectives) == 0:
            by_person[vote.person].append(vote)
    known = sorted(by_person, key=lambda name: (-len(by_person[name]), name))[:MOST_PEOPLE]
    chosen = {name: by_person[name][: FIRST + MOST_LATER] for name in known if len(by_person[name]) > FIRST}
    if not chosen:
        raise InvalidInput(
            f"nobody has given more than {FIRST} votes by {model.objectives[0]}: there is none to foretell"
        )
    people, width = _read(model, chosen)
    halves = people[::2], people[1::2]
    priors = [prior([person.ordered for person in half], width) for half in reversed(halves)]
    told = [
        found
        for half, prior_RR in zip(halves, priors, strict=True)
        for person in half
        if (found := person.told(prior_RR)) is not None
    ]
    gains = [found.profile - found.common for found in told]
    gain, half = mean_interval(gains)
    half_width = half if math.isfinite(half) else 1.0
    return Found(
        taste=statistics.fmean(float(prior_RR.diagonal()[:-1].sum()) for prior_RR in priors) ** 0.5,
        gain=gain,
        gain_low=gain - half_width,
        gain_high=gain + half_width,
        people=tuple(sorted(told, key=lambda found: found.person)),
    )


def _when(vote: Vote) -> tuple[int, str]:
    return vote.created_ms, vote.event_id


def _read(model: RewardModel, votes: dict[str, list[Vote]]) -> tuple[list[_Person], int]:
    """People, and how many features an answer has."""
    answers = [pair for given in votes.values() for vote in given for pair in pairs(vote)]
    seen_Nd = features(model, answers)
    space = Space.of(seen_Nd)
    features_NR = space(seen_Nd)
    with torch.no_grad():
        first_NK = model.heads(seen_Nd.to(model.device)).cpu()[:, : model.members]
    utilities_N = (first_NK - model.normalisation.mean_OK[0]).mean(1).double()
    people, at = [], 0
    for name, given in votes.items():
        ordered, begun = [], at
        for vote in given:
            rows = slice(at, at + len(vote.candidates))
            ordered.append(_in_order(vote, features_NR[rows], utilities_N[rows]))
            at = rows.stop
        people.append(_Person(name, given, ordered, features_NR[begun:at], utilities_N[begun:at]))
    return people, space.features


def _in_order(vote: Vote, features_GR: Tensor, utilities_G: Tensor) -> Ordered:
    if isinstance(vote, Rating):
        return thumb(features_GR[0], float(utilities_G[0]), up=vote.up)
    return Ordered(features_GR=features_GR, utilities_G=utilities_G, tiers=vote.ranks)


def _ordered(votes: Sequence[Vote]) -> Iterator[tuple[int, int]]:
    """(better, worse) among the answers of all these votes: as each comparison orders them, and what got a thumb up
    above what got one down."""
    thumbs: dict[bool, list[int]] = {True: [], False: []}
    at = 0
    for vote in votes:
        yield from ((at + better, at + worse) for better, worse in ordered_pairs(vote))
        if isinstance(vote, Rating):
            thumbs[vote.up].append(at)
        at += len(vote.candidates)
    yield from ((up, down) for up in thumbs[True] for down in thumbs[False])


def _right(utilities_M: Tensor, ordered: Sequence[tuple[int, int]]) -> float:
    better, worse = (utilities_M[list(rows)] for rows in zip(*ordered, strict=True))
    return float(((better > worse).double() + 0.5 * (better == worse).double()).mean())


def main() -> int:
    settings = ProfilesSettings.model_validate_json(sys.argv[1])
    logs.configure("offline", "error")
    try:
        print(json.dumps(asdict(run(settings))))
    except RlhfError as error:
        return process.report_error(error)
    except KeyboardInterrupt:
        return 130
    return 0


def run(settings: ProfilesSettings) -> Found:
    """Raises InvalidInput, LogUnavailable, VersionCorrupt."""
    if settings.threads:
        torch.set_num_threads(settings.threads)
    shape = trunk.read_config(settings.model)
    gathered = gather(settings, ChatTokenizer(settings.model), trunk.limits(shape), lambda said: None)
    device = trunk.pick_device(settings.device)
    dtype = precision.choose("auto", device, shape, reward.computed_in(settings.reward))
    model = RewardModel.load(settings.model, folder=settings.reward, tuning=settings.tuning, device=device, dtype=dtype)
    return find(model, [*gathered.learned, *gathered.held_out])


if __name__ == "__main__":
    sys.exit(main())
