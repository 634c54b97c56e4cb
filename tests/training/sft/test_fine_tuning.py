"""Supervised fine-tuning: it learns the answers, repeats itself, and writes a folder that loads."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rlhf_online.errors import InvalidInput
from rlhf_online.models.policy import Policy
from rlhf_online.models.tokens import ChatTokenizer
from rlhf_online.simulation.tiny_model import write_tiny_model
from rlhf_online.training.sft import fine_tuning
from rlhf_online.training.sft.demonstrations import Demonstration
from rlhf_online.training.sft.fine_tuning import Passes, _rate, fine_tune, to_pairs

FACTS = {"zinc": "is a metal", "fig": "is a fruit", "owl": "is a animal"}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    write_tiny_model(tmp_path / "base", weights_seed=None)
    return tmp_path / "base"


def _demonstrations() -> list[Demonstration]:
    return [
        Demonstration(messages=[{"role": "user", "content": question}], answer={"role": "assistant", "content": answer})
        for question, answer in FACTS.items()
    ]


def test_it_learns_to_answer_and_to_end(base: Path, tmp_path: Path):
    seen: list[tuple[int, int, float]] = []
    fine_tune(
        base,
        _demonstrations(),
        tmp_path / "out",
        Passes(steps=60, batch=8, lr=5e-3, seed=1),
        progress=lambda step, steps, loss: seen.append((step, steps, loss)),
    )
    assert [step for step, _, _ in seen] == list(range(1, 61)) and seen[0][1] == 60
    assert 4 < seen[0][2] < 5 and seen[-1][2] < 0.2, "nats a token; at first all 78 are as likely"
    tokenizer, policy = ChatTokenizer(tmp_path / "out"), Policy.load(tmp_path / "out", tuning="full")
    prompts = [tokenizer.prompt_ids(item.messages) for item in _demonstrations()]
    answers = policy.sample(prompts, max_tokens=8, temperature=0.2, seed=0, eos_ids=tokenizer.eos_ids)
    assert [tokenizer.decode(answer) for answer in answers] == list(FACTS.values())
    assert all(answer[-1] == tokenizer.eos_ids[0] for answer in answers)


def test_the_same_seed_gives_the_same_weights(base: Path, tmp_path: Path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        torch.manual_seed(ord(name))
        fine_tune(base, _demonstrations(), tmp_path / name, Passes(steps=3, batch=2, lr=1e-3, seed=seed))
    a, b, c = (load_file(tmp_path / name / "model.safetensors") for name in "abc")
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert any(not torch.equal(a[name], c[name]) for name in a)


def test_with_activations_recomputed_it_learns_the_same(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    budget = fine_tuning.trunk.token_budget
    monkeypatch.setattr(
        fine_tuning.trunk,
        "token_budget",
        lambda lm, *rest: asked.append(lm.is_gradient_checkpointing) or budget(lm, *rest),
    )
    for name in ("kept", "recomputed"):
        passes = Passes(steps=2, batch=3, lr=1e-3, seed=1)
        fine_tune(base, _demonstrations(), tmp_path / name, passes, recompute=name == "recomputed")
    kept, recomputed = (load_file(tmp_path / name / "model.safetensors") for name in ("kept", "recomputed"))
    assert all(torch.equal(tensor, recomputed[name]) for name, tensor in kept.items())
    assert asked == [False, False, True, True]


def test_it_goes_on_from_weights_that_are_there(base: Path, tmp_path: Path):
    fine_tune(base, _demonstrations(), tmp_path / "first", Passes(steps=40, batch=8, lr=5e-3, seed=1))
    losses: list[float] = []
    fine_tune(
        tmp_path / "first",
        _demonstrations(),
        tmp_path / "second",
        Passes(steps=1, batch=8, lr=1e-4, seed=1),
        progress=lambda step, steps, loss: losses.append(loss),
    )
    assert losses[0] < 1


def test_nothing_to_learn_from_is_refused(base: Path, tmp_path: Path):
    with pytest.raises(InvalidInput, match="demonstration"):
        fine_tune(base, [], tmp_path / "out", Passes(steps=1, batch=1, lr=1e-3, seed=0))


def test_the_learning_rate_rises_for_three_hundredths_and_falls_as_a_cosine_to_nothing():
    rates = [_rate(step, 100) for step in range(101)]
    assert rates[:4] == pytest.approx([1 / 3, 2 / 3, 1, 1])
    assert rates[3:] == pytest.approx([(1 + math.cos(math.pi * step / 97)) / 2 for step in range(98)])
    assert rates[100] == pytest.approx(0) and _rate(0, 1) == 1.0, "a single step is a whole one"


def test_every_demonstration_is_learned_once_before_any_is_learned_again(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    seen: list[tuple[int, ...]] = []

    def backward(lm: object, packer: object, pairs: list, **_: object) -> float:
        seen.extend(tuple(answer) for _, answer in pairs)
        return 0.0

    monkeypatch.setattr(fine_tuning, "backward", backward)
    prepared = fine_tune(base, _demonstrations(), tmp_path / "out", Passes(steps=6, batch=2, lr=0.0, seed=3))
    answers = sorted(tuple(answer) for _, answer in prepared.pairs)
    rounds = [seen[start : start + 3] for start in range(0, 12, 3)]
    assert [sorted(each) for each in rounds] == [answers] * 4
    assert len({tuple(each) for each in rounds}) > 1, "in another order each time"


def test_what_was_served_is_learned_by_its_own_tokens_and_what_does_not_fit_is_named(base: Path):
    tokenizer = ChatTokenizer(base)
    zinc, fig, owl = _demonstrations()
    as_served = tokenizer.prompt_ids(zinc.messages)
    items = [
        replace(zinc, served=as_served),
        replace(fig, served=(7, 7, 7), place="the correction of c2"),  # another model's tokens
        replace(owl, answer={"role": "assistant", "content": "is a animal " * 50}, place="line 3"),
    ]
    prepared = to_pairs(items, tokenizer, context=40, vocabulary=100)
    assert [prompt for prompt, _ in prepared.pairs] == [as_served, tokenizer.prompt_ids(fig.messages)]
    assert [tokenizer.decode(answer) for _, answer in prepared.pairs] == ["is a metal", "is a fruit"]
    assert prepared.rendered == 1
    [left_out] = prepared.left_out
    assert left_out.startswith("line 3: ")
    with pytest.raises(InvalidInput, match=r"at least one demonstration that the model can learn:\n  line 3: "):
        to_pairs(items[2:], tokenizer, context=40, vocabulary=100)


def test_a_tokenizer_that_knows_more_tokens_than_the_model_is_refused_to_the_token(base: Path):
    tokenizer = ChatTokenizer(base)
    highest = max(max(*prompt, *answer) for prompt, answer in to_pairs(_demonstrations(), tokenizer, 40, 100).pairs)
    assert to_pairs(_demonstrations(), tokenizer, 40, highest + 1).left_out == []
    with pytest.raises(InvalidInput, match=rf"beyond the model's vocabulary of {highest}: they do not belong together"):
        to_pairs(_demonstrations(), tokenizer, 40, highest)


def test_gradients_of_one_step_are_not_those_of_the_next(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """On the same demonstrations, and with weights that stay, they are all of one length."""
    norms: list[float] = []
    clip = fine_tuning.clip
    monkeypatch.setattr(fine_tuning, "clip", lambda *args: norms.append(clip(*args)))
    fine_tune(base, _demonstrations(), tmp_path / "out", Passes(steps=3, batch=3, lr=1e-12, seed=1))
    assert norms == pytest.approx([norms[0]] * 3, rel=1e-3)
