"""Votes cut into micro-batches, a step on them, and the pass whose weights an update ends with."""

import math
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
import torch
from structlog.testing import capture_logs

from rlhf_online.feedback.votes import Candidate, Comparison, Rating, Vote
from rlhf_online.models.packing import Packed, Packer
from rlhf_online.models.reward import Heads, RewardModel
from rlhf_online.models.tokens import Pair
from rlhf_online.simulation.tiny_model import write_tiny_model
from rlhf_online.training import optimiser
from rlhf_online.training.settings import RewardTraining
from rlhf_online.training.votes.batch import bootstrap_weights
from rlhf_online.training.votes.loss import ThumbCounts
from rlhf_online.training.votes.passes import BestPass, VotePasses, _schedule, micro_batches


def _votes(*lengths: int) -> list[Rating]:
    """Thumbs of so many tokens, two of them the prompt's."""
    return [
        Rating(
            event_id=f"e{row}",
            conversation_id="c",
            person="p",
            prompt_token_ids=(1, 3),
            candidate=Candidate(token_ids=(9,) * (length - 2)),
            up=True,
        )
        for row, length in enumerate(lengths)
    ]


def _cut(lengths: list[int], baseline: list[int], limit: int) -> list[int]:
    pairs = [((1, 3), (9,) * (length - 2)) for length in baseline]
    packer = Packer(trees=False, spans=False, context=128, device=torch.device("cpu"))
    return [len(piece) for piece in micro_batches(packer, _votes(*lengths), pairs, limit)]


def test_as_many_whole_votes_as_fit_padding_included():
    assert _cut([5, 5, 5, 5, 5], [], 10) == [2, 2, 1], "two of five tokens are ten"
    assert _cut([5, 5, 5, 5, 5], [], 9) == [1, 1, 1, 1, 1]
    assert _cut([3, 3, 6], [], 17) == [2, 1], "the widest pads all three to six tokens"
    assert _cut([3, 3, 6], [], 18) == [3]


def test_a_vote_that_is_too_large_stands_alone():
    assert _cut([50, 3, 3], [], 10) == [1, 2]


def test_the_baseline_is_read_with_each():
    assert _cut([5, 5, 5], [5, 5], 20) == [2, 1]
    assert _cut([5, 5, 5], [10], 20) == [1, 1, 1], "it pads, too"


def test_the_learning_rate_falls_to_a_tenth_and_rises_first_where_the_optimiser_is_young():
    """The first tenth of the first update's steps: a quarter, a half, three quarters, and then as in any other."""
    falling = [1 - 0.9 * done / 40 for done in range(40)]
    assert [_schedule(done, 40, warm_up=False) for done in range(40)] == pytest.approx(falling)
    rising = [min(1.0, (done + 1) / 4) * rate for done, rate in enumerate(falling)]
    assert [_schedule(done, 40, warm_up=True) for done in range(40)] == pytest.approx(rising)
    assert _schedule(0, 4, warm_up=True) == 1.0, "four steps have no tenth"
    assert _schedule(0, 14, warm_up=True) == 1.0, "whole steps: fourteen have one, which is taken in full"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> RewardModel:
    folder = tmp_path_factory.mktemp("model")
    write_tiny_model(folder, weights_seed=0)
    return RewardModel.load(folder, tuning="full", heads=Heads(members=2))


class Scripted(VotePasses):
    """Every step adds 1 to what the model has learned, and costs `costs` in turn; `held_out` are the losses of held-out
    votes after each pass."""

    def __init__(self, model: RewardModel, held_out: Sequence[float] = (), weights: Sequence[float] = (1.0,)) -> None:
        super().__init__(model, RewardTraining(batch=4, lr=0.5))
        self.rates: list[float] = []
        self.sizes: list[int] = []
        self.measured: list[Sequence[Vote]] = []
        self._held_out = iter(held_out)
        self._weights = weights

    @property
    def learned(self) -> float:
        return self.loss.position_bias_S[0].item()

    def _step(
        self, votes: Sequence[Vote], baseline: Sequence[Pair], thumbs: ThumbCounts, rate: float, skipped: Counter[str]
    ) -> tuple[float, float]:
        weight = self._weights[len(self.rates) % len(self._weights)]
        self.rates.append(rate)
        self.sizes.append(len(votes))
        with torch.no_grad():
            self.loss.position_bias_S[0] += 1
        return len(self.rates) * weight, weight

    def mean_loss(self, votes: Sequence[Vote]) -> float:
        self.measured.append(votes)
        return next(self._held_out)

    def go(self, epochs: int, *, data: int = 10, held_out: int = 50, first: bool = False) -> BestPass:
        self.steps: list[tuple[int, int]] = []
        return self.run(
            list(_votes(*[5] * data)),
            [],
            _votes(*[5] * held_out),
            epochs=epochs,
            first=first,
            rng=random.Random(0),
            skipped=Counter(),
            on_step=lambda done, of: self.steps.append((done, of)),
        )


def test_all_votes_are_passed_over_as_often_as_was_asked_where_there_is_nothing_to_measure_on(
    model: RewardModel,
) -> None:
    passes = Scripted(model)
    assert passes.go(2, held_out=49) == BestPass(loss=(4 + 5 + 6) / 3, held_out_loss=0.0, passes=2)
    assert passes.sizes == [4, 4, 2] * 2 and passes.learned == 6 and passes.measured == []
    assert passes.steps == [(done, 6) for done in range(7)]
    assert passes.rates == pytest.approx([0.5 * _schedule(done, 6, warm_up=False) for done in range(6)])


def test_the_first_update_warms_up(model: RewardModel) -> None:
    passes = Scripted(model)
    passes.go(10, held_out=0, first=True)
    assert passes.rates == pytest.approx([0.5 * _schedule(done, 30, warm_up=True) for done in range(30)])


@pytest.mark.parametrize(
    ("losses", "epochs", "best", "made"),
    [
        ([3.0, 2.0, 2.5, 2.6], 6, 2, 4),
        ([3.0, 2.0, 2.5, 1.0, 1.5, 1.5], 9, 4, 6),
        ([3.0, 2.0, 2.5], 3, 2, 3),
        ([3.0, 2.0], 2, 2, 2),
        ([2.0, 2.0, 2.0], 9, 1, 3),
        ([math.nan, 5.0, 6.0, 7.0], 9, 2, 4),
        ([1.0, math.nan, math.nan], 9, 1, 3),
    ],
)
def test_an_update_ends_with_the_pass_that_held_out_votes_like_best(
    model: RewardModel, losses: list[float], epochs: int, best: int, made: int
) -> None:
    """Two passes that are no better end it; its weights are those of the best one, and so is its loss."""
    passes = Scripted(model, losses)
    found = passes.go(epochs)
    own = [step for step in range(1, 3 * epochs + 1) if (step - 1) // 3 == best - 1]
    assert found == BestPass(loss=sum(own) / 3, held_out_loss=losses[best - 1], passes=best)
    assert (len(passes.rates), passes.learned) == (3 * made, 3 * best)


def test_without_room_for_a_copy_an_update_ends_with_what_it_has_learned(
    model: RewardModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It could not be taken back to its best pass later."""

    def none(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        raise torch.OutOfMemoryError("a fake")

    monkeypatch.setattr(optimiser, "_copies", none)
    passes = Scripted(model, [3.0, 2.0])
    with capture_logs() as logs:
        assert passes.go(6) == BestPass(loss=2.0, held_out_loss=3.0, passes=1)
    assert passes.learned == 3 and "no memory for a copy" in logs[0]["why"]


def test_the_newest_held_out_votes_are_measured_on(model: RewardModel) -> None:
    passes = Scripted(model, [1.0])
    passes.go(1, held_out=600)
    assert [vote.event_id for vote in passes.measured[0]] == [f"e{row}" for row in range(100, 600)]


def test_where_no_step_was_taken_there_was_no_pass(model: RewardModel) -> None:
    assert Scripted(model).go(3, data=0) == BestPass()
    assert Scripted(model, [7.0], weights=[0.0]).go(1) == BestPass(held_out_loss=7.0)
    half = Scripted(model, weights=[0.0, 0.0, 0.0, 1.0, 0.0, 0.0]).go(2, held_out=0)
    assert half == BestPass(loss=4.0, passes=2), "what one step learned counts"


@pytest.fixture
def restored(model: RewardModel) -> Iterator[RewardModel]:
    """The model, which is as it was for the next test."""
    kept = {name: tensor.clone() for name, tensor in model.state().items()}
    yield model
    model.load_state(kept)


READ, UNREAD = (
    [name for name in map(str, range(400)) if bootstrap_weights(name, 2) == heads] for heads in ((1, 1), (0, 0))
)
"""Ids of votes that both heads read, and that neither does."""


def _pairs(ids: Sequence[str], better: int, worse: int) -> list[Vote]:
    candidates = tuple(Candidate(token_ids=(token, 30, 2), position=at) for at, token in enumerate((better, worse)))
    return [
        Comparison(
            event_id=name,
            conversation_id="c",
            person="p",
            prompt_token_ids=(1, 3),
            candidates=candidates,
            tiers=((0,), (1,)),
        )
        for name in ids
    ]


def _step(passes: VotePasses, votes: Sequence[Vote], skipped: Counter[str] | None = None) -> BestPass:
    """One pass over so few votes is one step."""
    skipped = Counter() if skipped is None else skipped
    return passes.run(list(votes), (), [], epochs=1, first=False, rng=random.Random(0), skipped=skipped)


def test_a_step_learns_from_its_own_votes_alone(restored: RewardModel) -> None:
    ones, others = _pairs(READ[:3], 20, 40), _pairs(READ[3:6], 50, 21)

    def gradients(*steps: Sequence[Vote]) -> list[torch.Tensor]:
        passes = VotePasses(restored, RewardTraining(batch=4, lr=1e-12))
        for votes in steps:
            _step(passes, votes)
        return [parameter.grad.clone() for parameter in restored.parameters().values() if parameter.grad is not None]

    alone, after = gradients(others), gradients(ones, others)
    assert len(alone) == len(after) > 3 and any(tensor.any() for tensor in alone)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(alone, after, strict=True))


def test_a_cap_holds_also_over_steps_in_which_the_capped_are_alone(restored: RewardModel) -> None:
    """Steps of equal numbers of votes: on average they are the step of all of them."""
    loud = [replace(vote, person="loud") for vote in _pairs(READ[:12], 20, 40)]
    votes = loud + [replace(vote, person=vote.event_id) for vote in _pairs(READ[12:16], 40, 20)]

    class Passes(VotePasses):
        def gradient(self, votes: Sequence[Vote]) -> torch.Tensor:
            self._backward(votes, (), Counter())
            found = [parameter.grad for parameter in restored.parameters().values()]
            return torch.cat([each.flatten() for each in found if each is not None])

    passes = Passes(restored, RewardTraining(batch=16, lr=1e-12))
    _step(passes, votes)
    assert set(passes.capped) == set(READ[:12])
    whole, parts = passes.gradient(votes), [passes.gradient(votes[start : start + 4]) for start in range(0, 16, 4)]
    torch.testing.assert_close(torch.stack(parts).mean(0), whole, rtol=1e-3, atol=1e-5)
    assert parts[0].norm() < parts[3].norm() / 2, "who is alone in a step takes a short one"


def test_a_step_says_what_it_cost_and_makes_its_votes_more_likely(restored: RewardModel) -> None:
    passes, votes, skipped = VotePasses(restored, RewardTraining(batch=4, lr=1e-3)), _pairs(READ[:3], 20, 40), Counter()
    before = passes.mean_loss(votes)
    found = _step(passes, votes, skipped)
    assert (found.loss, found.held_out_loss, found.passes) == (pytest.approx(before, rel=1e-4), 0.0, 1)
    after = passes.mean_loss(votes)
    assert after < before
    assert _step(passes, _pairs(UNREAD[:3], 20, 40), skipped) == BestPass(), "what no head reads is no step"
    assert passes.mean_loss(votes) == after and not skipped


def test_a_step_that_is_no_number_is_not_taken_and_counted(restored: RewardModel) -> None:
    passes, skipped = VotePasses(restored, RewardTraining(batch=4)), Counter[str]()
    with torch.no_grad():
        restored.heads.weight[0].fill_(math.nan)
    others = restored.heads.weight[1:].clone()
    assert _step(passes, _pairs(READ[:3], 20, 40), skipped) == BestPass()
    assert skipped == {"not_finite": 1}
    assert torch.equal(restored.heads.weight[1:], others) and not passes.loss.position_bias_S.any()


def _thumbs(ids: Sequence[str]) -> list[Vote]:
    return [
        Rating(
            event_id=name,
            conversation_id="c",
            person=f"p{row % 2}",
            prompt_token_ids=(1, 3),
            candidate=Candidate(token_ids=(20 + row, 30, 2)),
            up=row % 3 > 0,
        )
        for row, name in enumerate(ids)
    ]


def _no_more_than(most: int, model: RewardModel, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Memory is out where `model` reads more answers at once; the answers of each pass that did not fit."""
    failures, forward = list[int](), model.forward

    def little(batch: Packed) -> torch.Tensor:
        if len(batch.mask_BA) > most:
            failures.append(len(batch.mask_BA))
            raise torch.OutOfMemoryError("a fake")
        return forward(batch)

    monkeypatch.setattr(model, "forward", little)
    return failures


def test_out_of_memory_a_step_begins_anew_and_the_next_one_fits(
    restored: RewardModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if memory had been known to be little: raters' biases, too, have taken their steps once."""
    votes = [*_pairs(READ[:3], 20, 40), *_thumbs(READ[3:9])]
    passes, kept = VotePasses(restored, RewardTraining(batch=20, lr=1e-3)), restored.state()
    failures = _no_more_than(3, restored, monkeypatch)
    skipped = Counter[str]()
    _step(passes, votes, skipped)
    assert failures and not skipped
    found, learned, given = passes.state()[0], passes.loss.to_json(), passes._tokens  # noqa: SLF001
    failures.clear()
    _step(passes, votes)
    assert not failures, "what fits is remembered"
    restored.load_state(kept)
    knowing = VotePasses(restored, RewardTraining(batch=20, lr=1e-3))
    knowing._most_tokens = given  # noqa: SLF001
    _step(knowing, votes)
    expected = knowing.state()[0]
    assert not failures and knowing.loss.to_json() == learned and learned["rater_bias"][0][1].keys() == {"p0", "p1"}
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())


def test_out_of_memory_in_the_midst_of_a_step_who_gave_new_votes_is_looked_at_once(
    restored: RewardModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if smaller micro-batches had been made from the beginning."""
    votes, kept, forward = [*_pairs(READ[:3], 20, 40), *_thumbs(READ[3:9])], restored.state(), restored.forward
    found = []
    for tokens, fails in ((16, True), (8, False)):
        passes, read = VotePasses(restored, RewardTraining(batch=20, lr=1e-3)), list[int]()

        def third(batch: Packed, read: list[int] = read, fails: bool = fails) -> torch.Tensor:
            read.append(1)
            if fails and len(read) == 3:
                raise torch.OutOfMemoryError("a fake")
            return forward(batch)

        monkeypatch.setattr(restored, "forward", third)
        restored.load_state(kept)
        passes._most_tokens = tokens  # noqa: SLF001
        passes.loss.new_votes.expect(vote.event_id for vote in votes)
        _step(passes, votes)
        assert len(read) > 3 and passes._tokens == 8  # noqa: SLF001
        found.append((passes.loss.to_json(), passes.loss.new_votes.foretold))
    assert found[0] == found[1] and found[0][0]["raters"]["people"] and len(found[0][1]) == 9


def test_a_step_of_which_no_vote_fits_is_not_taken_and_counted(
    restored: RewardModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes, skipped, before = VotePasses(restored, RewardTraining(batch=4)), Counter[str](), restored.state()
    _no_more_than(1, restored, monkeypatch)
    assert _step(passes, _pairs(READ[:3], 20, 40), skipped) == BestPass()
    assert skipped == {"out_of_memory": 1}
    assert all(torch.equal(tensor, restored.state()[name]) for name, tensor in before.items())


def test_what_fails_otherwise_is_not_hidden(restored: RewardModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(batch: Packed) -> torch.Tensor:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(restored, "forward", fails)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        _step(VotePasses(restored, RewardTraining(batch=4)), _pairs(READ[:3], 20, 40))


def test_the_bias_of_positions_is_drawn_to_0(restored: RewardModel) -> None:
    """Also of those that no vote of the step was shown in."""
    passes = VotePasses(restored, RewardTraining(batch=4, lr=1e-2))
    with torch.no_grad():
        passes.loss.position_bias_S.copy_(torch.linspace(-1, 1, len(passes.loss.position_bias_S)))
    before = passes.loss.position_bias_S.detach().clone()
    _step(passes, _pairs(READ[:3], 20, 40))
    assert (passes.loss.position_bias_S.abs() < before.abs())[2:].all()


def test_what_is_kept_is_put_back_and_goes_on_as_before(restored: RewardModel) -> None:
    """The model, the optimiser's moments, and what is learned beside the model."""
    passes, votes = VotePasses(restored, RewardTraining(batch=4, lr=1e-2)), _pairs(READ[:3], 20, 40)
    _step(passes, votes)
    tensors, values = passes.state()
    losses = []
    for _ in range(2):
        passes.load_state(tensors, values)
        _step(passes, votes)
        losses.append(passes.mean_loss(votes))
    assert losses[0] == losses[1]
    again = VotePasses(restored, RewardTraining(batch=4, lr=1e-2))
    again.load_state(tensors, values)
    _step(again, votes)
    assert again.mean_loss(votes) == losses[0]
