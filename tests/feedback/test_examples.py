"""Votes from messages: what TRL's formats say, with ids that nobody had to invent, and what the updater learns."""

from pathlib import Path
from typing import Any

import pytest

from rlhf_online.errors import InvalidInput
from rlhf_online.feedback.examples import to_votes
from rlhf_online.feedback.votes import Comparison, Rating
from rlhf_online.models.reward import Heads, RewardModel
from rlhf_online.models.tokens import ChatTokenizer
from rlhf_online.simulation.tiny_model import write_tiny_model
from rlhf_online.training.reward_update import RewardUpdater
from rlhf_online.training.settings import RewardTraining

ASK = [{"role": "user", "content": "name one tool"}]
GOOD, BAD = [{"role": "assistant", "content": "saw"}], "fig"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny_model(folder, weights_seed=3)
    return folder


def test_each_form_becomes_its_vote(model: Path):
    tokenizer = ChatTokenizer(model)
    pair, thumb, ranking = to_votes(
        [
            {"prompt": ASK, "chosen": GOOD, "rejected": BAD, "strength": 2, "person": "ann"},
            {"prompt": "name one tool", "completion": GOOD, "label": False, "objective": "harmless"},
            {"prompt": ASK, "tiers": [["saw", "axe"], ["fig"]]},
        ],
        tokenizer,
    )
    assert isinstance(pair, Comparison) and isinstance(thumb, Rating) and isinstance(ranking, Comparison)
    assert pair.prompt_token_ids == thumb.prompt_token_ids == tokenizer.prompt_ids(ASK)
    assert [candidate.token_ids for candidate in pair.candidates] == [
        tokenizer.answer_ids("saw"),
        tokenizer.answer_ids("fig"),
    ]
    assert (pair.tiers, pair.strength, pair.person) == (((0,), (1,)), 2, "ann")
    assert (thumb.up, thumb.objective, ranking.tiers) == (False, "harmless", ((0, 1), (2,)))
    assert len({pair.event_id, thumb.event_id, ranking.event_id}) == 3
    assert pair.conversation_id == thumb.conversation_id == ranking.conversation_id


def test_a_reward_model_learns_from_them(model: Path):
    examples = [{"prompt": ASK, "chosen": GOOD, "rejected": BAD} for _ in range(40)]
    votes = to_votes(examples, ChatTokenizer(model))
    settings = RewardTraining.model_validate({"heads": 2, "batch": 8, "lr": 3e-3})
    reward = RewardModel.load(
        model, tuning="full", heads=Heads(objectives=settings.objectives, members=2, readout=settings.readout), seed=0
    )
    report = RewardUpdater(reward, settings, 0).update(votes[:39], votes[39:], [])
    assert report.new == 39 and report.measured.accuracy == 1.0


@pytest.mark.parametrize(
    ("example", "said"),
    [
        ({"prompt": ASK, "chosen": "saw"}, "it has 'prompt', 'chosen'"),
        ({"chosen": "saw", "rejected": "fig"}, "expected a 'prompt'"),
        ({}, "it has nothing"),
        ({"prompt": ASK, "chosen": "saw", "rejected": " "}, "an answer must be a text"),
        ({"prompt": ASK, "chosen": [*ASK, *GOOD], "rejected": BAD}, "a list of one message"),
        ({"prompt": ASK, "tiers": [["saw"]]}, "two answers or more"),
    ],
)
def test_a_mistake_names_its_example(model: Path, example: dict[str, Any], said: str):
    good = {"prompt": ASK, "chosen": GOOD, "rejected": BAD}
    with pytest.raises(InvalidInput, match="example 1: ") as raised:
        to_votes([good, example], ChatTokenizer(model))
    assert said in str(raised.value)
