"""Do rules lift what nobody votes on? `python -m tests.benches.rules [--seeds 5] [--json]`.

In the tiny world people judge answers by the true reward, to which it is the same whether an answer says *please* or
another of the six fillers. For each seed: a supervised model, a reward model from RANKINGS rankings of clean people,
and from there ITERATIONS of PPO twice: by the reward model alone, and with the rule of RULES beside it, as the trainer
adds it (`rewards.compose`), no vote more. Measured on held-out prompts, the same for all: the share of answers that
the rule pays for, and the true reward. And the rule's weights, fitted to FITTED pairs of answers in an order that some
hidden weights give, on other pairs; and how many answers a second a set of ten propositions reads, on one core.

    make bench BENCH=rules

The exit code is 1 if something in "holds" does not. Supervised fine-tuning is shorter than the demo's: a minute a seed.
"""

import argparse
import random
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from rlhf_online.models.policy import Policy
from rlhf_online.models.reward import RewardModel
from rlhf_online.rewards import compose
from rlhf_online.rewards.rules import reading
from rlhf_online.rewards.rules.fitting import Ordered, fit
from rlhf_online.rewards.rules.propositions import Exchange
from rlhf_online.rewards.rules.ruleset import RuleSet, parse, reward
from rlhf_online.simulation import people, world
from rlhf_online.training.policy.settings import PolicyTraining
from tests.benches.support import reports
from tests.benches.support.reports import listed, note
from tests.benches.support.workers import Task, workers
from tests.support import learning
from tests.support.learning import Answer, Language, Loop, Scores

SFT_STEPS, RANKINGS, PEOPLE = 300, 600, 24
ITERATIONS, PROMPTS = 12, 48
ANSWERS = 8
"""Measured to each held-out prompt."""
FITTED = 200
LEAST_LIFT, MOST_LOSS = 0.3, 0.1
"""Of the share that the rule pays for over the reward model alone, in each seed; of true reward, on the mean."""
RULES = """
[propositions.please]
words = ["please"]

[rules.polite]
weights = { please = 1.0 }
"""
HIDDEN = {"short": 1.5, "please": -0.5, "yes": 0.75}
STYLE = """
[propositions.short]
length = { max = 3 }
[propositions.please]
words = ["please"]
[propositions.yes]
regex = '^yes\\b'
[rules.style]
weights = { short = 0, please = 0, yes = 0 }
"""
TEN = """
[propositions.a]
regex = '(?i)\\bzinc\\b'
[propositions.b]
words = ["please", "sure", "of course"]
[propositions.c]
length = { max = 60, soft = 20 }
[propositions.d]
format = "json"
[propositions.e]
format = "bullets"
[propositions.f]
language = "en"
[propositions.g]
prompt_ngrams = 3
[propositions.h]
calls = "search"
[propositions.i]
finished = true
[propositions.j]
json_schema = { type = "object", required = ["answer"] }
[rules.all]
weights = { a = 1, b = 1, c = 1, d = 1, e = 1, f = 1, g = 1, h = 1, i = 1, j = 1 }
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """What a policy says on held-out prompts: the share that the rule pays for, and the mean true reward."""

    share: float
    reward: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    seed: int
    supervised: Arm
    people: Arm
    rules: Arm
    fitted: float
    """Share of other pairs that the fitted weights order as the hidden ones do."""
    seconds: float
    """Of one core."""


def learn(seed: int, folder: Path) -> Found:
    """Both arms of a seed."""
    torch.set_num_threads(1)
    began = time.process_time()
    sft = learning.fine_tune_world(folder, seed, steps=SFT_STEPS)
    language, policy = Language(sft), Policy.load(sft, tuning="full")
    crowd = people.population(PEOPLE, seed=seed, shares={"clean": 1.0})
    votes = list(learning.rankings(language, policy, crowd, world.training_prompts(), RANKINGS, seed))
    model = learning.reward_model(language, sft, votes, seed)
    judged = answers_of(language, policy, seed)
    return Found(
        seed=seed,
        supervised=arm(judged),
        people=improved(language, sft, model, seed, learning.scored_by(model)),
        rules=improved(language, sft, model, seed, with_rules(language, model)),
        fitted=fitted(judged),
        seconds=time.process_time() - began,
    )


def with_rules(language: Language, model: RewardModel) -> Scores:
    """The reward model's scores and the rule's rewards, as the reward service makes one score of them."""
    rules = parse(RULES)

    def scores(answers: Sequence[Answer]) -> list[float]:
        pairs = [answer.pair for answer in answers]
        score_N, _ = compose.combine(model.scores(pairs), torch.ones(1), model.correlation_OO)
        rewards_NR = torch.tensor(reading.rewards(rules, language.tokenizer, pairs))
        return compose.with_rules(score_N, rewards_NR, torch.ones(1)).tolist()

    return scores


def improved(language: Language, sft: Path, model: RewardModel, seed: int, scores: Scores) -> Arm:
    """After ITERATIONS updates by `scores`."""
    settings = PolicyTraining.model_validate(
        {
            "algorithm": {"name": "ppo", "kl_coef": 0.04, "value_lr": 1e-3},
            "lr": 1e-3,
            "lr_decay_updates": ITERATIONS,
            "epochs": 4,
            "minibatches": 4,
            "max_step_kl": 4.0,
        }
    )
    policy = Policy.load(sft, tuning="full")
    loop = Loop(language, learning.updater_on(policy, settings, model, seed), seed, scores=scores, prompts=PROMPTS)
    loop.run(ITERATIONS)
    return arm(answers_of(language, policy, seed))


def answers_of(language: Language, policy: Policy, seed: int) -> list[Answer]:
    asked = [prompt for prompt in world.held_out_prompts() for _ in range(ANSWERS)]
    return language.sample(policy, asked, 90_000 + seed)


def arm(answers: Sequence[Answer]) -> Arm:
    return Arm(
        share=statistics.fmean("please" in answer.text.split() for answer in answers),
        reward=statistics.fmean(answer.reward for answer in answers),
    )


def fitted(answers: Sequence[Answer]) -> float:
    """The fitted weights on pairs that they were not fitted to."""
    rules = parse(STYLE).set
    hidden = rules.rules["style"].model_copy(update={"weights": HIDDEN})
    exchanges = [Exchange(answer.prompt.text, answer.text, answer.finished) for answer in answers]
    rng = random.Random(0)
    pairs: list[Ordered] = []
    while len(pairs) < 2 * FITTED:
        one, other = rng.sample(exchanges, 2)
        ours, theirs = (reward(hidden, rules.features(each)) for each in (one, other))
        if ours != theirs:
            pairs.append(Ordered(one, other) if ours > theirs else Ordered(other, one))
    weights = fit(rules, "style", pairs[:FITTED]).weights
    learned = rules.rules["style"].model_copy(update={"weights": weights})
    return statistics.fmean(_ordered(rules, learned, each) for each in pairs[FITTED:])


def _ordered(rules: RuleSet, rule: Any, pair: Ordered) -> bool:
    return reward(rule, rules.features(pair.better)) > reward(rule, rules.features(pair.worse))


def answers_a_second() -> float:
    """Read by TEN, of 200 words each."""
    rules = parse(TEN).set
    exchange = Exchange("Name three metals, please.", " ".join(["Zinc and iron are metals of the earth."] * 25))
    rules.rewards(exchange)
    began = time.thread_time()
    for _ in range(200):
        rules.rewards(exchange)
    return 200 / (time.thread_time() - began)


# The report


def run(options: argparse.Namespace) -> dict[str, Any]:
    speed = answers_a_second()
    found: list[Found] = []
    tasks: list[Task] = [(learn, (seed, options.out / f"seed-{seed}")) for seed in reports.seeds(options)]
    for result in workers(options.workers, tasks):
        note(f"seed {result.seed}: please in {result.people.share:.2f} → {result.rules.share:.2f}")
        found.append(result)
    found.sort(key=lambda each: each.seed)
    loss = statistics.fmean(each.people.reward - each.rules.reward for each in found)
    holds = {
        f"the rule lifts its share by {LEAST_LIFT:g} over people's votes alone, in each seed": all(
            each.rules.share - each.people.share >= LEAST_LIFT for each in found
        ),
        f"at most {MOST_LOSS:g} of true reward is lost for it on the mean": loss <= MOST_LOSS,
        "both are above the supervised model's true reward on the mean": all(
            statistics.fmean(getattr(each, which).reward - each.supervised.reward for each in found) > 0
            for which in ("people", "rules")
        ),
        "fitted weights order at least .95 of other pairs": min(each.fitted for each in found) >= 0.95,
    }
    return {
        "ok": all(holds.values()),
        "seeds": [asdict(each) for each in found],
        "answers_a_second": round(speed),
        "holds": holds,
    }


def table(report: dict[str, Any]) -> str:
    seeds = report["seeds"]
    rows = [f"{'':<34}{'please in':<38}true reward"]
    for which, name in (("supervised", "supervised"), ("people", "people's votes"), ("rules", "… and the rule")):
        shares, rewards = ([each[which][what] for each in seeds] for what in ("share", "reward"))
        rows.append(f"{name:<34}{listed(shares):<38}{listed(rewards)}")
    rows.append(f"{'fitted weights, other pairs':<34}{listed([each['fitted'] for each in seeds])}")
    rows.append(f"{'answers a second, ten propositions':<34} {report['answers_a_second']}")
    return "\n".join([*rows, *reports.verdicts(report["holds"])])


def main() -> int:
    options = reports.parser(__doc__, "rules", seeds=5).parse_args()
    return reports.conclude(options, run, table)


if __name__ == "__main__":
    sys.exit(main())
