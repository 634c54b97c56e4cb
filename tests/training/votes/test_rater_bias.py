"""Raters who like everything, or nothing."""

import json
import math
import random

import pytest

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
