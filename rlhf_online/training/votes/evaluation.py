"""Evaluation of a reward model: its accuracy and calibration on held-out votes, with 95 % intervals."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from rlhf_online.feedback.votes import Rating, Vote, ordered_pairs, pairs
from rlhf_online.intervals import share
from rlhf_online.models.reward import RewardModel
from rlhf_online.training import distributed
from rlhf_online.training.votes import measures
from rlhf_online.training.votes.rater_bias import RaterBias


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A reward model on held-out votes: 0, with intervals 0 … 1, where there is none. `…_low` and `…_high` are 95 %.

    `accuracy` and `ece` (expected calibration error) are of the heads' mean over `accuracy_n` ordered pairs.
    `thumb_auc` is how often an answer with a thumb up is above one with a thumb down, over `thumb_n` thumbs, and
    `thumb_accuracy` how often a thumb was foretold with its person's bias. `objectives` are the accuracies of each
    objective's own pairs, where there are several objectives.
    """

    accuracy: float
    accuracy_low: float
    accuracy_high: float
    accuracy_n: int
    ece: float
    ece_low: float
    ece_high: float
    thumb_accuracy: float
    thumb_auc: float
    thumb_auc_low: float
    thumb_auc_high: float
    thumb_n: int
    objectives: dict[str, float] = field(default_factory=dict)

    def figures(self) -> dict[str, float]:
        """All of it by name, for a version's manifest; an objective's accuracy as "accuracy/harmless"."""
        values = asdict(self)
        objectives = values.pop("objectives")
        return {name: float(value) for name, value in values.items()} | {
            f"accuracy/{name}": value for name, value in objectives.items()
        }


@dataclass(slots=True)
class _Seen:
    """Ordered pairs (which objective, which conversation, right or not, how sure) and thumbs, as they are gone over."""

    objectives: list[int] = field(default_factory=list)
    conversations: list[str] = field(default_factory=list)
    right: list[float] = field(default_factory=list)
    confidence: list[float] = field(default_factory=list)
    ups: list[tuple[str, float]] = field(default_factory=list)
    downs: list[tuple[str, float]] = field(default_factory=list)
    foretold: list[bool] = field(default_factory=list)


def measure(model: RewardModel, votes: Sequence[Vote], biases: Sequence[RaterBias], seed: int) -> Measured:
    """The mean of `model`'s heads on `votes`; `biases` are of each objective, `seed` that of the bootstrap."""
    seen = _Seen()
    answers = [pair for vote in votes for pair in pairs(vote)]
    with model.shards.gathered():
        utilities_NO = distributed.rows(answers, model.utilities, "measuring the reward model").mean(2)
    at = 0
    for vote in votes:
        objective, count = vote.objective_index(model.objectives), len(vote.candidates)
        _see(seen, vote, objective, utilities_NO[at : at + count, objective].tolist(), biases[objective])
        at += count
    accuracy, auc = share(seen.right, seen.conversations), measures.ordered(seen.ups, seen.downs)
    low, high = measures.calibration_interval(seen.confidence, seen.right, seen.conversations, seed)
    return Measured(
        accuracy=accuracy.value,
        accuracy_low=accuracy.low,
        accuracy_high=accuracy.high,
        accuracy_n=accuracy.n,
        ece=measures.calibration_error(seen.confidence, seen.right),
        ece_low=low,
        ece_high=high,
        thumb_accuracy=sum(seen.foretold) / max(1, len(seen.foretold)),
        thumb_auc=auc.value,
        thumb_auc_low=auc.low,
        thumb_auc_high=auc.high,
        thumb_n=auc.n,
        objectives=_by_objective(seen, model.objectives) if len(model.objectives) > 1 else {},
    )


def _see(seen: _Seen, vote: Vote, objective: int, utilities: Sequence[float], bias: RaterBias) -> None:
    for better, worse in ordered_pairs(vote):
        delta = utilities[better] - utilities[worse]
        seen.objectives.append(objective)
        seen.conversations.append(vote.conversation_id)
        seen.right.append(float(delta > 0) + 0.5 * (delta == 0))
        seen.confidence.append(1 / (1 + math.exp(-min(abs(delta), 30.0))))
    if isinstance(vote, Rating):
        (seen.ups if vote.up else seen.downs).append((vote.conversation_id, utilities[0]))
        seen.foretold.append((utilities[0] + bias.of([vote.person])[0] > 0) == vote.up)


def _by_objective(seen: _Seen, objectives: Sequence[str]) -> dict[str, float]:
    """The accuracy of each objective that there are pairs of."""
    own: dict[int, list[float]] = {}
    for objective, right in zip(seen.objectives, seen.right, strict=True):
        own.setdefault(objective, []).append(right)
    return {name: sum(own[number]) / len(own[number]) for number, name in enumerate(objectives) if number in own}
