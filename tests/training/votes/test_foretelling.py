"""What the reward model makes of votes before it learns from them."""

from dataclasses import replace

import pytest

from rlhf_online.feedback.votes import Candidate, Comparison, Rating, pairs
from rlhf_online.models.reward import Heads, RewardModel
from rlhf_online.simulation.tiny_model import write_tiny_model
from rlhf_online.training.votes.foretelling import foretell
from rlhf_online.training.votes.rater_bias import RaterBias
from rlhf_online.watch.drift import foretold

PROMPT = (1, 10, 3)
COMPARISON = Comparison(
    event_id="c",
    conversation_id="c",
    person="p",
    prompt_token_ids=PROMPT,
    candidates=(Candidate(token_ids=(20, 2)), Candidate(token_ids=(40, 2)), Candidate(token_ids=(30, 2))),
    tiers=((1,), (0, 2)),
)
THUMB = Rating(
    event_id="t", conversation_id="t", person="p", prompt_token_ids=PROMPT, objective="harmless",
    candidate=Candidate(token_ids=(20, 2)), up=False,
)  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> RewardModel:
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny_model(folder, weights_seed=3)
    return RewardModel.load(folder, tuning="full", heads=Heads(objectives=("helpful", "harmless"), members=3))


def test_a_vote_is_foretold_by_its_objectives_heads_and_a_thumb_with_its_persons_bias(model: RewardModel) -> None:
    helpful, harmless = RaterBias(), RaterBias()
    harmless.common, harmless.people = 0.5, {"p": 0.25}
    [first, second] = foretell(model, [COMPARISON, THUMB], (helpful, harmless))
    u = model.utilities(pairs(COMPARISON)).mean(2)
    order = [(u[1, 0] - u[0, 0]).item(), (u[1, 0] - u[2, 0]).item()]
    assert (first[0], second[0]) == (COMPARISON, THUMB)
    assert first[1].loss == pytest.approx(foretold("helpful/comparison", order).loss, rel=1e-5)
    assert first[1].said == "helpful/comparison"
    down = foretold("harmless/thumb", [-(u[0, 1].item() + 0.75)])
    assert (second[1].said, second[1].loss) == (down.said, pytest.approx(down.loss, rel=1e-5))


def test_nothing_is_foretold_of_ties_signals_and_votes_that_no_person_gave(model: RewardModel) -> None:
    left_out = [
        replace(COMPARISON, tiers=((0, 1, 2),)),
        replace(COMPARISON, by_ai=True),
        replace(THUMB, signal="stop"),
    ]
    assert foretell(model, left_out, (RaterBias(), RaterBias())) == []
