"""The loss of a batch of votes, term by term, against the formulas written out in plain numbers."""

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean
from typing import cast

import pytest
import torch
from torch import Tensor

from rlhf_online.feedback.votes import Candidate, Comparison, Rating, Vote
from rlhf_online.models.reward import RewardModel
from rlhf_online.models.sharding import Shards
from rlhf_online.models.tokens import Pair
from rlhf_online.training.votes import raters as all_raters
from rlhf_online.training.votes.batch import assemble, bootstrap_weights
from rlhf_online.training.votes.foretelling import foretell
from rlhf_online.training.votes.loss import MAX_POSITIONS, VoteLoss, count_thumbs
from rlhf_online.training.votes.rater_bias import RaterBias
from rlhf_online.training.votes.raters import LOOKS, Raters

OBJECTIVES = ("helpful", "harmless")
HEADS = 2
DENOMINATOR = 4.0
PROMPT = (1, 5, 3)
BELIEVED = {"scale": [1.0, 1.0], "people": {"p": [5.0, 0.0, 4.0]}}
"""Who gives votes here is believed wholly."""
BOTH, FIRST = (
    next(name for name in map(str, range(99)) if bootstrap_weights(name, HEADS) == heads) for heads in ((1, 1), (1, 0))
)
"""Ids of votes that both heads read, and that the first head alone reads."""


class KnownUtilities:
    """Stands in for the reward model: what each answer is worth is told by its first token, objective and head."""

    objectives, members, device, shards = OBJECTIVES, HEADS, torch.device("cpu"), Shards()

    @property
    def packer(self) -> "KnownUtilities":
        return self

    def pack(self, pairs: Sequence[Pair]) -> Sequence[Pair]:
        return pairs

    def forward(self, pairs: Sequence[Pair]) -> Tensor:
        return torch.tensor([[[_u(answer[0], o, k) for k in range(HEADS)] for o in range(2)] for _, answer in pairs])


def _u(token: int, objective: int = 0, head: int = 0) -> float:
    return 0.3 * token - 0.2 * objective * token + 0.1 * head * token**2 - 0.5


def _vote_loss(centring: float = 0.0, position_bias: Sequence[float] = ()) -> VoteLoss:
    loss = VoteLoss(cast(RewardModel, KnownUtilities()), centring)
    with torch.no_grad():
        loss.position_bias_S[: len(position_bias)] = torch.tensor(position_bias)
    loss.raters.load_json(BELIEVED)
    return loss


def _value(loss: VoteLoss, votes: Sequence[Vote], baseline: Sequence[Pair] = ()) -> float:
    return loss(assemble(votes, HEADS, OBJECTIVES, loss.raters), baseline, DENOMINATOR).item()


def _comparison(
    event_id: str,
    tokens: Sequence[int],
    tiers: Sequence[int],
    *,
    positions: Sequence[int] = (-1,) * 9,
    objective: str = "",
    strength: int = 0,
) -> Comparison:
    """`tiers` one for each answer, 0 for the best."""
    return Comparison(
        event_id=event_id,
        conversation_id="c",
        person="p",
        prompt_token_ids=PROMPT,
        candidates=tuple(
            Candidate(token_ids=(token, 2), position=at) for token, at in zip(tokens, positions, strict=False)
        ),
        tiers=tuple(tuple(i for i, own in enumerate(tiers) if own == tier) for tier in sorted(set(tiers))),
        objective=objective,
        strength=strength,
    )


def _rating(event_id: str, token: int, *, up: bool = False, person: str = "p", signal: str = "") -> Rating:
    return Rating(
        event_id=event_id,
        conversation_id="c",
        person=person,
        prompt_token_ids=PROMPT,
        candidate=Candidate(token_ids=(token, 2)),
        up=up,
        objective="harmless",
        signal=signal,
    )


def _ranked(best_first: Sequence[float]) -> float:
    """−log likelihood of an order without ties (Plackett & Luce)."""
    return sum(math.log(sum(map(math.exp, best_first[at:]))) - best_first[at] for at in range(len(best_first)))


def _softplus(value: float) -> float:
    return math.log1p(math.exp(value))


def test_rankings_are_taken_head_by_head_of_their_objective_with_the_bias_of_where_answers_stood():
    """One of three answers about the second objective, read by the first head alone, and one of four about the first,
    which both read: the shorter one is padded, and what stood nowhere that is known has no bias."""
    bias = [0.5, -0.25, 1.5]
    votes = [
        _comparison(FIRST, (1, 3, 2), (2, 0, 1), positions=(2, 0, 1), objective="harmless"),
        _comparison(BOTH, (4, 2, 1, 3), (0, 1, 2, 3), positions=(-1, 1, MAX_POSITIONS, 0)),
    ]
    told = _ranked([_u(3, 1) + 0.5, _u(2, 1) - 0.25, _u(1, 1) + 1.5])
    for head in range(HEADS):
        told += _ranked([_u(4, 0, head), _u(2, 0, head) - 0.25, _u(1, 0, head), _u(3, 0, head) + 0.5])
    assert _value(_vote_loss(position_bias=bias), votes) == pytest.approx(told / DENOMINATOR, rel=1e-5)
    levels = [fmean(_u(token, 1) for token in (1, 3, 2))]
    levels += [fmean(_u(token, 0, head) for token in (4, 2, 1, 3)) for head in range(HEADS)]
    told += 0.7 * sum((2 * level) ** 2 for level in levels)
    centred = _vote_loss(0.7, bias)
    assert _value(centred, votes) == pytest.approx(told / DENOMINATOR, rel=1e-5), "the level is that of the utilities"


def test_pairs_are_taken_with_the_margin_of_their_strength_and_a_tie_without():
    bias = [0.5, -0.25]
    votes = [
        _comparison(FIRST, (1, 3), (1, 0), positions=(0, 1), objective="harmless", strength=2),
        _comparison(BOTH, (4, 2), (0, 1)),
        _comparison(BOTH, (2, 3), (0, 0), strength=3),
    ]
    told = _softplus(2.0 - (_u(3, 1) - 0.25 - _u(1, 1) - 0.5))
    level = (_u(1, 1) + _u(3, 1)) ** 2
    for head in range(HEADS):
        told += _softplus(_u(2, 0, head) - _u(4, 0, head))
        delta = _u(2, 0, head) - _u(3, 0, head)
        told += (_softplus(delta) + _softplus(-delta)) / 2
        level += (_u(2, 0, head) + _u(4, 0, head)) ** 2 + (_u(2, 0, head) + _u(3, 0, head)) ** 2
    assert _value(_vote_loss(position_bias=bias), votes) == pytest.approx(told / DENOMINATOR, rel=1e-5)
    assert _value(_vote_loss(0.7, bias), votes) == pytest.approx((told + 0.7 * level) / DENOMINATOR, rel=1e-5)


def test_comparisons_are_taken_as_far_as_who_gave_them_is_believed_and_with_what_they_add_for_the_first_place():
    loss, place = _vote_loss(position_bias=[0.5, -0.25]), 0.75
    people = {"p": [0.0, place, 4.0], "q": [5.0, 0.0, 4.0], "r": [5.0, 0.0, 4.0]}
    loss.raters.load_json({"scale": [1.0, 1.0], "people": people})
    votes = [
        _comparison(FIRST, (1, 3, 2), (2, 0, 1), positions=(2, 0, 1), objective="harmless"),
        _comparison(BOTH, (4, 2), (0, 1), positions=(1, 0)),
    ]
    first, second = 0.5 + place, -0.25
    told = _ranked([_u(3, 1) + first, _u(2, 1) + second, _u(1, 1)])
    for head in range(HEADS):
        delta = _u(4, 0, head) + second - _u(2, 0, head) - first
        told += math.log1p(math.exp(-delta))
    assert _value(loss, votes) == pytest.approx(0.5 / LOOKS * told / DENOMINATOR, rel=1e-5)


def test_who_compares_is_looked_at_once_by_the_mean_over_heads_of_their_objective():
    votes = [
        _comparison("a", (1, 3, 2), (2, 0, 1), positions=(2, 0, 1), objective="harmless"),
        _comparison("b", (4, 2), (0, 1), positions=(1, 0)),
    ]
    loss, expected = _vote_loss(position_bias=[0.5, -0.25]), Raters()
    for raters in (loss.raters, expected):
        raters.load_json({"scale": [0.5, 1.0], "people": {}})
    loss.new_votes.expect(["a", "b"])
    expected.observe(votes[0], [_u(token, 1, 0) / 2 + _u(token, 1, 1) / 2 for token in (1, 3, 2)], [0.0, 0.5, -0.25])
    expected.observe(votes[1], [_u(token, 0, 0) / 2 + _u(token, 0, 1) / 2 for token in (4, 2)], [-0.25, 0.5])
    for _ in range(2):
        _value(loss, votes)
        loss.new_votes.observe()
    [(person, found)] = loss.raters.to_json()["people"].items()
    assert person == "p" and found == pytest.approx(expected.to_json()["people"]["p"], rel=1e-5)


def test_new_votes_of_people_are_foretold_where_they_are_first_met_by_what_was_known_then():
    ranking = _comparison("a", (1, 3, 2), (2, 0, 1), positions=(2, 0, 1), objective="harmless")
    thumb, old = _rating("t", 3, up=True, person="keen"), _rating("old", 1, person="keen")
    loss = _vote_loss(position_bias=[0.5, -0.25])
    loss.rater_bias[1].load_json([0.2, {"keen": 1.5}])
    loss.raters.load_json({"scale": [1.0, 1.0], "people": {"p": [0.0, 0.5, 4.0], "q": [5.0, 0, 4], "r": [5.0, 0, 4]}})
    loss.new_votes.expect(["a", "t", "label", "signal"])
    others = [old, replace(ranking, event_id="label", by_ai=True), _rating("signal", 1, signal="stop")]
    votes = [ranking, thumb, *others]
    mean = [fmean(_u(token, 1, head) for head in range(HEADS)) for token in (1, 3, 2)]
    told = {
        "a": foretell(ranking, mean, [0.0, 0.5, -0.25], (0.5 / LOOKS, 0.5), "harmless"),
        "t": foretell(thumb, [mean[1]], [0.0], (1.0, 1.7), "harmless"),
    }
    for _ in range(2):  # the second time the raters' bias and reliability have moved
        loss(assemble(votes, HEADS, OBJECTIVES, loss.raters), [], DENOMINATOR, count_thumbs(votes, OBJECTIVES))
        loss.new_votes.observe()
        assert loss.new_votes.foretold.keys() == {"a", "t"}
        for name, surprise in told.items():
            assert surprise and loss.new_votes.foretold[name].loss == pytest.approx(surprise.loss, rel=1e-5)
    loss.new_votes.expect([])
    assert loss.new_votes.foretold == {}


def test_before_new_votes_are_met_there_is_room_for_who_gave_them(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(all_raters, "MOST", 8)
    loss = _vote_loss()
    loss.raters.load_json({"scale": [1.0, 1.0], "people": {f"p{number}": [0.0, 0.0, 4.0] for number in range(9)}})
    loss.new_votes.expect([])
    assert len(loss.raters) == 6


def test_thumbs_are_taken_with_the_bias_of_who_gave_them_on_their_objective():
    loss = _vote_loss()
    loss.rater_bias[1].load_json([0.2, {"keen": 1.5}])
    loss.rater_bias[0].load_json([9.0, {}])
    votes = [_rating(FIRST, 3, up=True, person="keen"), _rating(BOTH, 1, person="new")]
    told = _softplus(-(_u(3, 1) + 1.7)) + sum(_softplus(_u(1, 1, head) + 0.2) for head in range(HEADS))
    assert _value(loss, votes) == pytest.approx(told / DENOMINATOR, rel=1e-5)
    assert loss.rater_bias[1].to_json() == [0.2, {"keen": 1.5}], "who only measures takes no step"


def test_raters_biases_step_by_the_mean_utility_over_heads_of_their_own_objectives_thumbs():
    votes = [_rating("a", 3, up=True, person="keen"), _rating("b", 1, person="keen"), _rating("c", 2, person="new")]
    totals = count_thumbs([*votes, _rating("d", 5, person="new"), _rating("e", 5, signal="stop")], OBJECTIVES)
    assert totals == {(1, "keen"): 2, (1, "new"): 2}
    loss, expected = _vote_loss(), RaterBias()
    utilities = [fmean(_u(token, 1, head) for head in range(HEADS)) for token in (3, 1, 2)]
    expected.step(utilities, [True, False, False], ["keen", "keen", "new"], {"keen": 2, "new": 2})
    loss(assemble(votes, HEADS, OBJECTIVES, Raters()), [], DENOMINATOR, totals)
    assert loss.rater_bias[1].common == pytest.approx(expected.common)
    assert loss.rater_bias[1].people == pytest.approx(expected.people)
    assert loss.rater_bias[0].to_json() == [0.0, {}], "nobody gave a thumb on that one"


def test_signals_are_compared_with_the_mean_of_the_baseline_as_far_as_they_are_reliable():
    loss = _vote_loss()
    loss.signal_reliability.observe("stop", [2.0] * 30)
    reliable = {signal: loss.signal_reliability.of(signal) for signal in ("stop", "regenerate")}
    assert reliable["stop"] > reliable["regenerate"]
    votes = [_rating(FIRST, 3, signal="stop"), _rating(BOTH, 1, signal="regenerate")]
    baseline: list[Pair] = [(PROMPT, (4, 2)), (PROMPT, (2, 2))]
    told = 0.0
    for token, signal, heads in ((3, "stop", 1), (1, "regenerate", 2)):
        for head in range(heads):
            below = fmean((_u(4, 1, head), _u(2, 1, head))) - _u(token, 1, head)
            rho = reliable[signal]
            told -= math.log(rho / (1 + math.exp(-below)) + (1 - rho) / 2)
    assert _value(loss, votes, baseline) == pytest.approx(told / DENOMINATOR, rel=1e-5)
    assert _value(loss, votes) == 0.0, "with nothing to compare it with a signal says nothing"


def test_the_kinds_add_up_and_so_do_micro_batches():
    votes: list[Vote] = [
        _comparison(BOTH, (1, 3, 2), (2, 0, 1)),
        _comparison(BOTH, (4, 2), (0, 1)),
        _rating(BOTH, 3, up=True),
        _rating(BOTH, 1, signal="stop"),
    ]
    loss, baseline = _vote_loss(0.3), [(PROMPT, (4, 2))]
    one_by_one = sum(_value(loss, [vote], baseline) for vote in votes)
    assert _value(loss, votes, baseline) == pytest.approx(one_by_one, rel=1e-5)


def test_what_is_learned_beside_the_model_comes_back():
    loss = _vote_loss(position_bias=[0.5, -0.25])
    loss.rater_bias[1].load_json([0.2, {"keen": 1.5}])
    loss.signal_reliability.observe("stop", [2.0])
    loss.raters.load_json({"scale": [0.5, 2.0], "people": {"p": [3.0, 0.1, 4.0]}})
    again = _vote_loss()
    again.load_json(loss.to_json())
    assert again.to_json() == loss.to_json()
    earlier = loss.to_json()
    del earlier["raters"]
    again.load_json(earlier)
    assert again.raters.to_json() == loss.raters.to_json(), "which a state of an earlier release does not hold"
    assert again.position_bias_S[:3].tolist() == [0.5, -0.25, 0.0]


def test_as_many_positions_are_known_as_a_state_of_an_earlier_release_holds():
    assert _vote_loss().position_bias_S.shape == (16,)
