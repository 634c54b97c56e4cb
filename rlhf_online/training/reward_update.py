"""Incremental training of the reward model on people's votes.

An update takes the new votes, mixes in replayed ones against forgetting, passes over both, measures on votes that no
update ever sees, and normalises the scores on reference answers. It stops early where more passes make the held-out
votes less likely, and goes back to the weights under which they were most likely. All answers of a vote stay in one
optimiser step. What nothing can be learned from is left out and counted by reason:

    superseded   the same person judged the same answers again: the last word counts, contradictory or not
    one_class    thumbs, while there are only thumbs up or only thumbs down: which is better cannot be told from them
    not_finite   steps whose loss or gradient was no number: not taken

Invariant: the same votes in the same order give the same weights; every random choice comes from the seed and the
number of the update.
"""

import math
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rlhf_online.errors import VersionCorrupt
from rlhf_online.feedback.preferences import Preference
from rlhf_online.models import trunk
from rlhf_online.models.reward import RewardModel
from rlhf_online.models.tokens import ChatTokenizer, Pair, length
from rlhf_online.training.optimiser import NamedAdam
from rlhf_online.training.settings import RewardTraining
from rlhf_online.training.votes.evaluation import Measured, measure
from rlhf_online.training.votes.loss import Thumbs, VoteLoss, count_thumbs
from rlhf_online.training.votes.replay import HeldOut, Replay
from rlhf_online.training.votes.vote import Vote, assemble, to_vote

SLOT_RIDGE = 0.01
WARMUP = 0.1
"""Share of the first update's steps in which the learning rate rises."""
MICRO_BATCH_TOKENS = 8192
TYPICAL = 8
"""Reference answers that implicit signals are compared with."""
LEAST_HELD_OUT = 50
"""Held-out votes, comparisons and thumbs, below which an update is not stopped early: their loss says too little."""
PATIENCE = 2
"""Passes that may bring nothing before an update is stopped."""
MOST_HELD_OUT = 500
"""The newest of them that the passes of an update are compared on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardReport:
    """What an update did. `seen` counts new and replayed votes, `cut` the new answers whose prompt lost its beginning
    to the model's context; `loss` is the last kept pass's, `held_out_loss` that of held-out votes then (0 if they are
    too few), `passes` those that were kept; `reliability` is that of each implicit signal."""

    seen: int
    new: int
    loss: float
    passes: int
    held_out_loss: float
    cut: int
    skipped: dict[str, int]
    reliability: dict[str, float]
    measured: Measured


class RewardUpdater:
    """Trains `model` in place."""

    def __init__(self, model: RewardModel, tokenizer: ChatTokenizer, settings: RewardTraining, seed: int) -> None:
        self.model = model
        self.updates = 0
        """Updates that learned from a vote."""
        self.taught: set[str] = set()
        """Objectives that votes have ordered answers by; the others score 0."""
        self._tokenizer = tokenizer
        self._settings = settings
        self._seed = seed
        self._replay = Replay(settings.replay_capacity)
        self._held_out = HeldOut()
        self._loss = VoteLoss(model, settings.centring)
        parameters = model.parameters() | {"slots": self._loss.slots_S}
        self._adam = NamedAdam(parameters, betas=(0.9, 0.999), eps=1e-8)

    def update(
        self, new: Sequence[Preference], held_out: Sequence[Preference], reference_pairs: Sequence[Pair]
    ) -> RewardReport:
        """Learn from `new`; keep `held_out` (the new ones, or all again) for measuring, and never learn from it.

        Scores are normalised on `reference_pairs`, or on the answers voted on where there are fewer than two.
        """
        rng = random.Random(f"reward {self._seed} {self.updates}")
        skipped: Counter[str] = Counter()
        votes = self._newest([to_vote(preference, self._tokenizer) for preference in new], self._replay, skipped)
        kept = [to_vote(preference, self._tokenizer) for preference in held_out]
        self._held_out.add([vote for vote in self._newest(kept, self._held_out, skipped) if not vote.signal])
        data = votes + self._replay.sample(round(self._settings.replay * len(votes)), rng)
        reference = list(reference_pairs)
        if len(reference) < 2:
            reference = [pair for vote in data for pair in vote.pairs()]
        typical = rng.sample(reference, min(TYPICAL, len(reference))) if any(vote.signal for vote in data) else []
        self._judge_signals(votes, typical)
        epochs = self._settings.epochs if self.updates else self._settings.cold_epochs
        taught = self._teachable(data, skipped)
        loss, held_out_loss, passes = self._train(taught, typical, epochs, rng, skipped)
        self._replay.add(votes, rng)
        if passes:
            self.updates += 1
            self.taught |= self._ordered(taught)
        if len(reference) >= 2:
            self.model.normalise(reference, silent=set(self.model.objectives) - self.taught)
        return RewardReport(
            seen=len(data),
            new=len(votes),
            loss=loss,
            passes=passes,
            held_out_loss=held_out_loss,
            cut=sum(length(pair) > self.model.context for vote in votes for pair in vote.pairs()),
            skipped=dict(+skipped),
            reliability=self._loss.reliability.figures(),
            measured=self.evaluate(),
        )

    def forget(self, revoked: Collection[tuple[str, str]]) -> None:
        """Never replay, nor measure on, the votes of these (event id, person): their person took them back."""
        gone = set(revoked)
        for kept in (self._replay, self._held_out):
            kept.remove(lambda vote: (vote.event_id, vote.person) in gone)

    @property
    def thumbs(self) -> list[Vote]:
        """People's thumbs kept for replay, those of the last update among them; none held out, no implicit signal."""
        return [vote for vote in self._replay.votes if vote.up is not None and not vote.signal]

    # What is learned from

    def _newest(self, votes: Sequence[Vote], kept: Replay | HeldOut, skipped: Counter[str]) -> list[Vote]:
        """Each person's last word on the same answers; what they said before is let go of, here and in `kept`."""
        last = {vote.about: vote.event_id for vote in votes if vote.person}

        def superseded(vote: Vote) -> bool:
            return last.get(vote.about, vote.event_id) != vote.event_id

        newest = [vote for vote in votes if not superseded(vote)]
        skipped["superseded"] += len(votes) - len(newest) + kept.remove(superseded)
        return newest

    def _teachable(self, data: Sequence[Vote], skipped: Counter[str]) -> list[Vote]:
        """All but the thumbs of an objective that has them of one class only."""
        classes: dict[str, set[bool]] = defaultdict(set)
        for vote in data:
            if vote.up is not None and not vote.signal:
                classes[vote.objective].add(vote.up)
        lone = {objective for objective, ups in classes.items() if len(ups) == 1}
        taught = [vote for vote in data if vote.up is None or vote.signal or vote.objective not in lone]
        skipped["one_class"] += len(data) - len(taught)
        return taught

    def _ordered(self, votes: Sequence[Vote]) -> set[str]:
        """The objectives that these votes order answers by."""
        objectives = self.model.objectives
        return {objectives[vote.objective_of(objectives)] for vote in votes if vote.orders}

    def _judge_signals(self, votes: Sequence[Vote], typical: Sequence[Pair]) -> None:
        """Compare the answers that new implicit signals came with to typical ones, before they are learned from."""
        signals = [vote for vote in votes if vote.signal]
        if not signals:
            return
        utilities_NO = self.model.utilities([*typical, *(vote.pairs()[0] for vote in signals)]).mean(2)
        typical_O = utilities_NO[: len(typical)].mean(0)
        below: dict[str, list[float]] = defaultdict(list)
        for vote, utility_O in zip(signals, utilities_NO[len(typical) :], strict=True):
            objective = vote.objective_of(self.model.objectives)
            below[vote.signal].append((typical_O[objective] - utility_O[objective]).item())
        for signal, values in sorted(below.items()):
            self._loss.reliability.observe(signal, values)

    # Learning

    def _rate(self, done: int, steps: int) -> float:
        """The learning rate's factor: falling to a tenth, and rising first where Adam's moments are young: its first
        steps are as long as any, in directions that single batches give, and would spoil what the trunk knows."""
        warmup = 0 if self.updates else round(WARMUP * steps)
        return (1 - 0.9 * done / steps) * min(1.0, (done + 1) / max(1, warmup))

    def _train(
        self, data: list[Vote], typical: Sequence[Pair], epochs: int, rng: random.Random, skipped: Counter[str]
    ) -> tuple[float, float, int]:
        """Up to `epochs` passes over the votes.

        Returns the kept pass's mean loss, its loss on held-out votes, and its number, 0 if no step was taken.
        """
        thumbs = count_thumbs(data, self.model.objectives)
        size = self._settings.batch
        steps, done = epochs * math.ceil(len(data) / size), 0
        kept: tuple[float, float, int] = (0.0, 0.0, 0)
        restore: Callable[[], None] | None = None
        watched = self._held_out.votes[-MOST_HELD_OUT:]
        if len(watched) < LEAST_HELD_OUT:
            watched = []
        learned = 0.0
        for number in range(1, epochs + 1 if data else 1):
            rng.shuffle(data)
            loss = weight = 0.0
            for start in range(0, len(data), size):
                part = data[start : start + size]
                batch_loss, batch_weight = self._step(part, typical, thumbs, self._rate(done, steps), skipped)
                loss, weight, done = loss + batch_loss, weight + batch_weight, done + 1
            learned += weight
            found = self._likelihood(watched) if watched else 0.0
            if restore is None or found < kept[1] or math.isnan(kept[1]):
                kept = loss / max(weight, 1e-8), found, number
                restore = self._snapshot() if watched and number < epochs else None
            elif number == epochs or number - kept[2] == PATIENCE:
                restore()
                break
        return kept if learned else (0.0, kept[1], 0)

    def _step(
        self, votes: Sequence[Vote], typical: Sequence[Pair], thumbs: Thumbs, scale: float, skipped: Counter[str]
    ) -> tuple[float, float]:
        """One optimiser step, in micro-batches of whole votes; the summed loss and its weight."""
        heads, objectives = self.model.members, self.model.objectives
        pieces = [assemble(piece, heads, objectives) for piece in self._micro_batches(votes, typical)]
        denominator = sum(piece.weight() for piece in pieces)
        if denominator == 0:
            return 0.0, 0.0
        self._adam.zero_grad()
        total = 0.0
        for piece in pieces:
            loss = self._loss(piece, typical, denominator, thumbs)
            loss.backward()
            total += loss.item()
        (SLOT_RIDGE * self._loss.slots_S.square().sum()).backward()
        if not math.isfinite(total) or not math.isfinite(self._adam.clip(1.0)):
            skipped["not_finite"] += 1
            return 0.0, 0.0
        self._adam.step(self._settings.lr * scale)
        return total * denominator, denominator

    @torch.no_grad()
    def _likelihood(self, votes: Sequence[Vote]) -> float:
        """Mean loss of votes, all heads reading all of them; nothing is learned."""
        heads, objectives = self.model.members, self.model.objectives
        batches = [assemble(part, heads, objectives, bootstrap=False) for part in self._micro_batches(votes, ())]
        denominator = sum(batch.weight() for batch in batches)
        return sum(self._loss(batch, (), denominator).item() for batch in batches)

    def _micro_batches(self, votes: Sequence[Vote], typical: Sequence[Pair]) -> list[list[Vote]]:
        """Whole votes; where there are implicit signals, with room for the answers that they are compared with."""
        beside = len(typical) if any(vote.signal for vote in votes) else 0
        limit = self.model.token_budget(MICRO_BATCH_TOKENS)
        pieces: list[list[Vote]] = [[]]
        rows, widest = beside, max(map(length, typical), default=0) if beside else 0
        begin = rows, widest
        for vote in votes:
            width = max(length(pair) for pair in vote.pairs())
            if pieces[-1] and (rows + len(vote.answers)) * max(widest, width) > limit:
                pieces.append([])
                rows, widest = begin
            pieces[-1].append(vote)
            rows, widest = rows + len(vote.answers), max(widest, width)
        return pieces

    def evaluate(self) -> Measured:
        """The model on the held-out votes."""
        return measure(self.model, self._held_out.votes, self._loss.intercepts, self._seed)

    # Keeping

    def _snapshot(self) -> Callable[[], None]:
        """Copies of all that learns; calling it puts them back."""
        tensors, values = self.model.state() | trunk.named("adam", self._adam.state()), self._loss.to_json()
        return lambda: self._load(tensors, values)

    def _load(self, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        self.model.load_state(tensors)
        self._adam.load_state(trunk.unnamed("adam", tensors))
        self._loss.load_json(values)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The model, the optimiser and all else that the next update depends on: tensors, and JSON values."""
        tensors = self.model.state() | trunk.named("adam", self._adam.state())
        values = {
            "objectives": list(self.model.objectives),
            "tokenizer": self.model.tokenizer,
            "readout": self.model.readout,
            "updates": self.updates,
            "taught": sorted(self.taught),
            "replay": self._replay.to_json(),
            "held_out": self._held_out.to_json(),
            "learned": self._loss.to_json(),
        }
        return tensors, values

    def load_state(self, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        """Put back what `state` gave.

        Raises VersionCorrupt for a state of other objectives, another tokenizer, readout or model.
        """
        if (stored := list(values["objectives"])) != list(self.model.objectives):
            raise VersionCorrupt(
                f"the stored reward model has the objectives {', '.join(stored)}, and reward.objectives says "
                f"{', '.join(self.model.objectives)}: name the same, in their order, or start a new state"
            )
        if values["tokenizer"] != self.model.tokenizer:
            raise VersionCorrupt(
                "the stored votes are in the tokens of another tokenizer: use its model, or a new state"
            )
        if (readout := values.get("readout", "last")) != self.model.readout:
            raise VersionCorrupt(
                f"the stored reward model reads answers by {readout!r}, and reward.readout says "
                f"{self.model.readout!r}: choose the same, or start a new state"
            )
        self._load(tensors, values["learned"])
        self.updates = values["updates"]
        self._replay.load_json(values["replay"])
        self._held_out.load_json(values["held_out"])
        self.taught = set(values["taught"]) if "taught" in values else self._ordered(self._replay.votes)
