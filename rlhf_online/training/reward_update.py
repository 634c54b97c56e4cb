"""Incremental training of the reward model on people's votes.

    new votes ──▶ the newest of each subject ──┐
    replayed votes ────────────────────────────┴──▶ passes (`votes.passes`) ──▶ scores normalised ──▶ measured

An update takes the new votes, mixes in replayed ones against forgetting, passes over both, measures on votes that no
update ever sees, and normalises the scores on reference answers. What nothing can be learned from is left out and
counted by reason:

    superseded    the same person judged the same answers again: the last word counts, contradictory or not
    revised       the same, after the earlier word was learned from: it is replayed in that one's place
    drifted       votes of before people began to judge otherwise (`watch.drift`): replayed and measured on no more
    single_class  thumbs, while there are only thumbs up or only thumbs down: which is better cannot be told from them
    not_finite    steps whose loss or gradient was no number: not taken
    out_of_memory steps of which memory did not suffice for a single vote: not taken either

Invariant: the same votes in the same order give the same weights; every random choice comes from the seed and the
number of the update.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from rlhf_online.errors import VersionCorrupt
from rlhf_online.events import AI, Erasure
from rlhf_online.feedback.alike import alike
from rlhf_online.feedback.erasures import stems_from
from rlhf_online.feedback.standing import Standing
from rlhf_online.feedback.votes import Comparison, Rating, Vote, is_signal, is_thumb, orders_answers, pairs, subject
from rlhf_online.models.reward import RewardModel, features
from rlhf_online.models.tokens import Pair, length
from rlhf_online.training import distributed
from rlhf_online.training.optimiser import OnStep, unseen
from rlhf_online.training.settings import RewardTraining
from rlhf_online.training.votes import label_reliability, labelled
from rlhf_online.training.votes.batch import bootstrap_weights, uniform
from rlhf_online.training.votes.evaluation import Measured, measure
from rlhf_online.training.votes.loss import reliabilities
from rlhf_online.training.votes.passes import VotePasses
from rlhf_online.training.votes.replay import HeldOut, Replay
from rlhf_online.watch.drift import DriftDetector, Surprise
from rlhf_online.watch.monitors import UNKNOWN, Reading

BASELINE_ANSWERS = 8
"""Reference answers that implicit signals are compared with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardReport:
    """What an update did. `seen` counts new and replayed votes, `truncated` the new answers whose prompt lost its
    beginning to the model's context; `loss` is the best pass's, `held_out_loss` that of held-out votes then (0 if
    they are too few), `passes` those that were kept; `signal_reliability` is that of each implicit signal, `standing`
    whose votes count otherwise than most. `learned` names the new votes that a step was taken on, `used` are these and
    the replayed ones. `drift` is what the watch on drift says."""

    seen: int
    new: int
    loss: float
    passes: int
    held_out_loss: float
    truncated: int
    skipped: dict[str, int]
    signal_reliability: dict[str, float]
    standing: Standing
    measured: Measured
    learned: frozenset[str] = frozenset()
    used: tuple[Vote, ...] = ()
    drift: Reading = UNKNOWN


class RewardUpdater:
    """Trains `model` in place. Large because all that an update of votes changes is here, in its order."""

    def __init__(
        self, model: RewardModel, settings: RewardTraining, seed: int, *, moments_on_cpu: bool = False
    ) -> None:
        """Raises NotEnoughRoom."""
        self.model = model
        self.updates = 0
        """Updates that learned from a vote."""
        self.trained_objectives: set[str] = set()
        """Objectives that votes have ordered answers by; the others score 0."""
        self._settings = settings
        self._seed = seed
        self._replay = Replay(settings.replay_capacity)
        self._held_out = HeldOut()
        self._passes = VotePasses(model, settings, moments_on_cpu=moments_on_cpu)
        self.drift = DriftDetector()

    def update(
        self,
        new: Sequence[Vote],
        held_out: Sequence[Vote],
        reference_pairs: Sequence[Pair],
        on_step: OnStep = unseen,
    ) -> RewardReport:
        """Learn from `new`; keep `held_out` (the new ones, or all again) for measuring, and never learn from it.

        Scores are normalised on `reference_pairs`, or on the answers voted on where there are fewer than two: after the
        last step all of them are read once more, and all held-out votes. `on_step` is told how far the steps have come.
        """
        with self.model.lower.kept():
            return self._update(new, held_out, reference_pairs, on_step)

    def _update(
        self, new: Sequence[Vote], held_out: Sequence[Vote], reference_pairs: Sequence[Pair], on_step: OnStep
    ) -> RewardReport:
        rng = random.Random(f"reward {self._seed} {self.updates}")
        skipped: Counter[str] = Counter()
        newest = _newest(new, self._replay, skipped)
        votes = [vote for vote in newest if not vote.revised]
        self._replay.add([vote for vote in newest if vote.revised], rng)
        skipped["revised"] += len(newest) - len(votes)
        self._held_out.add([vote for vote in _newest(held_out, self._held_out, skipped) if not is_signal(vote)])
        data = votes + self._replay.sample(round(self._settings.replay * len(votes)), rng)
        reference = reference_pairs if len(reference_pairs) >= 2 else [pair for vote in data for pair in pairs(vote)]
        baseline = rng.sample(reference, min(BASELINE_ANSWERS, len(reference))) if any(map(is_signal, data)) else []
        self._observe_signals(votes, baseline)
        self._passes.loss.new_votes.expect(vote.event_id for vote in votes)
        self._observe_labels(votes, random.Random(f"labels {self._seed} {self.updates}"))
        trainable = self._believed(_without_single_class(data, skipped))
        read = self._read(trainable)
        best = self._passes.run(
            trainable,
            baseline,
            self._people_held_out,
            epochs=self._settings.epochs if self.updates else self._settings.cold_epochs,
            first=self.updates == 0,
            rng=rng,
            skipped=skipped,
            on_step=on_step,
        )
        self._passes.let_go()
        self._replay.add(votes, rng)
        self._watch_drift(votes, skipped)
        if best.passes:
            self.updates += 1
            self.trained_objectives |= self._ordered_objectives(trainable)
        if len(reference) >= 2:
            self.model.normalise(reference, untrained=self._untrained, read=partial(_utilities, self.model))
        return RewardReport(
            seen=len(data),
            new=len(votes),
            loss=best.loss,
            passes=best.passes,
            held_out_loss=best.held_out_loss,
            truncated=sum(length(pair) > self.model.limits.context for vote in votes for pair in pairs(vote)),
            skipped=dict(+skipped),
            signal_reliability=reliabilities(self._passes.loss),
            standing=_standing(self._passes, self._replay),
            measured=self.evaluate(),
            learned=read & {vote.event_id for vote in votes} if best.passes else frozenset(),
            used=tuple(vote for vote in trainable if vote.event_id in read) if best.passes else (),
            drift=self.drift.reading(),
        )

    def forget(self, revoked: Collection[tuple[str, str]]) -> None:
        """Never replay, nor measure on, the votes of these (event id, person): their person took them back."""
        gone = set(revoked)
        for kept in (self._replay, self._held_out):
            kept.remove(lambda vote: (vote.event_id, vote.person) in gone)

    def erase(self, erased: Collection[Erasure]) -> None:
        """Never replay, nor measure on, votes on answers of these conversations, nor know who erased everything."""
        for kept in (self._replay, self._held_out):
            kept.remove(lambda vote: any(stems_from(vote, erasure) for erasure in erased))
        gone = [erasure.person for erasure in erased if erasure.whole]
        for learned in (self._passes.loss.raters, *self._passes.loss.rater_bias):
            learned.forget(gone)

    def _watch_drift(self, votes: Sequence[Vote], skipped: Counter[str]) -> None:
        """Where people judge otherwise than before, let go of what they said before. By what the first pass made of
        each vote, in the order in which they were given, which says nothing of the one in which the pass met them. A
        model that has learned nothing yet foretells nothing."""
        foretold = self._passes.loss.new_votes.foretold
        for vote in votes if self.updates else ():
            if (surprise := foretold.get(vote.event_id)) is None:
                continue
            alarm = self.drift.observe(surprise, at_ms=vote.created_ms, tie=uniform(f"{vote.event_id}/drift"))
            if alarm is not None:
                since_ms = alarm.since_ms
                for kept in (self._replay, self._held_out):
                    skipped["drifted"] += kept.remove(lambda vote, since_ms=since_ms: vote.created_ms < since_ms)
                self._passes.loss.raters.begin_anew()

    @property
    def foretold(self) -> Mapping[str, Surprise]:
        """How the new votes of the last update were foretold, by their event ids; none where it was the first one, of
        a model that knew nothing."""
        return self._passes.loss.new_votes.foretold if self.updates > 1 else {}

    @property
    def thumbs(self) -> list[Rating]:
        """People's thumbs kept for replay, those of the last update among them; none held out, no implicit signal."""
        return [vote for vote in self._replay.votes if is_thumb(vote) and not vote.by_ai]

    @property
    def comparisons(self) -> list[Comparison]:
        """People's comparisons kept for replay, those of the last update among them."""
        return [vote for vote in self._replay.votes if isinstance(vote, Comparison) and not vote.by_ai]

    def fingerprint(self) -> str:
        """Of all that an update has changed of the model: equal in processes that learned the same."""
        return distributed.fingerprint(self.model.parameters() | self.model.normalisation.tensors())

    def evaluate(self) -> Measured:
        """The model on the held-out votes."""
        return measure(self.model, self._people_held_out, self._passes.loss.rater_bias, self._seed)

    @property
    def _people_held_out(self) -> list[Vote]:
        """What the model is measured on: people's votes, unless there are others alone."""
        votes = self._held_out.votes
        return [vote for vote in votes if not vote.by_ai] or votes

    def _read(self, votes: Sequence[Vote]) -> frozenset[str]:
        """Those that a head of the ensemble reads: each reads a sample of its own."""
        return frozenset(vote.event_id for vote in votes if any(bootstrap_weights(vote.event_id, self.model.members)))

    def _believed(self, votes: Sequence[Vote]) -> list[Vote]:
        """Without those that weigh nothing: in a step they would make others' place smaller."""
        ai = self._passes.loss.label_reliability.weight(AI) > 0
        return [vote for vote in votes if ai or not vote.by_ai]

    def _ordered_objectives(self, votes: Sequence[Vote]) -> set[str]:
        """The objectives that these votes order answers by."""
        objectives = self.model.objectives
        return {objectives[vote.objective_index(objectives)] for vote in votes if orders_answers(vote)}

    def _observe_signals(self, votes: Sequence[Vote], baseline: Sequence[Pair]) -> None:
        """Compare the answers that new implicit signals came with to the baseline, before they are learned from."""
        signals = [vote for vote in votes if is_signal(vote)]
        if not signals:
            return
        utilities_NO = _utilities(self.model, [*baseline, *(pairs(vote)[0] for vote in signals)]).mean(2)
        baseline_O = utilities_NO[: len(baseline)].mean(0)
        below: dict[str, list[float]] = defaultdict(list)
        for vote, utility_O in zip(signals, utilities_NO[len(baseline) :], strict=True):
            objective = vote.objective_index(self.model.objectives)
            below[vote.signal].append((baseline_O[objective] - utility_O[objective]).item())
        for signal, values in sorted(below.items()):
            self._passes.loss.signal_reliability.observe(signal, values)

    def _observe_labels(self, votes: Sequence[Vote], rng: random.Random) -> None:
        """Compare new votes that no person gave with people's, before they are learned from, and those beside notes
        with those without."""
        self._passes.loss.raters.beside_notes.observe(votes, self._replay.votes)
        labels = [vote for vote in votes if vote.by_ai]
        if labels:
            kept = [vote for vote in self._replay.votes if not vote.by_ai]
            people = [vote for vote in votes if not vote.by_ai]
            people += rng.sample(kept, min(label_reliability.MOST, len(kept)))
            seen = partial(_rows, self.model, partial(features, self.model))
            labelled.observe(self._passes.loss.label_reliability, seen, labels, people, rng)

    @property
    def _untrained(self) -> set[str]:
        """Objectives that no vote has ordered answers by."""
        return set(self.model.objectives) - self.trained_objectives

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The model, the optimiser and all else that the next update depends on: tensors, and JSON values."""
        tensors, learned = self._passes.state()
        values = {
            "objectives": list(self.model.objectives),
            "tokenizer": self.model.tokenizer,
            "readout": self.model.readout,
            "updates": self.updates,
            "trained_objectives": sorted(self.trained_objectives),
            "replay": self._replay.to_json(),
            "held_out": self._held_out.to_json(),
            "learned": learned,
            "drift": self.drift.to_json(),
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
        if (readout := values["readout"]) != self.model.readout:
            raise VersionCorrupt(
                f"the stored reward model reads answers by {readout!r}, and reward.readout says "
                f"{self.model.readout!r}: choose the same, or start a new state"
            )
        self._passes.load_state(tensors, values["learned"])
        self.updates = values["updates"]
        self._replay.load_json(values["replay"])
        self._held_out.load_json(values["held_out"])
        self.trained_objectives = set(values["trained_objectives"])
        if "drift" in values:  # which earlier releases did not watch
            self.drift.load_json(values["drift"])


def _utilities(model: RewardModel, answers: Sequence[Pair]) -> Tensor:
    """`model.utilities`, each process computing a share."""
    return _rows(model, model.utilities, answers)


def _rows(model: RewardModel, compute: Callable[[Sequence[Pair]], Tensor], answers: Sequence[Pair]) -> Tensor:
    """`compute(answers)`, of what `model` says, each process computing a share."""
    with model.shards.gathered():
        return distributed.rows(answers, compute, "reading answers")


def _standing(passes: VotePasses, replay: Replay) -> Standing:
    raters, doubted = passes.loss.raters, passes.loss.raters.doubted()
    capped = {vote.person for vote in replay.votes if vote.event_id in passes.capped}
    return Standing(
        believed=len(raters) - len(doubted),
        doubted=doubted,
        capped=tuple(sorted(capped)),
        alike=tuple(alike(replay.votes)),
    )


def _newest(votes: Sequence[Vote], kept: Replay | HeldOut, skipped: Counter[str]) -> list[Vote]:
    """Each person's last word on the same answers; what they said before is let go of, here and in `kept`."""
    last = {subject(vote): vote.event_id for vote in votes if vote.person}

    def superseded(vote: Vote) -> bool:
        return last.get(subject(vote), vote.event_id) != vote.event_id

    newest = [vote for vote in votes if not superseded(vote)]
    skipped["superseded"] += len(votes) - len(newest) + kept.remove(superseded)
    return newest


def _without_single_class(votes: Sequence[Vote], skipped: Counter[str]) -> list[Vote]:
    """All but the thumbs of an objective that has only thumbs up, or only thumbs down."""
    classes: dict[str, set[bool]] = defaultdict(set)
    for vote in votes:
        if is_thumb(vote):
            classes[vote.objective].add(vote.up)
    single = {objective for objective, ups in classes.items() if len(ups) == 1}
    trainable = [vote for vote in votes if not (is_thumb(vote) and vote.objective in single)]
    skipped["single_class"] += len(votes) - len(trainable)
    return trainable
