"""The whole of learning, made short: fine-tuning, a reward model from people's rankings, PPO; the true reward rises.

`benches.world` is the long version.
"""

from pathlib import Path

import pytest

from rlhf_online.models.policy import Policy
from rlhf_online.simulation import people, world
from rlhf_online.training.policy.settings import PolicyTraining
from tests.support import learning
from tests.support.learning import Language, Loop

SEED = 1


@pytest.fixture(scope="module")
def sft(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return learning.fine_tune_world(tmp_path_factory.mktemp("learning"), SEED, steps=500)


@pytest.mark.parametrize("mode", ["people", "inverted"])
def test_the_true_reward_follows_what_people_like(sft: Path, mode: people.Mode):
    language, policy = Language(sft), Policy.load(sft, tuning="full")
    crowd = people.population(8, seed=SEED, mode=mode)
    votes = list(learning.rankings(language, policy, crowd, world.training_prompts(), 1500, SEED))
    # Half as many rankings as the long version has: as many optimiser steps take twice the passes.
    settings = learning.REWARD.model_copy(update={"cold_epochs": 8})
    model = learning.reward_model(language, sft, votes, SEED, settings)
    before = learning.measure(language, policy, seed=5)
    settings = PolicyTraining(lr=6e-4, lr_decay_updates=16, max_step_kl=4.0)
    updater = learning.updater_on(policy, settings, model, SEED)
    loop = Loop(language, updater, SEED, scores=learning.scored_by(model), prompts=128)
    loop.run(8)
    assert not any(report.undone for report in loop.reports)
    gained, stderr = learning.measure(language, policy, seed=5).over(before)
    assert loop.reports[-1].score > loop.reports[0].score + 0.2
    sign = 1 if mode == "people" else -1
    assert sign * gained > max(0.1, 3 * stderr), (gained, stderr)


def test_the_best_of_many_is_the_mean_over_all_subsets(sft: Path):
    language, policy = Language(sft), Policy.load(sft, tuning="full")
    crowd = people.population(4, seed=SEED)
    votes = list(learning.rankings(language, policy, crowd, world.training_prompts(), 20, SEED))
    model = learning.reward_model(language, sft, votes, SEED)
    found = learning.best_of(language, policy, model, (1, 2, 5), seed=3, pool=5)
    asked = [prompt for prompt in world.held_out_prompts() for _ in range(5)]
    given = language.sample(policy, asked, 3)
    scores = learning.scored_by(model)(given)
    for prompt in range(0, len(given), 5):
        five = sorted(zip(scores[prompt : prompt + 5], given[prompt : prompt + 5], strict=True), key=lambda one: one[0])
        rewards = [answer.reward for _, answer in five]
        assert found[1].by_prompt[prompt // 5] == pytest.approx(sum(rewards) / 5)
        assert found[5].by_prompt[prompt // 5] == pytest.approx(rewards[-1])
        pairs = [rewards[max(i, j)] for i in range(5) for j in range(5) if i != j]
        assert found[2].by_prompt[prompt // 5] == pytest.approx(sum(pairs) / 20)
