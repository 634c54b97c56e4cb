"""What the learners take, and what they refuse before it can hurt."""

import random
import weakref
from pathlib import Path

import pytest
import torch

from rlhf_online.feedback.limits import check_vote
from rlhf_online.feedback.votes import Candidate, Rating
from rlhf_online.models.limits import ModelLimits
from rlhf_online.models.policy import Policy
from rlhf_online.models.reward import Heads, RewardModel
from rlhf_online.models.tokens import ChatTokenizer
from rlhf_online.rewards.compose import combine
from rlhf_online.simulation.tiny_model import write_tiny_model
from rlhf_online.training.learners import Learners
from rlhf_online.training.policy.settings import PolicyTraining
from rlhf_online.training.policy_update import PolicyUpdater
from rlhf_online.training.reward_update import RewardUpdater
from rlhf_online.training.settings import RewardTraining
from tests.support.comparisons import comparison


@pytest.fixture
def both(tmp_path: Path) -> Learners:
    write_tiny_model(tmp_path, weights_seed=0)
    tokenizer = ChatTokenizer(tmp_path)
    reward = RewardModel.load(tmp_path, folder=None, tuning="full", heads=Heads(members=2))
    updater = PolicyUpdater(Policy.load(tmp_path, tuning="full"), PolicyTraining.model_validate({}), 0)
    return Learners(
        RewardUpdater(reward, RewardTraining.model_validate({}), 0),
        updater,
        tokenizer,
        lambda folder, reference: pytest.fail("no version is loaded"),
    )


def test_the_limits_of_a_vote_are_those_of_both_models(both: Learners) -> None:
    limits = both.vote_limits
    assert (limits.models.vocabulary, limits.models.context) == (78, 128)
    assert limits.objectives == ("helpful",) and limits.tokens == 2 * both.reward.model.token_budget(16_384)
    vote = comparison(4, (30, 31, 2))
    check_vote(vote, limits)
    assert both.reward.update([vote], [], []).new == 1, "and it can be learned from"


def test_the_smaller_vocabulary_and_the_shorter_context_count(both: Learners, monkeypatch: pytest.MonkeyPatch) -> None:
    reward, policy = both.reward.model, both.policy.policy
    assert reward.limits == policy.limits == ModelLimits(vocabulary=78, context=128)
    for owner in (type(reward), policy):
        with monkeypatch.context() as patch:
            patch.setattr(owner, "limits", ModelLimits(vocabulary=500, context=64))
            assert both.limits == ModelLimits(vocabulary=78, context=64)
            patch.setattr(owner, "limits", ModelLimits(vocabulary=50, context=500))
            assert both.limits == ModelLimits(vocabulary=50, context=128)


def test_log_probabilities_are_those_of_the_policy_and_the_kl_counts_from_what_it_began_as(both: Learners) -> None:
    pairs = [((1, 20, 3), (30, 31, 2))]
    [policy], [(same, none)] = both.logprobs(pairs), both.logprobs_and_kl(pairs)
    assert len(policy) == 3 and same == policy and none == (0, 0, 0)
    with torch.no_grad():
        both.policy.policy.lm.get_parameter("lm_head.weight")[30] += 0.5
    [moved], [(same, kl)] = both.logprobs(pairs), both.logprobs_and_kl(pairs)
    assert moved[0] != pytest.approx(policy[0], abs=1e-3) and same == pytest.approx(moved, abs=1e-6)
    assert len(kl) == 3 and min(kl) > 0


def test_what_is_kept_of_the_learners_is_put_back(both: Learners) -> None:
    """Each for itself: the other one goes on as it is."""
    reward, policy = both.reward_part(), both.policy_part()
    with torch.no_grad():
        both.reward.model.heads.bias.add_(1.0)
        both.policy.policy.value_head.bias.add_(1.0)
    changed = both.policy_part()
    both.restore_reward(reward)
    assert all(torch.equal(tensor, both.reward_part().tensors[name]) for name, tensor in reward.tensors.items())
    assert torch.equal(both.policy_part().tensors["value.bias"], changed.tensors["value.bias"])
    both.restore_policy(policy)
    assert all(torch.equal(tensor, both.policy_part().tensors[name]) for name, tensor in policy.tensors.items())


def test_what_the_policy_was_is_let_go_of_before_another_version_is_loaded(tmp_path: Path, both: Learners) -> None:
    layer, value = both.policy.policy.lm.model.layers[0], torch.full((1,), 0.25)
    # As one that is compiled, it refers to itself.
    layer._compiled_call_impl = layer._call_impl  # noqa: SLF001
    before = [weakref.ref(both.policy.policy.lm), weakref.ref(layer)]
    del layer
    with torch.no_grad():
        both.policy.policy.value_head.bias.copy_(value)

    def load(folder: Path, reference: Path) -> PolicyUpdater:
        assert [held() for held in before] == [None, None]
        return PolicyUpdater(Policy.load(folder, tuning="full", reference=reference), PolicyTraining(), 0)

    learners = Learners(both.reward, both.policy, both.tokenizer, load)
    del both.policy
    learners.follow(tmp_path, tmp_path)
    assert torch.equal(learners.policy.policy.value_head.bias, value)


def test_kto_learns_from_the_thumbs_of_objectives_that_count(tmp_path: Path) -> None:
    write_tiny_model(tmp_path, weights_seed=0)
    tokenizer, objectives = ChatTokenizer(tmp_path), ("helpful", "harmless")
    reward = RewardModel.load(tmp_path, tuning="full", heads=Heads(members=2, objectives=objectives))
    values = PolicyTraining.model_validate({"algorithm": "kto"})
    learners = Learners(
        RewardUpdater(reward, RewardTraining.model_validate({"objectives": objectives}), 0),
        PolicyUpdater(Policy.load(tmp_path, tuning="full"), values, 0),
        tokenizer,
        lambda folder, reference: learners.policy,
    )
    thumbs = [
        Rating(
            event_id=f"e{number}",
            conversation_id=f"c{number}",
            person="p",
            prompt_token_ids=(1, 20, 3),
            candidate=Candidate(token_ids=(30 + number, 2)),
            up=number % 4 < 2,
            objective=objectives[number % 2] if number > 3 else "",
        )
        for number in range(12)
    ]
    learners.reward.update(thumbs, [], [])
    everything = learners.labels(100, random.Random(0), {"helpful": 1.0, "harmless": 2.0})
    assert {item.token_ids[0] for item in everything} == set(range(30, 42))
    assert {item.token_ids[0] for item in everything if item.desirable} == {30, 31, 34, 35, 38, 39}
    helpful = learners.labels(100, random.Random(0), {"helpful": 1.0, "harmless": 0.0})
    assert {item.token_ids[0] for item in helpful} == {30, 31, 32, 33, 34, 36, 38, 40}, "unnamed: the first objective"
    assert len(learners.labels(3, random.Random(0), {"helpful": 1.0, "harmless": 1.0})) == 3


def test_the_value_begins_as_the_combined_score(tmp_path: Path) -> None:
    write_tiny_model(tmp_path, weights_seed=0)
    tokenizer = ChatTokenizer(tmp_path)
    reward = RewardModel.load(tmp_path, tuning="full", heads=Heads(objectives=("helpful", "harmless"), members=2))
    settings = RewardTraining(objectives=("helpful", "harmless"))
    policy = PolicyUpdater(Policy.load(tmp_path, tuning="full"), PolicyTraining.model_validate({}), 0)
    made = Learners(RewardUpdater(reward, settings, 0), policy, tokenizer, lambda folder, reference: policy)
    pairs = [((1, 20 + i, 3), (30 + i, 2)) for i in range(12)]
    reward.normalise(pairs)
    made.init_value({"harmless": 3.0, "helpful": 1.0})
    score_N, _ = combine(reward.scores(pairs), torch.tensor([1.0, 3.0]), reward.correlation_OO)
    values_BA = policy.policy.forward(policy.policy.collate([(pairs[0][0], (*pairs[0][1], 2))])).values_BA
    # The trunks are equal, so the value of the state after the answer is its score.
    assert values_BA[0, -1].item() == pytest.approx(score_N[0].item(), abs=1e-4)


def test_with_another_trunk_the_value_begins_at_0(tmp_path: Path) -> None:
    """That of another width cannot be copied, and that of another model says nothing of the policy's states."""
    write_tiny_model(tmp_path, weights_seed=0)
    tokenizer = ChatTokenizer(tmp_path)
    reward = RewardUpdater(RewardModel.load(tmp_path, tuning="full"), RewardTraining.model_validate({}), 0)
    policy = PolicyUpdater(Policy.load(tmp_path, tuning="full"), PolicyTraining.model_validate({}), 0)
    made = Learners(reward, policy, tokenizer, lambda folder, reference: policy, other_trunk=True)
    reward.model.heads = torch.nn.Linear(7, 4)
    assert made.init_value({"helpful": 1.0}) and policy.value_ready
    assert not any(tensor.any() for tensor in policy.policy.value_head.parameters())
