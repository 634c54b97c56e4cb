"""Supervised fine-tuning: it learns the answers, repeats itself, and writes a folder that loads."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rlhf_online.errors import InvalidInput
from rlhf_online.models.policy import Policy
from rlhf_online.models.tokens import ChatTokenizer
from rlhf_online.simulation.tiny_model import write_tiny_model
from rlhf_online.training.sft.demonstrations import Demonstration
from rlhf_online.training.sft.fine_tuning import Passes, fine_tune

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
