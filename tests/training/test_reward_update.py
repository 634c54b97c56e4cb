"""The reward updater: it learns each kind of feedback, keeps held-out votes apart, repeats itself, and comes back."""

import json
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rlhf_online.algorithms.reward_losses import MARGINS
from rlhf_online.errors import VersionCorrupt
from rlhf_online.events import Erasure
from rlhf_online.feedback.votes import Candidate, Comparison, Rating, Vote, pairs
from rlhf_online.models.packing import Packed
from rlhf_online.models.reward import Heads, RewardModel
from rlhf_online.rewards import compose
from rlhf_online.simulation.tiny_model import write_tiny_model
from rlhf_online.training.optimiser import NamedAdam
from rlhf_online.training.reward_update import RewardUpdater
from rlhf_online.training.settings import RewardTraining
from rlhf_online.training.votes import passes
from rlhf_online.training.votes.batch import bootstrap_weights
from rlhf_online.training.votes.foretelling import foretell
from rlhf_online.training.votes.passes import MIN_HELD_OUT, VotePasses
from rlhf_online.training.votes.raters import Raters
from rlhf_online.watch.drift import DriftDetector, Surprise

GOOD, BAD, END = 20, 40, 2


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny_model(folder, weights_seed=3)
    return folder


LR = 3e-3


def _updater(base: Path, seed: int = 0, **values: object) -> RewardUpdater:
    settings = RewardTraining.model_validate({"heads": 3, "batch": 16, "lr": LR} | values)
    model = RewardModel.load(
        base, tuning="full", heads=Heads(objectives=settings.objectives, members=3, readout=settings.readout), seed=seed
    )
    return RewardUpdater(model, settings, seed)


def _answer(good: int, rng: random.Random) -> tuple[int, ...]:
    """Three words, `good` of them GOOD: the more the better."""
    words = [GOOD] * good + [BAD] * (3 - good)
    rng.shuffle(words)
    return (*words, END)


def _ranking(index: int, tag: str = "r") -> Comparison:
    rng = random.Random(f"{tag} {index}")
    goods = rng.sample(range(4), 3)
    tiers = [[i for i, g in enumerate(goods) if g == value] for value in sorted(set(goods), reverse=True)]
    return Comparison(
        event_id=f"{tag}-{index}",
        conversation_id=f"c{index}",
        person=f"p{index % 5}",
        prompt_token_ids=(1, 10 + index % 7, 3),
        candidates=tuple(Candidate(token_ids=_answer(good, rng), position=place) for place, good in enumerate(goods)),
        tiers=tuple(map(tuple, tiers)),
    )


def _pair(index: int, tag: str = "d") -> Comparison:
    rng = random.Random(f"{tag} {index}")
    a, b = rng.sample(range(4), 2)
    return Comparison(
        event_id=f"{tag}-{index}",
        conversation_id=f"c{index}",
        person="p",
        prompt_token_ids=(1, 10 + index % 7, 3),
        candidates=(Candidate(token_ids=_answer(a, rng)), Candidate(token_ids=_answer(b, rng))),
        tiers=((0,), (1,)) if a > b else ((1,), (0,)),
        strength=min(3, abs(a - b)),
    )


def _thumb(index: int, tag: str = "t") -> Rating:
    rng = random.Random(f"{tag} {index}")
    good = rng.randrange(4)
    return Rating(
        event_id=f"{tag}-{index}",
        conversation_id=f"c{index}",
        person=f"p{index % 5}",
        prompt_token_ids=(1, 10 + index % 7, 3),
        candidate=Candidate(token_ids=_answer(good, rng)),
        up=good >= 2,
    )


def _probe_pairs() -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    return [((1, 12, 3), _answer(good, random.Random(7))) for good in range(4)]


def _scores(updater: RewardUpdater) -> list[float]:
    return updater.model.scores(_probe_pairs())[:, 0].mean(1).tolist()


@pytest.mark.parametrize(("make", "least"), [(_ranking, 0.95), (_pair, 0.95), (_thumb, 0.7)])
def test_each_kind_of_feedback_teaches_what_is_better(base: Path, make: Callable[[int], Vote], least: float):
    """A thumb says only whether it is at least 2 of 3 good words, so less about the order."""
    updater = _updater(base)
    report = updater.update([make(i) for i in range(160)], [_ranking(i, "h") for i in range(20)], _probe_pairs())
    scores = _scores(updater)
    assert min(scores[2:]) - max(scores[:2]) > 0.5 and scores[3] - scores[0] > 1.5
    assert report.measured.accuracy >= least and report.measured.accuracy_n == 60
    assert report.seen == report.new == 160 and report.passes == 4 and not report.skipped


def test_scores_are_normalised_on_the_reference(base: Path):
    updater = _updater(base)
    updater.update([_ranking(i) for i in range(32)], [], _probe_pairs())
    scores = torch.tensor(_scores(updater))
    assert scores.mean().item() == pytest.approx(0, abs=1e-4)
    assert scores.std(unbiased=False).item() == pytest.approx(1, abs=1e-3)


def test_held_out_votes_are_measured_and_never_learned(base: Path):
    held_out: list[Vote] = [*(_ranking(i, "h") for i in range(20)), *(_thumb(i, "ht") for i in range(10))]
    with_them, without = _updater(base), _updater(base)
    report = with_them.update([_ranking(i) for i in range(32)], held_out, _probe_pairs())
    without.update([_ranking(i) for i in range(32)], [], _probe_pairs())
    assert (report.measured.accuracy_n, report.measured.thumb_n) == (60, 10)
    again = with_them.update([_ranking(99)], held_out, _probe_pairs())
    assert again.measured.accuracy_n == 60 and not again.skipped, "the same votes count once"
    without.update([_ranking(99)], [], _probe_pairs())
    one, two = with_them.model.state(), without.model.state()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_implicit_signals_are_learned_from_and_never_measured_on(base: Path):
    """Who stops an answer has not said that it is bad: held out, a signal would count as a thumb down."""
    updater = _updater(base)
    held_out: list[Vote] = [*(_signal(i, 0, "regenerate") for i in range(30)), *(_thumb(i, "ht") for i in range(10))]
    report = updater.update([_ranking(i) for i in range(20)], held_out, _probe_pairs())
    assert report.measured.thumb_n == 10
    assert {vote["event_id"] for vote in updater.state()[1]["held_out"]} == {f"ht-{i}" for i in range(10)}


def test_a_vote_is_forgotten_for_its_own_person_alone(base: Path):
    """In the replay, and among the held-out votes: a stranger who knows its id revokes nothing."""
    updater = _updater(base)
    learned, held_out = [_thumb(i) for i in range(8)], [_thumb(i, "h") for i in range(8)]
    updater.update(learned, held_out, _probe_pairs())

    def kept() -> tuple[int, int]:
        values = updater.state()[1]
        return len(values["replay"]), len(values["held_out"])

    updater.forget([(vote.event_id, "a stranger") for vote in (*learned, *held_out)])
    updater.forget([("another vote", learned[0].person)])
    assert kept() == (8, 8)
    updater.forget([(vote.event_id, vote.person) for vote in (learned[0], held_out[3], held_out[4])])
    assert kept() == (7, 6)
    assert not {learned[0].event_id, held_out[3].event_id} & {vote.event_id for vote in updater.thumbs}


def test_the_thumbs_that_are_kept_are_peoples_own_and_none_that_is_held_out(base: Path):
    updater = _updater(base, cold_epochs=1)
    thumbs = [_thumb(i) for i in range(6)]
    votes: list[Vote] = [*thumbs, _ranking(1), _pair(1), _signal(1, 0, "stop")]
    updater.update(votes, [_thumb(i, "h") for i in range(6)], _probe_pairs())
    assert {vote.event_id for vote in updater.thumbs} == {vote.event_id for vote in thumbs}


def test_a_signal_is_observed_by_how_far_its_answer_was_below_the_baseline_before_it_was_learned(base: Path):
    """The baseline being the mean over the reference answers, where there are as few of them as it takes."""
    updater = _updater(base, cold_epochs=1, objectives=("helpful", "harmless"))
    signals = [
        replace(_signal(i, i % 2, name), objective="harmless") for i in range(3) for name in ("stop", "rephrase")
    ]
    before = updater.model.utilities([*_probe_pairs(), *(pairs(vote)[0] for vote in signals)])[:, 1].mean(1)
    updater.update(signals, [], _probe_pairs())
    seen = updater.state()[1]["learned"]["signal_reliability"]
    below = (before[:4].mean() - before[4:]).tolist()
    assert seen["stop"] == pytest.approx(below[0::2], abs=1e-4)
    assert seen["rephrase"] == pytest.approx(below[1::2], abs=1e-4)


def test_replay_is_mixed_in_and_bounded(base: Path):
    updater = _updater(base, replay=2.0, replay_capacity=20, epochs=1, cold_epochs=1)
    assert updater.update([_pair(i) for i in range(30)], [], []).seen == 30
    assert updater.update([_pair(i) for i in range(100, 105)], [], []).seen == 15
    assert len(updater.state()[1]["replay"]) == 20


def test_the_first_update_takes_more_passes(base: Path, monkeypatch: pytest.MonkeyPatch):
    updater = _updater(base, replay=0.0, epochs=2, cold_epochs=5)
    steps: list[float] = []
    step = NamedAdam.step
    monkeypatch.setattr(NamedAdam, "step", lambda self, rate: (steps.append(rate / LR), step(self, rate)))
    updater.update([_pair(i) for i in range(32)], [], [])
    assert len(steps) == 10
    updater.update([_pair(i) for i in range(32, 64)], [], [])
    assert len(steps) == 14
    assert steps[0] == pytest.approx(1) and steps[9] < 0.2 and steps[10] == pytest.approx(1)


def test_each_pass_takes_all_votes_in_an_order_of_its_own(base: Path, monkeypatch: pytest.MonkeyPatch):
    updater, seen = _updater(base, replay=0.0, cold_epochs=3), []
    cut = passes.micro_batches
    monkeypatch.setattr(
        passes,
        "micro_batches",
        lambda packer, votes, *rest: (seen.extend(vote.event_id for vote in votes), cut(packer, votes, *rest))[1],
    )
    votes = [_pair(i) for i in range(20)]
    updater.update(votes, [], [])
    orders = [seen[start : start + 20] for start in (0, 20, 40)]
    assert all(sorted(order) == sorted(vote.event_id for vote in votes) for order in orders)
    assert len({tuple(order) for order in orders} | {tuple(vote.event_id for vote in votes)}) == 4


def test_gradients_of_one_step_are_not_those_of_the_next(base: Path, monkeypatch: pytest.MonkeyPatch):
    """On the same votes, and with weights that stay, they are all of one length."""
    norms: list[float] = []
    clip = NamedAdam.clip
    monkeypatch.setattr(NamedAdam, "clip", lambda self, most: norms.append(clip(self, most)) or norms[-1])
    _updater(base, lr=1e-12, cold_epochs=3).update([_pair(i) for i in range(16)], [], [])
    assert norms == pytest.approx([norms[0]] * 3, rel=1e-3)


def test_how_far_an_update_has_come_is_told_as_it_learns(base: Path):
    """Of 4 passes over 32 votes in batches of 16; one that stops early has said how many it would make at most."""
    updater, told = _updater(base, cold_epochs=4), []
    updater.update([_pair(i) for i in range(32)], [], [], lambda done, of: told.append((done, of)))
    assert told == [(done, 8) for done in range(9)]
    told.clear()
    updater.update([], [], [], lambda done, of: told.append((done, of)))
    assert told == [(0, 0)]


def test_the_first_updates_learning_rate_rises_before_it_falls(base: Path, monkeypatch: pytest.MonkeyPatch):
    updater = _updater(base, replay=0.0, batch=1, epochs=1, cold_epochs=1)
    steps: list[float] = []
    step = NamedAdam.step
    monkeypatch.setattr(NamedAdam, "step", lambda self, rate: (steps.append(rate / LR), step(self, rate)))
    for _ in range(2):
        updater.update([_pair(i) for i in range(40)], [], [])
    cold, warm = steps[:40], steps[40:]
    assert cold[0] == pytest.approx(0.25) and cold[3] == max(cold) == pytest.approx(1 - 0.9 * 3 / 40)
    assert warm[0] == pytest.approx(1) and cold[4:] == warm[4:]


def test_a_position_that_people_favour_is_no_quality(base: Path):
    """Everybody prefers whatever stands first, half of the time good and half of the time bad."""
    votes = []
    for index in range(200):
        pair = _pair(index)
        chosen = index % 2 == 0
        first, second = (_answer(3, random.Random(index)), _answer(0, random.Random(index)))
        candidates = (first, second) if chosen else (second, first)
        shown = tuple(Candidate(token_ids=ids, position=place) for place, ids in enumerate(candidates))
        votes.append(
            Comparison(
                event_id=f"s{index}",
                conversation_id=f"c{index}",
                person="p",
                prompt_token_ids=pair.prompt_token_ids,
                candidates=shown,
                tiers=((0,), (1,)),
            )
        )
    updater = _updater(base, lr=1e-2, cold_epochs=20)
    updater.update(votes, [], [])
    bias = updater.state()[1]["learned"]["position_bias"]
    assert bias[0] - bias[1] > 0.5 and not any(bias[2:])
    assert len(bias) == 16, "as many as a stored state holds"
    low, *_, high = updater.model.utilities(_probe_pairs())[:, 0].mean(1).tolist()
    assert abs(high - low) < bias[0] - bias[1]


def test_micro_batches_give_the_gradient_of_the_whole(base: Path, monkeypatch: pytest.MonkeyPatch):
    votes = [_ranking(i) for i in range(6)] + [_pair(i) for i in range(5)]
    whole, pieces = _updater(base, cold_epochs=1), _updater(base, cold_epochs=1)
    whole.update(votes, [], [])
    monkeypatch.setattr(passes, "MICRO_BATCH_TOKENS", 40)
    pieces.update(votes, [], [])
    exp_avg = {name: tensor for name, tensor in whole.state()[0].items() if name.startswith("adam.exp_avg.")}
    assert len(exp_avg) > 10
    for name, tensor in exp_avg.items():
        assert torch.allclose(tensor, pieces.state()[0][name], atol=1e-6)


def test_the_same_votes_give_the_same_weights_whatever_torchs_generator(base: Path):
    states = []
    for salt in (1, 2):
        torch.manual_seed(salt)
        updater = _updater(base)
        updater.update([_ranking(i) for i in range(20)] + [_thumb(i) for i in range(20)], [], _probe_pairs())
        states.append(updater.state())
    assert all(torch.equal(states[0][0][name], states[1][0][name]) for name in states[0][0])
    assert states[0][1] == states[1][1]


def test_a_restored_updater_goes_on_as_if_nothing_had_happened(base: Path):
    updater = _updater(base)
    first: list[Vote] = [_ranking(i) for i in range(20)] + [_thumb(i) for i in range(20)]
    updater.update(first, [_ranking(1, "h")], _probe_pairs())
    tensors, values = updater.state()
    again = _updater(base, seed=0)
    again.load_state(tensors, json.loads(json.dumps(values)))
    second = [_ranking(i) for i in range(20, 40)]
    assert updater.update(second, [], _probe_pairs()) == again.update(second, [], _probe_pairs())
    one, two = updater.state(), again.state()
    assert all(torch.equal(one[0][name], two[0][name]) for name in one[0])
    assert json.dumps(one[1]) == json.dumps(two[1])


# Several objectives, implicit signals, and how sure a person is


def _about(preference: Vote, objective: str) -> Vote:
    return replace(preference, event_id=f"{objective} {preference.event_id}", objective=objective)


def _upside_down(comparison: Comparison) -> Comparison:
    return replace(comparison, tiers=comparison.tiers[::-1])


def test_each_objective_learns_from_its_own_votes(base: Path):
    updater = _updater(base, objectives=("helpful", "harmless"))
    votes: list[Vote] = [_ranking(i) for i in range(120)]  # that name none are about the first
    votes += [_about(_upside_down(_ranking(i)), "harmless") for i in range(120, 240)]
    held_out: list[Vote] = [_ranking(i, "h") for i in range(10)]
    held_out += [_about(_upside_down(_ranking(i, "h")), "harmless") for i in range(10, 20)]
    report = updater.update(votes, held_out, _probe_pairs())
    helpful, harmless = updater.model.scores(_probe_pairs()).mean(2).T.tolist()
    assert helpful[3] - helpful[0] > 1.5 and harmless[0] - harmless[3] > 1.5
    assert updater.model.correlation_OO[0, 1] < -0.9
    assert set(report.measured.objectives) == {"helpful", "harmless"}
    assert min(report.measured.objectives.values()) > 0.9
    assert report.measured.figures()["accuracy/harmless"] == report.measured.objectives["harmless"]


def _signal(index: int, good: int, signal: str) -> Rating:
    answer = Candidate(token_ids=_answer(good, random.Random(f"{signal} {index}")))
    named = replace(_thumb(index), event_id=f"{signal}{index}", conversation_id=f"{signal}{index}")
    return replace(named, candidate=answer, up=False, signal=signal)


def test_a_signal_is_believed_as_far_as_it_agrees_with_the_votes(base: Path):
    """People regenerate what is bad and stop anything; both are seen before they are learned from."""
    updater, without = _updater(base), _updater(base)
    updater.update([_ranking(i) for i in range(120)], [], _probe_pairs())
    signals: list[Vote] = [_signal(i, i % 2, "regenerate") for i in range(60)]
    signals += [_signal(i, i % 4, "stop") for i in range(60)]
    report = updater.update(signals, [], _probe_pairs())
    assert report.signal_reliability["regenerate"] > 0.6 and report.signal_reliability["stop"] < 0.4
    scores = _scores(updater)
    assert scores[3] - scores[0] > 1.5, "what the votes said holds"
    without.update([_signal(i, i % 2, "regenerate") for i in range(200)], [], _probe_pairs())
    assert without.state()[1]["learned"]["rater_bias"] == [[0.0, {}]], "no thumb is taken for one"


def test_signals_alone_teach_a_little(base: Path):
    updater = _updater(base, cold_epochs=10)
    updater.update([_signal(i, i % 2, "regenerate") for i in range(100)], [], _probe_pairs())
    scores = _scores(updater)
    assert min(scores[2:]) > max(scores[:2])


def test_not_sure_says_less_than_about_the_same(base: Path):
    """The first update makes good words better; then some cannot tell, or say that they are about the same."""
    gaps = []
    for unsure in (False, True):
        updater = _updater(base, replay=0.0)
        updater.update([_pair(i) for i in range(120)], [], [])
        decided: list[Vote] = [_pair(i, "d2") for i in range(32)]
        undecided = [replace(_pair(i, "u"), tiers=((0, 1),), unsure=unsure, strength=0) for i in range(32)]
        updater.update(decided + undecided, [], [])
        low, *_, high = updater.model.utilities(_probe_pairs())[:, 0].mean(1).tolist()
        gaps.append(high - low)
    assert 0 < gaps[0] < gaps[1]


def test_centring_keeps_utilities_around_0(base: Path):
    levels = []
    for weight in (0.0, 1.0):
        updater = _updater(base, centring=weight)
        with torch.no_grad():
            updater.model.heads.bias.add_(3.0)
        updater.update([_ranking(i) for i in range(60)] + [_pair(i) for i in range(60)], [], [])
        levels.append(updater.model.utilities(_probe_pairs()).mean().item())
    assert levels[0] > 2 and abs(levels[1]) < 1


# Stopping early


def _watched(updater: RewardUpdater, monkeypatch: pytest.MonkeyPatch, *losses: float) -> list[Any]:
    """Let the held-out votes have these losses after the passes; returns the updater's states then, as they come."""
    states: list[Any] = []

    def mean_loss(self: VotePasses, votes: list[Vote]) -> float:
        states.append(updater.state())
        return losses[len(states) - 1]

    monkeypatch.setattr(VotePasses, "mean_loss", mean_loss)
    return states


@pytest.mark.parametrize(
    ("losses", "seen", "best"),
    [
        ((3.0, 2.0, 2.5, 2.4, 1.0), 4, 2),  # two passes brought nothing
        ((3.0, 3.5, 2.0, 2.5, 1.5), 5, 5),  # one may
        ((3.0, 2.0, 1.0, 0.5, 0.7), 5, 4),  # the last was not the best
        ((math.nan, math.nan, 2.0, math.nan, 1.5), 5, 5),
    ],
)
def test_an_update_ends_with_the_weights_under_which_held_out_votes_were_most_likely(
    base: Path, monkeypatch: pytest.MonkeyPatch, losses: tuple[float, ...], seen: int, best: int
):
    updater = _updater(base, cold_epochs=5)
    states = _watched(updater, monkeypatch, *losses)
    votes: list[Vote] = [_ranking(i) for i in range(16)] + [_thumb(i) for i in range(16)]
    report = updater.update(votes, [_ranking(i, "h") for i in range(MIN_HELD_OUT)], [])
    assert (len(states), report.passes) == (seen, best)
    assert report.held_out_loss == losses[best - 1]
    (tensors, values), (then, then_values) = updater.state(), states[best - 1]
    assert all(torch.equal(tensors[name], then[name]) for name in tensors if not name.startswith("normal."))
    assert values["learned"] == then_values["learned"]


def test_few_held_out_votes_stop_nothing(base: Path, monkeypatch: pytest.MonkeyPatch):
    updater = _updater(base, cold_epochs=4)
    states = _watched(updater, monkeypatch)
    report = updater.update([_ranking(1)], [_ranking(i, "h") for i in range(MIN_HELD_OUT - 1)], [])
    assert (report.passes, report.held_out_loss, states) == (4, 0.0, [])


def test_the_loss_of_held_out_votes_is_the_mean_over_all_heads(base: Path):
    updater = _updater(base)
    votes = [_pair(i) for i in range(3)]
    utilities_NK = updater.model.utilities([pair for vote in votes for pair in pairs(vote)])[:, 0]
    terms = []
    for row, vote in enumerate(votes):
        better = 2 * row + vote.ranks.index(0)
        delta_K = utilities_NK[better] - utilities_NK[4 * row + 1 - better]
        terms.append(torch.nn.functional.softplus(MARGINS[vote.strength] - delta_K).mean())
    assert VotePasses(updater.model, RewardTraining.model_validate({})).mean_loss(votes) == pytest.approx(
        torch.stack(terms).mean().item(), abs=1e-6
    )


# Bad input


def test_no_votes_change_nothing(base: Path):
    updater = _updater(base)
    before = updater.model.utilities(_probe_pairs())
    report = updater.update([], [], [])
    assert (report.seen, report.passes, report.loss) == (0, 0, 0.0)
    assert torch.equal(updater.model.utilities(_probe_pairs()), before)


def test_thumbs_of_single_class_alone_teach_nothing_and_the_first_update_is_still_to_come(base: Path):
    updater = _updater(base)
    before = updater.model.utilities(_probe_pairs())
    report = updater.update([replace(_thumb(i), up=True) for i in range(30)], [], _probe_pairs())
    assert (report.passes, report.skipped, updater.updates, updater.trained_objectives) == (
        0,
        {"single_class": 30},
        0,
        set(),
    )
    assert torch.equal(updater.model.utilities(_probe_pairs()), before)
    assert _scores(updater) == pytest.approx([0.0] * 4, abs=1e-9), "nothing is known, so all answers are alike"
    tensors, values = updater.state()
    again = _updater(base, seed=0)
    again.load_state(tensors, json.loads(json.dumps(values)))
    assert again.update([_ranking(i) for i in range(40)], [], _probe_pairs()).passes == 4, "those of a cold start"
    assert (again.updates, again.trained_objectives) == (1, {"helpful"})


def test_an_objective_that_no_vote_was_about_is_no_part_of_the_score(base: Path):
    updater = _updater(base, objectives=("helpful", "harmless"))
    updater.update([_ranking(i) for i in range(120)], [], _probe_pairs())
    scores_NOK, correlation_OO = updater.model.scores(_probe_pairs()), updater.model.correlation_OO
    assert not scores_NOK[:, 1].any()
    both, _ = compose.combine(scores_NOK, torch.tensor([1.0, 100.0]), correlation_OO)
    helpful, _ = compose.combine(scores_NOK, torch.tensor([1.0, 0.0]), correlation_OO)
    assert torch.allclose(both, helpful) and both.std(unbiased=False).item() == pytest.approx(1, abs=1e-3)
    weight_1d, _ = updater.model.linear(compose.coefficients(torch.ones(2), correlation_OO))
    helpful_1d, _ = updater.model.linear(compose.coefficients(torch.tensor([1.0, 0.0]), correlation_OO))
    assert torch.allclose(weight_1d, helpful_1d)
    tied = [replace(_pair(i), objective="harmless", tiers=((0, 1),), strength=0) for i in range(40)]
    updater.update(tied, [], _probe_pairs())
    assert updater.trained_objectives == {"helpful"}, "that answers are alike does not say what is better"
    updater.update([_about(_ranking(i), "harmless") for i in range(120, 240)], [], _probe_pairs())
    assert updater.model.scores(_probe_pairs())[:, 1].mean(1).std(unbiased=False).item() == pytest.approx(1, abs=1e-3)


def test_who_likes_everything_is_known_for_it(base: Path):
    """Each person's own readiness is learned beside what they judge, and told by its thumbs alone."""
    updater = _updater(base)
    thumbs = [_thumb(i) for i in range(160)]
    updater.update([replace(thumb, up=True) if thumb.person == "p0" else thumb for thumb in thumbs], [], _probe_pairs())
    _, bias = updater.state()[1]["learned"]["rater_bias"][0]
    assert set(bias) == {f"p{number}" for number in range(5)}
    assert bias["p0"] > 0.5 + max(other for person, other in bias.items() if person != "p0")
    scores = _scores(updater)
    assert min(scores[2:]) > max(scores[:2]), "its thumbs up for bad answers do not make them good ones"


@pytest.mark.parametrize("up", [True, False])
def test_thumbs_of_single_class_wait_for_the_other(base: Path, up: bool):
    alike: list[Vote] = [replace(_thumb(i), up=up) for i in range(30)]
    updater, without = _updater(base), _updater(base)
    report = updater.update([*alike, *(_ranking(i) for i in range(20))], [], _probe_pairs())
    assert report.skipped == {"single_class": 30} and report.seen == 50
    without.update([_ranking(i) for i in range(20)], [], _probe_pairs())
    assert all(math.isfinite(score) for score in _scores(updater))
    # The passes go over the same rankings in another order, so the models differ in nothing but that.
    assert updater.state()[1]["learned"]["rater_bias"] == without.state()[1]["learned"]["rater_bias"]
    other = [replace(_thumb(i), event_id=f"o{i}", up=not up) for i in range(100, 130)]
    assert not updater.update(other, [], _probe_pairs()).skipped, "the replay brings the first ones in"


def test_a_persons_last_word_on_the_same_answers_counts(base: Path):
    """Up and down on one answer, and a ranking turned round: in one update, and against the replay."""
    said: list[Vote] = [_thumb(i) for i in range(20)] + [_ranking(i) for i in range(20)]
    thumbs = [replace(_thumb(i), event_id=f"again {i}", up=not _thumb(i).up) for i in range(20)]
    rankings = [replace(_upside_down(_ranking(i)), event_id=f"again r{i}") for i in range(20)]
    together = _updater(base)
    report = together.update([*said, *thumbs, *rankings], [], _probe_pairs())
    assert report.skipped == {"superseded": 40} and report.new == 40
    later = _updater(base)
    later.update(said, [], _probe_pairs())
    assert later.update([*thumbs, *rankings], [], _probe_pairs()).skipped == {"superseded": 40}
    assert {vote["event_id"] for vote in later.state()[1]["replay"]} == {vote.event_id for vote in (*thumbs, *rankings)}


def test_a_vote_whose_predecessor_was_learned_from_takes_its_place_and_is_not_learned_as_new(base: Path):
    """However often a person votes on an answer, update after update: the weights stay, and it is replayed once."""
    updater = _updater(base)
    updater.update([*(_thumb(i) for i in range(20)), *(_ranking(i) for i in range(20))], [], _probe_pairs())
    before = {name: tensor.clone() for name, tensor in updater.model.state().items()}
    for turn in range(3):
        again = replace(_thumb(0), event_id=f"again {turn}", up=bool(turn % 2), revised=True)
        report = updater.update([again], [], _probe_pairs())
        assert (report.new, report.seen, report.passes) == (0, 0, 0)
        assert report.skipped == {"superseded": 1, "revised": 1}
    replayed = {vote["event_id"] for vote in updater.state()[1]["replay"]}
    assert "again 2" in replayed and len(replayed) == 40
    assert all(torch.equal(tensor, before[name]) for name, tensor in updater.model.state().items())


def test_strangers_and_other_conversations_are_no_contradiction(base: Path):
    thumb = replace(_thumb(1), person="")
    other = replace(_thumb(1), event_id="b", conversation_id="elsewhere", up=not thumb.up)
    nameless = replace(thumb, event_id="c", up=not thumb.up)
    assert not _updater(base).update([thumb, nameless, _thumb(1), other], [], _probe_pairs()).skipped


def test_a_step_whose_loss_is_no_number_is_not_taken(base: Path, monkeypatch: pytest.MonkeyPatch):
    updater = _updater(base, batch=8, cold_epochs=1)
    forward, calls = updater.model.forward, []

    def broken(batch: Packed) -> torch.Tensor:
        calls.append(batch)
        return forward(batch) * (float("nan") if len(calls) == 2 else 1.0)

    monkeypatch.setattr(updater.model, "forward", broken)
    report = updater.update([_thumb(i) for i in range(32)], [], _probe_pairs())
    assert report.skipped == {"not_finite": 1}
    assert math.isfinite(report.loss) and all(math.isfinite(score) for score in _scores(updater))
    assert all(math.isfinite(value) for value in updater.state()[1]["learned"]["rater_bias"][0][1].values())


def test_an_update_without_a_step_that_can_be_taken_teaches_nothing(base: Path, monkeypatch: pytest.MonkeyPatch):
    updater = _updater(base)
    forward = updater.model.forward
    monkeypatch.setattr(updater.model, "forward", lambda batch: forward(batch) * float("nan"))
    report = updater.update([_ranking(i) for i in range(32)], [], [])
    assert report.skipped == {"not_finite": 8} and report.passes == 0
    assert (updater.updates, updater.trained_objectives) == (0, set())


def test_prompts_that_are_too_long_are_cut_on_the_left_and_counted(base: Path):
    """Of a context of 128: what is cut off changes no score, and the answer stays whole."""
    updater = _updater(base, cold_epochs=1)
    long = replace(_ranking(1), prompt_token_ids=(9,) * 300 + (1, 10, 3))
    longer = replace(_ranking(2), prompt_token_ids=(8,) * 400 + (9,) * 300 + (1, 10, 3))
    assert updater.update([long, longer, _ranking(3)], [], _probe_pairs()).truncated == 6
    answer = _answer(2, random.Random(1))
    one, two = (updater.model.scores([(prompt.prompt_token_ids, answer)]) for prompt in (long, longer))
    assert torch.equal(one, two)
    assert not torch.equal(one, updater.model.scores([(long.prompt_token_ids, answer[1:])]))


def test_a_state_of_other_objectives_another_readout_or_another_tokenizer_is_refused(base: Path):
    tensors, values = _updater(base).state()
    with pytest.raises(VersionCorrupt, match=r"objectives helpful, and reward\.objectives says harmless"):
        _updater(base, objectives=("harmless",)).load_state(tensors, values)
    with pytest.raises(VersionCorrupt, match=r"answers by 'last', and reward\.readout says 'mean'"):
        _updater(base, readout="mean").load_state(tensors, values)
    with pytest.raises(VersionCorrupt, match="another tokenizer"):
        _updater(base).load_state(tensors, {**values, "tokenizer": "else"})


def _label(index: int, tag: str, *, contrary: bool) -> Comparison:
    """Of a model that knows what is better, and says that or the contrary."""
    pair = _pair(index, tag)
    tiers = pair.tiers[::-1] if contrary else pair.tiers
    return replace(pair, tiers=tiers, conversation_id=f"{tag}{index}", person="judge", by_ai=True)


def test_a_model_is_believed_as_far_as_it_agrees_with_people_and_weighs_so_much(base: Path):
    """Ten times as many labels as votes: believed by number alone, the contrary ones would turn the order around."""
    scores = {}
    for contrary in (False, True):
        updater = _updater(base)
        report = updater.update([_ranking(i) for i in range(120)], [], _probe_pairs())
        for number in range(3):
            labels: list[Vote] = [_label(i, f"l{number}", contrary=contrary) for i in range(100)]
            report = updater.update([*labels, *(_ranking(i, f"r{number}") for i in range(10))], [], _probe_pairs())
        found = _scores(updater)
        scores[contrary] = (report.signal_reliability["ai"], found[3] - found[0])
    assert scores[False][0] > 0.8 and scores[True][0] < 0.1
    assert min(scores[False][1], scores[True][1]) > 1.5, "what people said holds"


def test_what_a_model_says_that_is_not_believed_teaches_nothing(base: Path):
    """As if it had not been there: no step is another one for it."""
    without, beside = _updater(base), _updater(base)
    votes = [_ranking(i) for i in range(120)]
    without.update(votes, [], _probe_pairs())
    labels: list[Vote] = [_label(i, "l", contrary=True) for i in range(100)]
    report = beside.update([*votes, *labels], [], _probe_pairs())
    assert _scores(beside) == pytest.approx(_scores(without), abs=0.3)
    assert report.signal_reliability["ai"] < 0 and report.new == 220
    assert report.learned == {vote.event_id for vote in votes if any(bootstrap_weights(vote.event_id, 3))}


def test_who_is_misled_by_notes_is_believed_less_however_far_they_agree(base: Path):
    """Three times as many votes beside notes as without, and all of them the contrary."""
    votes: list[Vote] = []
    for vote in map(_ranking, range(80)):
        votes.append(vote)
        for who in "abc":
            noted = replace(vote, event_id=f"{vote.event_id} {who}", person=f"{vote.person}{who}")
            votes.append(replace(noted, tiers=vote.tiers[::-1], assisted=True))
    updater = _updater(base)
    report = updater.update(votes, [], _probe_pairs())
    believed = report.signal_reliability
    assert believed["assisted"] < 0.1 and believed["unassisted"] > 0.8
    assert _scores(updater)[3] - _scores(updater)[0] > 1.5, "what people said by themselves holds"
    taken_for_their_own = _updater(base)
    taken_for_their_own.update([replace(vote, assisted=False) for vote in votes], [], _probe_pairs())
    assert _scores(taken_for_their_own)[3] - _scores(taken_for_their_own)[0] < 0, "control"


def _clicked(index: int, tag: str) -> Comparison:
    """A ranking that says nothing, by somebody who clicks."""
    ranking = _ranking(index, tag)
    tiers = list(ranking.tiers)
    random.Random(f"clicks {tag} {index}").shuffle(tiers)
    return replace(ranking, event_id=f"click {tag} {index}", tiers=tuple(tiers), person="clicks")


def test_who_clicks_at_random_is_told_from_those_who_look(base: Path):
    updater = _updater(base)
    for number in range(4):
        votes = [_ranking(i, f"r{number}") for i in range(60)] + [_clicked(i, f"k{number}") for i in range(15)]
        updater.update(votes, [], _probe_pairs())
    people = updater.state()[1]["learned"]["raters"]["people"]
    odds = {person: odds for person, (odds, *_) in people.items()}
    assert odds.pop("clicks") < 0 < min(odds.values()), odds
    standing = updater.update([], [], _probe_pairs()).standing
    assert (standing.believed, standing.doubted) == (5, ("clicks",))
    updater.erase([Erasure(conversation_id="", person="clicks", erased_ms=1)])
    assert updater.update([], [], _probe_pairs()).standing.doubted == ()


def test_who_erased_everything_is_in_nothing_that_is_kept(base: Path):
    updater = _updater(base)
    updater.update([*(_ranking(i) for i in range(60)), *(_thumb(i) for i in range(60))], [], _probe_pairs())
    gone = updater.thumbs[0].person
    assert gone and f'"{gone}"' in json.dumps(updater.state()[1])
    updater.erase([Erasure(conversation_id="c", person=gone, erased_ms=1)])
    assert gone in updater.state()[1]["learned"]["rater_bias"][0][1], "one conversation is not all"
    updater.erase([Erasure(conversation_id="", person=gone, erased_ms=1)])
    learned = updater.state()[1]["learned"]
    assert f'"{gone}"' not in json.dumps(learned) and learned["rater_bias"][0][1], "others are known as before"


def test_the_reward_model_is_measured_by_people_wherever_people_have_voted(base: Path):
    labels: list[Vote] = [_label(i, "h", contrary=True) for i in range(20)]
    updater = _updater(base)
    report = updater.update([_ranking(i) for i in range(120)], [*labels, *(_pair(i, "p") for i in range(20))], [])
    assert report.measured.accuracy_n == 20 and report.measured.accuracy > 0.9
    alone = _updater(base).update([_ranking(i) for i in range(120)], labels, [])
    assert alone.measured.accuracy_n == 20 and alone.measured.accuracy < 0.1


def test_what_people_say_of_a_rule_trains_a_head_of_its_own(base: Path):
    """Sparrow's rule reward model: the rule asks for the contrary of what is helpful."""
    updater = _updater(base, objectives=("helpful", "rule:terse"))
    votes: list[Vote] = [_ranking(i) for i in range(80)]
    votes += [replace(vote, tiers=vote.tiers[::-1], objective="rule:terse") for vote in (_pair(i) for i in range(160))]
    updater.update(votes, [], _probe_pairs())
    assert updater.trained_objectives == {"helpful", "rule:terse"}
    helpful, terse = updater.model.scores(_probe_pairs()).mean(2).T.tolist()
    assert helpful[3] - helpful[0] > 1 and terse[0] - terse[3] > 1


def _given(votes: Sequence[Comparison], first_ms: int) -> list[Comparison]:
    return [replace(vote, created_ms=first_ms + number) for number, vote in enumerate(votes)]


def test_where_people_change_their_minds_what_they_said_before_is_let_go_of(base: Path):
    updater = _updater(base, epochs=1)
    before = _given([_pair(i) for i in range(600)], 1)
    held_out = _given([_pair(i, "h") for i in range(20)], 1)
    for at in range(0, 600, 100):
        report = updater.update(before[at : at + 100], held_out, _probe_pairs())
        assert ("drifted" in report.skipped, report.drift.alarm) == (False, False)
    resumed = _updater(base, epochs=1)
    resumed.load_state(*updater.state())
    now = _given([_upside_down(_pair(i, "new")) for i in range(100)], 1001)
    [report, again] = [one.update(now, [], _probe_pairs()) for one in (updater, resumed)]
    assert report.drift.alarm
    assert report.skipped["drifted"] == again.skipped["drifted"] > 500
    since_ms = float(report.drift.rows[0]["since_ms"])
    kept = [vote["created_ms"] for name in ("replay", "held_out") for vote in updater.state()[1][name]]
    assert min(kept) >= since_ms > 500
    assert not updater.state()[1]["held_out"], "how people judged before says nothing of the model now"
    assert report.standing.doubted == (), "who changed their mind is believed"


class _Told(DriftDetector):
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[int, Surprise]] = []

    def observe(self, surprise: Surprise, *, at_ms: int, tie: float) -> None:
        self.told.append((at_ms, surprise))


def test_votes_are_foretold_by_the_pass_that_learns_from_them_and_not_read_for_it(
    base: Path, monkeypatch: pytest.MonkeyPatch
):
    """By the weights before the step that they are in: of one step of all of them, or of ten votes each, of which the
    first alone takes the weights of before the update. They are told in the order in which they were given."""
    votes = _given([_pair(i, "new") for i in range(100)], 1)
    for batch in (200, 10):
        updater = _updater(base, batch=batch, epochs=2, cold_epochs=1)
        updater.update([_pair(i) for i in range(20)], [], _probe_pairs())
        before, utilities, read = _losses(updater, votes), updater.model.utilities, []
        updater.drift = watch = _Told()
        monkeypatch.setattr(
            updater.model, "utilities", lambda pairs, of=utilities, read=read: (read.extend(pairs), of(pairs))[1]
        )
        updater.update(votes, [], _probe_pairs())
        assert read == _probe_pairs(), "by which scores are normalised"
        assert [at_ms for at_ms, _ in watch.told] == [vote.created_ms for vote in votes]
        found = [surprise.loss for _, surprise in watch.told]
        if batch == 200:
            assert found == pytest.approx(before, rel=1e-3)
        else:
            assert 0 < sum(now == pytest.approx(then, rel=1e-3) for now, then in zip(found, before, strict=True)) <= 10


def _losses(updater: RewardUpdater, votes: Sequence[Comparison]) -> list[float]:
    """Of each vote, as the model foretells it now; of these people add nothing to any place."""
    raters, found = Raters(), []
    raters.load_json(updater.state()[1]["learned"]["raters"])
    for vote in votes:
        utilities = updater.model.utilities(pairs(vote))[:, 0].mean(1).tolist()
        surprise = foretell(vote, utilities, [0.0, 0.0], raters.of(vote), "helpful")
        assert surprise
        found.append(surprise.loss)
    return found


def test_a_checkpoint_of_an_earlier_release_begins_to_watch(base: Path):
    updater = _updater(base)
    updater.update([_pair(i) for i in range(40)], [], _probe_pairs())
    tensors, values = updater.state()
    del values["drift"], values["learned"]["raters"]
    resumed = _updater(base)
    resumed.load_state(tensors, values)
    assert math.isnan(resumed.update([], [], _probe_pairs()).drift.evidence)
    report = resumed.update([_ranking(i) for i in range(10)], [], _probe_pairs())
    assert report.drift.says.startswith("10 votes") and report.standing.believed == 5
