"""Raters who like everything, or nothing."""

import json
import math
import random

import pytest

from rlhf_online.training.votes import rater_bias
from rlhf_online.training.votes.rater_bias import RaterBias


def test_it_is_found_who_likes_everything():
    rng, found = random.Random(0), RaterBias()
    truth = {"kind": 2.0, "harsh": -2.0, "plain": 0.0}
    people = [rng.choice(sorted(truth)) for _ in range(1500)] + ["once"]
    utilities = [rng.gauss(0, 1) for _ in people]
    up = [
        rng.random() < 1 / (1 + math.exp(-(u + truth.get(p, 0.0) + 0.5)))
        for u, p in zip(utilities, people, strict=True)
    ]
    up[-1] = True
    totals = {person: people.count(person) for person in set(people)}
    for _ in range(30):
        for start in range(0, len(people), 100):
            part = slice(start, start + 100)
            found.step(utilities[part], up[part], people[part], totals)
    kind, harsh, plain, once = found.of(["kind", "harsh", "plain", "once"])
    assert kind == pytest.approx(2.5, abs=0.4) and harsh == pytest.approx(-1.5, abs=0.4)
    assert plain == pytest.approx(0.5, abs=0.3)
    assert abs(once - found.common) < 1, "one thumb says little"
    again = RaterBias()
    again.load_json(json.loads(json.dumps(found.to_json())))
    assert again.of(["kind", "new"]) == found.of(["kind", "new"])


def test_of_somebody_new_only_what_all_have_in_common_is_known():
    found = RaterBias()
    assert (found.common, found.of(["new"])) == (0.0, [0.0])
    found.step([0.0] * 4, [True, True, True, False], ["a"] * 4, {"a": 4})
    assert found.common > 0 and found.people["a"] > 0
    assert found.of(["new", "a"]) == [found.common, found.common + found.people["a"]]


def test_a_batch_takes_its_share_of_a_step():
    """Half of a person's thumbs move him half as far, before the prior and what is common are felt."""
    whole, half = RaterBias(), RaterBias()
    whole.step([0.0] * 2, [True, False], ["a", "b"], {"a": 1, "b": 1})
    half.step([0.0] * 2, [True, False], ["a", "b"], {"a": 2, "b": 2})
    assert whole.people["a"] == pytest.approx(-whole.people["b"]) and whole.common == half.common == 0
    # Newton: slope ½, curvature ¼, and the prior's 1 for the whole step, ½ for half of it.
    assert whole.people["a"] == pytest.approx(0.5 / (0.25 + 1)) and half.people["a"] == pytest.approx(
        0.5 * 0.5 / (0.25 + 0.5)
    )


def test_what_is_kept_does_not_change_with_later_steps():
    bias = RaterBias()
    bias.step([0.0], [True], ["a"], {"a": 1})
    kept = bias.to_json()
    bias.step([0.0], [False], ["a"], {"a": 1})
    assert bias.to_json() != kept
    bias.load_json(kept)
    assert bias.people == {"a": kept[1]["a"]} and bias.to_json() == kept


def test_who_differs_least_is_let_go_of_where_they_are_too_many(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rater_bias, "MOST", 8)
    bias = RaterBias()
    bias.people = {f"p{number}": (-1.0) ** number * number for number in range(1, 9)}
    bias.step([0.0, 0.0], [True, False], ["q", "r"], {"q": 9, "r": 9})
    assert bias.people.keys() == {f"p{number}" for number in range(3, 9)}
    bias.forget(["p7", "nobody"])
    assert bias.people.keys() == {f"p{number}" for number in (3, 4, 5, 6, 8)}
