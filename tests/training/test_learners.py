"""What the learners take, and what they refuse before it can hurt."""

from pathlib import Path

import pytest

from rlhf_online.config import PolicyTraining, RewardTraining
from rlhf_online.errors import InvalidInput
from rlhf_online.feedback.preferences import Candidate, Comparison
from rlhf_online.models.policy import Policy
from rlhf_online.models.reward import RewardModel
from rlhf_online.models.tokens import ChatTokenizer
from rlhf_online.simulation.tiny_model import write_tiny_model
from rlhf_online.training import learners
from rlhf_online.training.learners import Learners
from rlhf_online.training.policy_update import PolicyUpdater
from rlhf_online.training.reward_update import RewardUpdater


@pytest.fixture
def both(tmp_path: Path) -> Learners:
    write_tiny_model(tmp_path, weights_seed=0)
    tokenizer = ChatTokenizer(tmp_path)
    reward = RewardModel.load(tmp_path, folder=None, tuning="full", heads=2)
    policy = Policy.load(tmp_path, tuning="full")
    return Learners(
        RewardUpdater(reward, tokenizer, RewardTraining.model_validate({}), 0),
        PolicyUpdater(policy, PolicyTraining.model_validate({}), 0),
        tokenizer,
        lambda folder, reference: PolicyUpdater(policy, PolicyTraining.model_validate({}), 0),
    )


def ranking(answers: int, tokens: tuple[int, ...]) -> Comparison:
    return Comparison(
        event_id="e",
        conversation_id="c",
        person="p",
        prompt_token_ids=(1, 20, 3),
        candidates=tuple(Candidate(token_ids=tokens) for _ in range(answers)),
        tiers=tuple((index,) for index in range(answers)),
    )


def test_a_vote_that_fits_is_taken(both: Learners) -> None:
    vote = ranking(4, (30, 31, 2))
    both.check(vote)
    report = both.reward.update([vote], [], [])
    assert report.new == 1, "and can be learned from"


def test_a_vote_whose_answers_memory_cannot_hold_at_once_is_refused(
    both: Learners, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learners, "VOTE_TOKENS", 20)
    with pytest.raises(InvalidInput, match="8 answers take 48 tokens at once, and 40"):
        both.check(ranking(8, (30, 31, 2)))


def test_a_vote_on_another_models_tokens_is_refused(both: Learners) -> None:
    with pytest.raises(InvalidInput, match="vocabulary of 78"):
        both.check(ranking(2, (999, 2)))
