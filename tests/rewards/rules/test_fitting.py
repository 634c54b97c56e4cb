"""Weights of rules, against the loss itself."""

import json
import random
from pathlib import Path

import pytest

from rlhf_online.errors import InvalidInput
from rlhf_online.rewards.rules.fitting import DECAY, Ordered, fit, hinge, lines, read_examples
from rlhf_online.rewards.rules.propositions import Exchange
from rlhf_online.rewards.rules.ruleset import parse

FILE = """
[propositions.short]
length = { max = 3 }
[propositions.polite]
words = ["please"]
[rules.style]
weights = { short = 0.0, polite = 0.0 }
"""


def loss(weights: list[float], differences: list[list[float]], leads: list[float]) -> float:
    margins = [
        lead + sum(w * d for w, d in zip(weights, each, strict=True))
        for lead, each in zip(leads, differences, strict=True)
    ]
    return DECAY / 2 * sum(w * w for w in weights) + sum(max(0.0, 1 - m) for m in margins) / len(margins)


def test_one_feature_is_weighed_until_the_margin_is_one() -> None:
    assert hinge([[1.0]] * 5, [0.0] * 5) == pytest.approx([1.0], abs=0.02)
    assert hinge([[1.0]] * 5, [-2.0] * 5) == pytest.approx([3.0], abs=0.02), "the score says the opposite, by two"
    assert hinge([[1.0]] * 5, [4.0] * 5) == [0.0], "the score says so already"
    assert hinge([[-1.0]] * 5, [0.0] * 5) == pytest.approx([-1.0], abs=0.02)


def test_no_other_weights_have_a_smaller_loss() -> None:
    rng = random.Random(0)
    differences = [[rng.choice((-1.0, 0.0, rng.random())) for _ in range(4)] for _ in range(200)]
    leads = [rng.gauss(0, 1) for _ in differences]
    found = hinge(differences, leads)
    least = loss(found, differences, leads)
    for scale in (1.0, 0.1, 0.01):
        for _ in range(300):
            other = [weight + rng.gauss(0, scale) for weight in found]
            assert loss(other, differences, leads) > least - 2e-6
    assert hinge(differences, leads) == found, "nothing is drawn"


def test_a_rule_learns_to_order_examples_as_they_are() -> None:
    rules = parse(FILE).set
    examples = [
        Ordered(Exchange("", "zinc please"), Exchange("", "zinc and a lot more")),
        Ordered(Exchange("", "zinc"), Exchange("", "zinc and a lot more please")),
        Ordered(Exchange("", "iron please"), Exchange("", "iron")),
    ]
    found = fit(rules, "style", examples)
    assert (found.ordered, found.loss[0]) == ((0.5, 1.0), 1.0)
    assert found.weights["short"] > found.weights["polite"] > 0.5
    text = FILE.replace("[rules.style]\nweights = { short = 0.0, polite = 0.0 }", "\n".join(lines("style", found)))
    assert parse(text).set.rules["style"].weights == found.weights, "as it is printed, so it is read"


def test_what_tells_no_two_answers_apart_fits_nothing() -> None:
    same = [Ordered(Exchange("", "a"), Exchange("", "b"))]
    with pytest.raises(InvalidInput, match=r"rules\.style: its propositions say the same of both answers in all 1"):
        fit(parse(FILE).set, "style", same)
    with pytest.raises(InvalidInput, match="'stile' is no rule: there are style"):
        fit(parse(FILE).set, "stile", same)


def test_examples_are_texts_or_messages_with_scores_if_there_are_any(tmp_path: Path) -> None:
    file = tmp_path / "examples.jsonl"
    chosen = [{"role": "assistant", "content": "zinc"}]
    rows = [
        {"prompt": "p", "chosen": "zinc", "rejected": "fig"},
        {"prompt": [{"role": "user", "content": "p"}], "chosen": chosen, "rejected": "fig", "scores": [0.5, 2]},
    ]
    file.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    both = Exchange("p", "zinc"), Exchange("p", "fig")
    assert read_examples(file) == [Ordered(*both), Ordered(*both, lead=-1.5)]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "line 1: Expecting"),
        ("[]", "line 1: expected the keys prompt, chosen, rejected and perhaps scores, got list"),
        ('{"prompt": "p", "chosen": "a"}', "got prompt, chosen"),
        ('{"prompt": "p", "chosen": "a", "rejected": 3}', "rejected: expected a text"),
        ('{"prompt": "p", "chosen": "a", "rejected": "b", "scores": [1]}', "scores: expected two numbers"),
        ('{"prompt": "p", "chosen": "a", "rejected": "b", "scores": [1, NaN]}', "scores: expected two numbers"),
        ("", "holds no examples"),
    ],
)
def test_a_line_of_no_use_is_named(tmp_path: Path, line: str, words: str) -> None:
    file = tmp_path / "examples.jsonl"
    file.write_text(line)
    with pytest.raises(InvalidInput, match=words):
        read_examples(file)
