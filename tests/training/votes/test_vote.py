"""Preferences as training examples, their bootstrap weights, and the intercepts of people."""

import json
import math
import random
from dataclasses import replace

import pytest

from rlhf_online.feedback.preferences import Candidate, Comparison, Rating
from rlhf_online.models.tokens import ChatTokenizer
from rlhf_online.simulation.tiny_model import write_tiny_model
from rlhf_online.training.votes.intercepts import Intercepts
from rlhf_online.training.votes.vote import UNSURE, Vote, assemble, bootstrap_weights, ordered_pairs, to_vote


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> ChatTokenizer:
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny_model(folder, weights_seed=None)
    return ChatTokenizer(folder)


def _ranking(tiers: tuple[tuple[int, ...], ...], event_id: str = "a", strength: int = 0) -> Comparison:
    return Comparison(
        event_id=event_id,
        conversation_id="c",
        person="p",
        prompt_token_ids=(1, 5, 3),
        candidates=tuple(Candidate(token_ids=(10 + i, 2), slot=i) for i in range(sum(map(len, tiers)))),
        tiers=tiers,
        strength=strength,
    )


def _thumb(up: bool) -> Rating:
    return Rating(
        event_id=f"t{up}",
        conversation_id="c",
        person="q",
        prompt_token_ids=(1, 3),
        candidate=Candidate(token_ids=(9, 2)),
        up=up,
    )


def test_a_ranking_becomes_answers_with_tiers(tokenizer: ChatTokenizer):
    vote = to_vote(_ranking(((2,), (0, 1))), tokenizer)
    assert vote.answers == ((12, 2), (10, 2), (11, 2)) and vote.tiers == (0, 1, 1) and vote.slots == (2, 0, 1)
    assert ordered_pairs(vote) == [(0, 1), (0, 2)]


def test_a_correction_is_tokenised_from_its_text(tokenizer: ChatTokenizer):
    written = Comparison(
        event_id="e",
        conversation_id="c",
        person="p",
        prompt_token_ids=(1, 3),
        candidates=(Candidate(token_ids=(7, 2)), Candidate(text="zinc iron")),
        tiers=((1,), (0,)),
    )
    assert to_vote(written, tokenizer).answers == (tokenizer.answer_ids("zinc iron"), (7, 2))


def test_votes_come_back_from_json(tokenizer: ChatTokenizer):
    preferences = [_ranking(((0, 1), (2,))), _ranking(((1,), (0,)), strength=3), _thumb(True), _thumb(False)]
    preferences += [
        replace(_ranking(((0, 1),)), unsure=True, objective="harmless"),
        replace(_thumb(False), signal="stop"),
    ]
    for preference in preferences:
        vote = to_vote(preference, tokenizer)
        assert Vote.from_json(json.loads(json.dumps(vote.to_json()))) == vote


def test_assembly_tells_rankings_pairs_and_thumbs_apart(tokenizer: ChatTokenizer):
    preferences = [
        _thumb(True),
        _ranking(((1,), (0,)), strength=2),
        _ranking(((0,), (1, 2), (3,))),
        _ranking(((0, 1),)),
    ]
    batch = assemble([to_vote(preference, tokenizer) for preference in preferences], 3, ["helpful"])
    assert len(batch.pairs) == 9 and batch.thumb_Q.tolist() == [0] and batch.up_Q.tolist() == [True]
    assert batch.chosen_P.tolist() == [1, 7] and batch.rejected_P.tolist() == [2, 8]
    assert batch.pairs[1][1] == (11, 2), "the better one"
    assert batch.tied_P.tolist() == [False, True] and batch.strength_P.tolist() == [2, 0]
    assert batch.rank_RG.tolist() == [[3, 4, 5, 6]] and batch.tiers_RG.tolist() == [[0, 1, 1, 2]]
    assert batch.rank_weights_RK.shape == (1, 3) and batch.pair_weights_PK.shape == (2, 3)


def test_assembly_weighs_doubt_and_names_objectives_and_signals(tokenizer: ChatTokenizer):
    preferences = [
        replace(_ranking(((0, 1),)), unsure=True, objective="harmless"),
        replace(_thumb(False), signal="stop", objective="harmless"),
        replace(_thumb(True), objective="helpful"),
        _ranking(((0,), (1,), (2,))),
    ]
    votes = [to_vote(preference, tokenizer) for preference in preferences]
    whole = assemble(votes, 2, ["helpful", "harmless"], bootstrap=False)
    assert whole.pair_weights_PK.tolist() == [[UNSURE] * 2] and whole.pair_objective_P.tolist() == [1]
    assert (whole.signals_H, whole.signal_H.tolist(), whole.signal_objective_H.tolist()) == (["stop"], [2], [1])
    assert whole.thumb_Q.tolist() == [3] and whole.thumb_objective_Q.tolist() == [0]
    assert whole.rank_objective_R.tolist() == [0] and whole.rank_weights_RK.tolist() == [[1, 1]]
    assert whole.weight() == 2 * (UNSURE + 3)
    masked = assemble(votes, 2, ["helpful", "harmless"])
    assert masked.pair_weights_PK.tolist() == [[UNSURE * read for read in bootstrap_weights("a", 2)]]


def test_every_head_reads_its_own_four_fifths_of_the_votes():
    assert bootstrap_weights("event", 5) == bootstrap_weights("event", 5)
    first, second = zip(*(bootstrap_weights(f"event-{i}", 2) for i in range(4000)), strict=True)
    assert set(first) == {0, 1}
    assert sum(first) / 4000 == pytest.approx(0.8, abs=0.02) and sum(second) / 4000 == pytest.approx(0.8, abs=0.02)
    both = sum(a * b for a, b in zip(first, second, strict=True)) / 4000
    assert both == pytest.approx(0.64, abs=0.03), "independent"


def test_intercepts_find_who_likes_everything():
    rng, found = random.Random(0), Intercepts()
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
    again = Intercepts()
    again.load_json(json.loads(json.dumps(found.to_json())))
    assert again.of(["kind", "new"]) == found.of(["kind", "new"])
