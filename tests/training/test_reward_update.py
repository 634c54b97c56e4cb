"""The reward updater: it learns each kind of feedback, keeps held-out votes apart, repeats itself, and comes back."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from rlhf_online.config import RewardTraining
from rlhf_online.feedback.preferences import Candidate, Comparison, Preference, Rating
from rlhf_online.models.reward import RewardModel
from rlhf_online.models.tokens import ChatTokenizer
from rlhf_online.simulation.tiny_model import write_tiny_model
from rlhf_online.training import reward_update
from rlhf_online.training.reward_update import RewardUpdater

GOOD, BAD, END = 20, 40, 2


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny_model(folder, weights_seed=3)
    return folder


def _updater(base: Path, seed: int = 0, **settings: object) -> RewardUpdater:
    model = RewardModel.load(base, tuning="full", heads=3, seed=seed)
    values = {"heads": 3, "batch": 16, "lr": 3e-3} | settings
    return RewardUpdater(model, ChatTokenizer(base), RewardTraining.model_validate(values), seed)


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
        candidates=tuple(Candidate(token_ids=_answer(good, rng), slot=slot) for slot, good in enumerate(goods)),
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
def test_each_kind_of_feedback_teaches_what_is_better(base: Path, make: Callable[[int], Preference], least: float):
    """A thumb says only whether it is at least 2 of 3 good words, so less about the order."""
    updater = _updater(base)
    report = updater.update([make(i) for i in range(160)], [_ranking(i, "h") for i in range(20)], _probe_pairs())
    scores = _scores(updater)
    assert min(scores[2:]) - max(scores[:2]) > 0.5 and scores[3] - scores[0] > 1.5
    assert report.measured.accuracy >= least and report.measured.accuracy_n == 60
    assert report.seen == report.new == 160 and report.passes == 3 and not report.skipped


def test_scores_are_normalised_on_the_reference(base: Path):
    updater = _updater(base)
    updater.update([_ranking(i) for i in range(32)], [], _probe_pairs())
    scores = torch.tensor(_scores(updater))
    assert scores.mean().item() == pytest.approx(0, abs=1e-4)
    assert scores.std(unbiased=False).item() == pytest.approx(1, abs=1e-3)


def test_held_out_votes_are_measured_and_never_learned(base: Path):
    held_out: list[Preference] = [*(_ranking(i, "h") for i in range(20)), *(_thumb(i, "ht") for i in range(10))]
    with_them, without = _updater(base), _updater(base)
    report = with_them.update([_ranking(i) for i in range(32)], held_out, _probe_pairs())
    without.update([_ranking(i) for i in range(32)], [], _probe_pairs())
    assert (report.measured.accuracy_n, report.measured.thumb_n) == (60, 10)
    again = with_them.update([_ranking(99)], held_out, _probe_pairs())
    assert again.measured.accuracy_n == 60 and not again.skipped, "the same votes count once"
    without.update([_ranking(99)], [], _probe_pairs())
    one, two = with_them.model.state(), without.model.state()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_replay_is_mixed_in_and_bounded(base: Path):
    updater = _updater(base, replay=2.0, replay_capacity=20, epochs=1, cold_epochs=1)
    assert updater.update([_pair(i) for i in range(30)], [], []).seen == 30
    assert updater.update([_pair(i) for i in range(100, 105)], [], []).seen == 15
    assert len(updater.state()[1]["replay"]) == 20


def test_the_first_update_takes_more_passes(base: Path, monkeypatch: pytest.MonkeyPatch):
    updater = _updater(base, replay=0.0, epochs=2, cold_epochs=5)
    steps: list[float] = []
    step = updater._adam.step
    monkeypatch.setattr(updater._adam, "step", lambda scale: (steps.append(scale), step(scale)))
    updater.update([_pair(i) for i in range(32)], [], [])
    assert len(steps) == 10
    updater.update([_pair(i) for i in range(32, 64)], [], [])
    assert len(steps) == 14
    assert steps[0] == 1 and steps[9] < 0.2 and steps[10] == 1


def test_a_slot_that_people_favour_is_no_quality(base: Path):
    """Everybody prefers whatever stands first, half of the time good and half of the time bad."""
    votes = []
    for index in range(200):
        pair = _pair(index)
        chosen = index % 2 == 0
        first, second = (_answer(3, random.Random(index)), _answer(0, random.Random(index)))
        candidates = (first, second) if chosen else (second, first)
        shown = tuple(Candidate(token_ids=ids, slot=slot) for slot, ids in enumerate(candidates))
        votes.append(
            Comparison(
                event_id=f"s{index}",
                conversation_id="c",
                person="p",
                prompt_token_ids=pair.prompt_token_ids,
                candidates=shown,
                tiers=((0,), (1,)),
            )
        )
    updater = _updater(base, lr=1e-2, cold_epochs=20)
    updater.update(votes, [], [])
    slots = updater.state()[1]["learned"]["slots"]
    assert slots[0] - slots[1] > 0.5 and not any(slots[2:])
    low, *_, high = updater.model.utilities(_probe_pairs())[:, 0].mean(1).tolist()
    assert abs(high - low) < slots[0] - slots[1]


def test_micro_batches_give_the_gradient_of_the_whole(base: Path, monkeypatch: pytest.MonkeyPatch):
    votes = [_ranking(i) for i in range(6)] + [_pair(i) for i in range(5)]
    whole, pieces = _updater(base, cold_epochs=1), _updater(base, cold_epochs=1)
    whole.update(votes, [], [])
    monkeypatch.setattr(reward_update, "MICRO_BATCH_TOKENS", 40)
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
    first: list[Preference] = [_ranking(i) for i in range(20)] + [_thumb(i) for i in range(20)]
    updater.update(first, [_ranking(1, "h")], _probe_pairs())
    tensors, values = updater.state()
    again = _updater(base, seed=0)
    again.load_state(tensors, json.loads(json.dumps(values)))
    second = [_ranking(i) for i in range(20, 40)]
    assert updater.update(second, [], _probe_pairs()) == again.update(second, [], _probe_pairs())
    one, two = updater.state(), again.state()
    assert all(torch.equal(one[0][name], two[0][name]) for name in one[0])
    assert json.dumps(one[1]) == json.dumps(two[1])
