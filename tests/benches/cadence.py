"""How often to learn and how near to stay to the reference: the demo's loop without its services.

    make bench BENCH=cadence                                        some 3 minutes of one core a seed and case
    make bench BENCH=cadence ARGS="--first 33 --seeds 1 --cases 75x512@0.05 75x512@0.2"

A case is VOTESxANSWERS@KL or VOTESxANSWERS@KL/LR: so many votes begin a cycle, the policy learns from so many answers,
its penalty is that, and the reward model's learning rate that (the demo's, if none is named). In each the people of the
demo give VOTES votes, nine in ten of them rankings of four answers of the policy of the moment; each cycle the reward
model learns from the new ones with replay, and the policy makes one update on fresh answers to training prompts. True
reward is that of held-out prompts: the mean over the versions of the last SETTLED votes, since a single one tells
little, and on its own that of questions whose true answer is yes, which are fewer than those whose is no. The exit code
is 1 if the demo's own case is not at least as good as each other one, but for two standard errors over the seeds.
"""

import argparse
import random
import re
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from rlhf_online.models.policy import Policy
from rlhf_online.models.reward import Heads, RewardModel
from rlhf_online.simulation import demo, people, world
from rlhf_online.training.policy.settings import PolicyTraining
from rlhf_online.training.policy_update import PolicyUpdater
from rlhf_online.training.reward_update import RewardUpdater
from rlhf_online.training.settings import RewardTraining
from tests.benches.online import CollectedVotes, is_held_out_vote, thumbs_on
from tests.benches.support import reports
from tests.benches.support.reports import note
from tests.benches.support.workers import workers
from tests.benches.world import MEASURED_WITH, PEOPLE
from tests.support import learning
from tests.support.learning import Language, Loop

VOTES, SETTLED = 5300, 600
THUMBS = 0.08
"""Share of the votes."""
COLD = 350
CASES = ("75x512@0.2", "75x512@0.2/2e-3", "75x512@0.05", "150x1024@0.05")
CASE = re.compile(r"(\d+)x(\d+)@([\d.]+)(?:/([\d.e-]+))?")


@dataclass(frozen=True, slots=True)
class Result:
    case: str
    seed: int
    true_reward: float
    yes: float
    kl: float
    seconds: float


def learn(case: str, seed: int, folder: Path) -> Result:
    """One stream of votes, learned from as the case says."""
    torch.set_num_threads(1)
    began = time.monotonic()
    votes, answers, kl_coef, lr = _parsed(case)
    sft = learning.fine_tune_world(folder, seed)
    language, policy = Language(sft), Policy.load(sft, tuning="full", seed=seed)
    crowd, rng = people.population(PEOPLE, seed=seed), random.Random(f"cadence {seed}")
    chosen = demo.TRAINER
    reward_settings = RewardTraining.model_validate({**chosen["reward"], "lr": lr})
    model = RewardModel.load(sft, tuning="full", heads=Heads(members=reward_settings.heads), seed=seed)
    reward = RewardUpdater(model, reward_settings, seed)
    algorithm = {**chosen["policy"]["algorithm"], "kl_coef": kl_coef}
    updater = PolicyUpdater(policy, PolicyTraining.model_validate({**chosen["policy"], "algorithm": algorithm}), seed)
    loop = Loop(language, updater, seed, scores=learning.scored_by(model))
    collected, reference, settled = CollectedVotes(), [], []
    given = cycle = 0
    while given < VOTES:
        cycle += 1
        new = votes if given else COLD
        served = language.sample(policy, rng.choices(world.training_prompts(), k=2 * new), seed * 1_000_003 + cycle)
        reference = reference or [answer.pair for answer in served[:512]]
        thumbs = [*thumbs_on(served, crowd, collected, rng, cycle)][: round(THUMBS * new)]
        ranked = new - len(thumbs), rng.randrange(1 << 30)
        batch = [*thumbs, *learning.rankings(language, policy, crowd, world.training_prompts(), *ranked)]
        rng.shuffle(batch)
        given += len(batch)
        kept = [vote for vote in batch if not is_held_out_vote(vote)]
        reward.update(kept, [vote for vote in batch if is_held_out_vote(vote)], reference)
        learning.begin_value(updater, model)
        asked = [prompt for prompt in rng.choices(world.training_prompts(), k=answers // 4) for _ in range(4)]
        loop.step(language.sample(policy, asked, seed * 7_000_003 + cycle))
        if given > VOTES - SETTLED:
            settled.append(learning.measure(language, policy, seed=MEASURED_WITH, answers=4).mean)
    last = learning.measure(language, policy, seed=MEASURED_WITH)
    return Result(
        case=case,
        seed=seed,
        true_reward=statistics.fmean(settled),
        yes=_yes(language, policy),
        kl=last.kl,
        seconds=time.monotonic() - began,
    )


def _parsed(case: str) -> tuple[int, int, float, float]:
    found = CASE.fullmatch(case)
    if found is None:
        raise argparse.ArgumentTypeError(f"{case!r} is no case: it looks like {CASES[0]}")
    return int(found[1]), int(found[2]), float(found[3]), float(found[4] or demo.TRAINER["reward"]["lr"])


def _case(text: str) -> str:
    _parsed(text)
    return text


def _yes(language: Language, policy: Policy) -> float:
    prompts = [p for p in world.held_out_prompts() if isinstance(p, world.IsPrompt) and p.truth == "yes"]
    answers = language.sample(policy, [prompt for prompt in prompts for _ in range(8)], MEASURED_WITH)
    return statistics.fmean(answer.reward for answer in answers)


def run(options: Any) -> dict[str, Any]:
    seeds = reports.seeds(options)
    tasks = [(learn, (case, seed, options.out / f"{case}-{seed}")) for seed in seeds for case in options.cases]
    found: list[Result] = []
    for one in workers(options.workers, tasks):
        found.append(one)
        note(f"seed {one.seed}, {one.case}: {one.true_reward:.3f}, yes {one.yes:.3f}, KL {one.kl:.2f}")
    rows = [
        {
            "case": case,
            "results": sorted((asdict(one) for one in found if one.case == case), key=lambda one: one["seed"]),
        }
        for case in options.cases
    ]
    own = _own()
    return {"rows": rows, "own": own, "holds": _holds(rows, own)}


def _own() -> str:
    trainer = demo.TRAINER
    kl_coef = trainer["policy"]["algorithm"]["kl_coef"]
    return f"{trainer['min_votes']}x{trainer['rollout']['per_cycle']}@{kl_coef}"


def _holds(rows: Sequence[dict[str, Any]], own: str) -> dict[str, bool]:
    values = {row["case"]: [one["true_reward"] for one in row["results"]] for row in rows}
    found: dict[str, bool] = {}
    for case, others in values.items():
        if own in values and case != own:
            more = [a - b for a, b in zip(values[own], others, strict=True)]
            error = statistics.stdev(more) / len(more) ** 0.5 if len(more) > 1 else 0.0
            found[f"{own} is as good as {case}"] = statistics.fmean(more) >= -2 * error
    return found


def table(report: dict[str, Any]) -> str:
    lines = [f"{'case':<16}{'true reward':>12}{'yes':>7}{'KL':>6}   by seed"]
    for row in report["rows"]:
        mean = {name: statistics.fmean(one[name] for one in row["results"]) for name in ("true_reward", "yes", "kl")}
        by_seed = " ".join(f"{one['seed']}: {one['true_reward']:.3f}" for one in row["results"])
        lines.append(f"{row['case']:<16}{mean['true_reward']:>12.3f}{mean['yes']:>7.3f}{mean['kl']:>6.2f}   {by_seed}")
    return "\n".join([*lines, *reports.verdicts(report["holds"])])


def main() -> int:
    parser = reports.parser(__doc__, "cadence", seeds=3)
    parser.add_argument("--cases", nargs="+", type=_case, default=list(CASES), help="VOTESxANSWERS@KL")
    return reports.conclude(parser.parse_args(), run, table)


if __name__ == "__main__":
    sys.exit(main())
