"""The policy updater: step zero (oracle 7), exact micro-batches, undoing, learning, and coming back."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from rlhf_online.config import PolicyTraining
from rlhf_online.errors import InvalidInput
from rlhf_online.models.policy import Policy
from rlhf_online.models.reward import RewardModel
from rlhf_online.rollout.buffer import Rollout, ScoredRollout
from rlhf_online.simulation.tiny_model import write_tiny_model
from rlhf_online.training.policy_update import PolicyUpdater

PROMPTS = [(1, 10 + i % 20, 20, 3) if i % 3 else (1, 10 + i % 20, 3) for i in range(48)]
WANTED = 33


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny_model(folder, weights_seed=3)
    return folder


def _updater(base: Path, *, tuning: Any = "full", seed: int = 0, **settings: object) -> PolicyUpdater:
    policy = Policy.load(base, tuning=tuning)
    return PolicyUpdater(policy, PolicyTraining.model_validate({"max_step_kl": 50.0} | settings), seed)


def _rollouts(policy: Policy, seed: int = 1, temperature: float = 1.0, prompts=PROMPTS) -> list[ScoredRollout]:
    """Answers of `policy`; an answer is worth what share of it is the word WANTED."""
    answers = policy.sample(prompts, max_tokens=4, temperature=temperature, seed=seed, eos_ids=(2, 5, 6, 7))
    pairs = list(zip(prompts, answers, strict=True))
    return [
        ScoredRollout(
            rollout=Rollout(
                rollout_id=str(index),
                prompt_token_ids=prompt,
                token_ids=answer,
                logprobs=logprobs,
                policy_version="policy-000000",
                temperature=temperature,
                finished=answer[-1] in (2, 5, 6, 7),
            ),
            score=10 * answer.count(WANTED) / len(answer),
        )
        for index, ((prompt, answer), logprobs) in enumerate(
            zip(pairs, policy.logprobs(pairs, temperature=temperature), strict=True)
        )
    ]


def _rescored(rollouts: list[ScoredRollout], score: float) -> list[ScoredRollout]:
    return [ScoredRollout(rollout=scored.rollout, score=score) for scored in rollouts]


@pytest.mark.parametrize("tuning", ["full", "lora"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_at_step_zero_the_ratio_is_one_and_the_kl_zero(base: Path, tuning, temperature: float):
    updater = _updater(base, tuning=tuning, epochs=1, minibatches=1)
    report = updater.update(_rollouts(updater.policy, temperature=temperature))
    assert report.kl == pytest.approx(0, abs=1e-6)
    assert report.behaviour_k3 <= 1e-10 and report.clip_fraction == 0
    assert report.policy_loss == pytest.approx(0, abs=1e-5), "ratio 1: minus the mean of whitened advantages"
    assert not report.undone and 0 < report.step_kl < 1


def test_the_report_by_hand(base: Path):
    updater = _updater(base, missing_eos_penalty=0.5, reward_clip=2.0)
    rollouts = _rollouts(updater.policy)
    report = updater.update(rollouts)
    scores = [scored.score for scored in rollouts]
    unfinished = sum(not scored.rollout.finished for scored in rollouts)
    assert 0 < unfinished < len(rollouts)
    assert report.score == pytest.approx(sum(scores) / 48, abs=1e-5)
    clipped = sum(min(2.0, score) for score in scores) - 0.5 * unfinished
    assert report.reward == pytest.approx(clipped / 48, abs=1e-5), "KL is 0"
    assert report.length == sum(len(scored.rollout.token_ids) for scored in rollouts) / 48
    assert report.rollouts == 48 and report.kl_coef == 0.03


def test_the_kl_is_paid_for(base: Path):
    updater = _updater(base, kl_coef=0.5, lr=3e-3)
    updater.update(_rollouts(updater.policy))
    rollouts = _rescored(_rollouts(updater.policy, seed=2), 1.0)
    report = updater.update(rollouts)
    assert report.kl > 0.01
    unfinished = sum(not scored.rollout.finished for scored in rollouts) / 48
    assert report.reward == pytest.approx(1 - unfinished - 0.5 * report.kl, abs=1e-4)


def test_micro_batches_give_the_gradient_of_the_minibatch(base: Path):
    whole = _updater(base, epochs=1, minibatches=1)
    pieces = _updater(base, epochs=1, minibatches=1, micro_batch_tokens=40)
    rollouts = _rollouts(whole.policy)
    assert len(pieces._micro_batches(rollouts, range(48))) > 5
    assert len(whole._micro_batches(rollouts, range(48))) == 1
    whole.update(rollouts)
    pieces.update(rollouts)
    gradients = {n: t for n, t in whole.state()[0].items() if n.startswith("adam.exp_avg.")}
    assert len(gradients) > 10 and any(tensor.abs().max() > 1e-4 for tensor in gradients.values())
    for name, tensor in gradients.items():
        assert torch.allclose(tensor, pieces.state()[0][name], atol=1e-6)


def test_it_learns_what_scores(base: Path):
    updater = _updater(base, lr=3e-3, epochs=4, kl_coef=0.0)
    before = sum(scored.score for scored in _rollouts(updater.policy, seed=9, prompts=PROMPTS * 4)) / 192
    for cycle in range(10):
        report = updater.update(_rollouts(updater.policy, seed=cycle, prompts=PROMPTS * 4))
        assert not report.undone
    after = sum(scored.score for scored in _rollouts(updater.policy, seed=9, prompts=PROMPTS * 4)) / 192
    assert after > before + 2


def test_answers_of_an_older_policy_keep_their_own_logprobs(base: Path):
    updater = _updater(base, lr=3e-3, epochs=1, minibatches=1)
    stale = _rollouts(updater.policy)
    updater.update(stale)
    report = updater.update(stale)
    assert report.behaviour_k3 > 1e-5
    assert abs(report.policy_loss) > 1e-4, "the ratio is no longer 1"


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_a_step_too_far_is_undone(base: Path, tuning):
    updater = _updater(base, tuning=tuning, lr=0.05, max_step_kl=0.05)
    before = updater.state()
    report = updater.update(_rollouts(updater.policy))
    assert report.undone and "nats an answer" in report.reason and report.step_kl > 0.05
    after = updater.state()
    assert before[0].keys() == after[0].keys()
    assert all(torch.equal(before[0][name], after[0][name]) for name in before[0])
    assert after[1]["updates"] == 1


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_a_score_that_is_no_number_changes_nothing(base: Path, score: float):
    updater = _updater(base, epochs=1)
    rollouts = _rollouts(updater.policy)
    updater.update(rollouts)
    before = updater.state()[0]
    broken = [*rollouts[:-1], ScoredRollout(rollout=rollouts[-1].rollout, score=score)]
    report = updater.update(broken)
    after = updater.state()[0]
    if score != score:
        assert report.undone and "not finite" in report.reason
        assert all(torch.equal(before[name], after[name]) for name in before)
    else:
        assert not report.undone, "an infinite score is clipped"
    assert all(tensor.isfinite().all() for tensor in after.values())


def test_nan_weights_are_noticed(base: Path):
    updater = _updater(base)
    rollouts = _rollouts(updater.policy)
    with torch.no_grad():
        updater.policy.value_head.weight[0, 0] = float("nan")
    assert updater.update(rollouts).undone


def test_an_adaptive_coefficient_moves_with_the_kl(base: Path):
    updater = _updater(base, kl_coef=0.1, kl_target=5.0)
    updater.update(_rollouts(updater.policy))
    assert updater.controller.coef == pytest.approx(0.1 * (1 - 0.2 * 48 / 10_000))


def test_the_value_head_begins_as_the_mean_reward_head_once(base: Path):
    updater = _updater(base)
    reward = RewardModel.load(base, tuning="full", heads=4)
    pairs = [(scored.rollout.prompt_token_ids, scored.rollout.token_ids) for scored in _rollouts(updater.policy)]
    reward.normalise(pairs)
    updater.init_value(*reward.linear(torch.ones(1)))
    _, values_BA = updater.policy.forward(updater.policy.collate([(pairs[0][0], (*pairs[0][1], 2))]))
    # The trunks are equal, so the value of a whole answer's state is its score.
    assert values_BA[0, -1].item() == pytest.approx(reward.scores(pairs[:1]).mean().item(), abs=1e-4)
    other = RewardModel.load(base, tuning="full", heads=4, seed=9)
    weight = updater.policy.value_head.weight.clone()
    updater.init_value(*other.linear(torch.ones(1)))
    assert torch.equal(weight, updater.policy.value_head.weight)


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_a_restored_updater_goes_on_as_if_nothing_had_happened(base: Path, tuning):
    updater = _updater(base, tuning=tuning, kl_target=1.0)
    updater.init_value(*RewardModel.load(base, tuning="full", heads=4).linear(torch.ones(1)))
    updater.update(_rollouts(updater.policy))
    tensors, values = updater.state()
    torch.manual_seed(5)
    again = _updater(base, tuning=tuning, kl_target=1.0)
    again.load_state(tensors, json.loads(json.dumps(values)))
    rollouts = _rollouts(updater.policy, seed=2)
    assert updater.update(rollouts) == again.update(rollouts)
    one, two = updater.state(), again.state()
    assert one[1] == two[1] and one[0].keys() == two[0].keys()
    assert all(torch.equal(one[0][name], two[0][name]) for name in one[0])


def test_unusable_rollouts_are_refused(base: Path):
    updater = _updater(base)
    with pytest.raises(InvalidInput, match="at least one"):
        updater.update([])
    greedy = Rollout(
        rollout_id="x",
        prompt_token_ids=(1, 3),
        token_ids=(4, 2),
        logprobs=(0.0, 0.0),
        policy_version="policy-000000",
        temperature=0.0,
        finished=True,
    )
    with pytest.raises(InvalidInput, match="temperature"):
        updater.update([ScoredRollout(rollout=greedy, score=0.0)])
