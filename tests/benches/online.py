"""Reward model and policy learn together from a live stream of few votes, against training once on all at the end.

    make bench BENCH=online      about 15 minutes on two cores

Traffic in the tiny world: each round the policy of the moment serves SERVED answers. One to three in a hundred get a
thumb, displeased people giving one three times as often as pleased ones; in one of a hundred, picked at random, the
person is asked and answers; RANKED prompts are answered four times and ranked. The reward model learns from the
round's votes with replay, the policy from the round's answers. *Offline* is one reward model from all the same votes,
and PPO from the fine-tuned model with as many updates. Also shown: by how much the share of thumbs up misses the share
of answers that please, before and after the correction (`tests.support.selection`), and what a reward model loses by
selected thumbs. The exit code is 1 if something in "holds" does not.
"""

import argparse
import random
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from rlhf_online.feedback.held_out import is_held_out
from rlhf_online.feedback.votes import Candidate, Rating, Vote
from rlhf_online.models.policy import Policy
from rlhf_online.models.reward import Heads, RewardModel
from rlhf_online.models.tokens import Pair
from rlhf_online.simulation import people, world
from rlhf_online.simulation.people import Person, thumb_up_probability
from rlhf_online.training.policy.settings import PolicyTraining
from rlhf_online.training.policy_update import PolicyUpdater
from rlhf_online.training.reward_update import RewardUpdater
from rlhf_online.training.settings import RewardTraining
from tests.benches.support import reports
from tests.benches.support.reports import listed, note
from tests.benches.support.workers import workers
from tests.benches.world import MEASURED_WITH, PEOPLE, gain, summary
from tests.support import learning
from tests.support.learning import Answer, Language, Loop, Measured
from tests.support.selection import ThumbTally, rates

ROUNDS, COLD_ROUNDS = 40, 10
"""The policy moves after COLD_ROUNDS of votes on the fine-tuned model."""
SERVED, LEARNED = 4000, 1024
RANKED = 30
RATES = (0.01, 0.03)
ASKED = 0.01
MEASURE_EVERY = 5
REWARD: dict[str, Any] = {"lr": 1e-3, "batch": 16, "epochs": 2, "cold_epochs": 4, "replay": 3.0}
POLICY: dict[str, Any] = {
    "lr": 6e-4, "epochs": 2, "minibatches": 4, "max_step_kl": 2.0, "algorithm": {"name": "ppo", "kl_coef": 0.05},
}  # fmt: skip
"""As in the demo, but for the reward model's learning rate."""
THUMBS = 2000


@dataclass(slots=True)
class CollectedVotes:
    """All votes of a run, and what became of the thumbs."""

    votes: list[Vote] = field(default_factory=list)
    given: list[bool] = field(default_factory=list)
    asked: list[bool] = field(default_factory=list)
    answers: int = 0
    pleased: float = 0.0
    """Sum over all answers of the probability that they please."""

    def selection(self) -> dict[str, float]:
        """Share of answers that please, and by how much two estimates from thumbs miss it."""
        given, asked = (
            ThumbTally(up=sum(thumbs), down=len(thumbs) - sum(thumbs)) for thumbs in (self.given, self.asked)
        )
        truth = self.pleased / self.answers
        return {
            "pleased": truth,
            "raw_bias": given.up / len(self.given) - truth,
            "corrected_bias": rates(given, asked, self.answers).share(given) - truth,
            "given": len(self.given),
            "asked": len(self.asked),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a seed came to. `curve`: votes so far and true reward; accuracies are those of reward models."""

    seed: int
    sft: Measured
    online: Measured
    offline: Measured
    curve: list[tuple[int, float]]
    kinds: dict[str, int]
    selection: dict[str, float]
    accuracy: dict[str, float]
    seconds: float


def follow(seed: int, folder: Path) -> Result:
    """One stream, learned from as it comes, and again at its end."""
    torch.set_num_threads(1)
    began = time.monotonic()
    sft = learning.fine_tune_world(folder, seed)
    language, policy = Language(sft), Policy.load(sft, tuning="full", seed=seed)
    crowd = people.population(PEOPLE, seed=seed)
    for person in crowd:
        person.rates = RATES
    judged = language.sample(policy, [p for p in world.held_out_prompts() for _ in range(16)], MEASURED_WITH + 1)
    before = learning.measure(language, policy, seed=MEASURED_WITH)
    collected, curve, model = _online(language, policy, crowd, sft, seed)
    online = learning.measure(language, policy, seed=MEASURED_WITH)
    written = language.sample(policy, [answer.prompt for answer in judged], MEASURED_WITH + 2)
    reference = [answer.pair for answer in judged]
    whole = _reward(language, sft, seed, cold_epochs=4)
    whole.update([vote for vote in collected.votes if not is_held_out_vote(vote)], [], reference)
    offline = _offline(language, whole.model, sft, seed)
    selected, asked = (_thumbs_only(language, sft, crowd, seed, asked=asked) for asked in (False, True))
    return Result(
        seed=seed,
        sft=before,
        online=online,
        offline=offline,
        curve=curve,
        kinds={
            "thumbs given": len(collected.given),
            "thumbs asked for": len(collected.asked),
            "rankings": len(collected.votes) - len(collected.given) - len(collected.asked),
        },
        selection=collected.selection(),
        accuracy={
            "online, on the fine-tuned model's answers": learning.accuracy(model, judged),
            "offline, on the fine-tuned model's answers": learning.accuracy(whole.model, judged),
            "online, on the last policy's answers": learning.accuracy(model, written),
            "offline, on the last policy's answers": learning.accuracy(whole.model, written),
            f"from {THUMBS} selected thumbs": learning.accuracy(selected, judged),
            f"from {THUMBS} thumbs of a random sample": learning.accuracy(asked, judged),
        },
        seconds=time.monotonic() - began,
    )


def _online(
    language: Language, policy: Policy, crowd: Sequence[Person], sft: Path, seed: int
) -> tuple[CollectedVotes, list[tuple[int, float]], RewardModel]:
    rng = random.Random(f"stream {seed}")
    reward = _reward(language, sft, seed, cold_epochs=REWARD["cold_epochs"])
    updater = PolicyUpdater(policy, PolicyTraining.model_validate(POLICY), seed)
    loop = Loop(language, updater, seed, scores=learning.scored_by(reward.model))
    collected, waiting = CollectedVotes(), list[Vote]()
    curve: list[tuple[int, float]] = []
    reference: list[Pair] = []
    for number in range(1, ROUNDS + 1):
        served = language.sample(policy, rng.choices(world.training_prompts(), k=SERVED), seed * 1_000_003 + number)
        reference = reference or [answer.pair for answer in served[:512]]
        votes = [*thumbs_on(served, crowd, collected, rng, number), *_rankings(language, policy, crowd, rng, number)]
        collected.votes += votes
        waiting += votes
        if number >= COLD_ROUNDS:
            held_out = [vote for vote in waiting if is_held_out_vote(vote)]
            reward.update([vote for vote in waiting if not is_held_out_vote(vote)], held_out, reference)
            waiting = []
            learning.begin_value(updater, reward.model)
            loop.step(served[:LEARNED])
        if number % MEASURE_EVERY == 0:
            curve.append((len(collected.votes), learning.measure(language, policy, seed=MEASURED_WITH, answers=9).mean))
    return collected, curve, reward.model


def _offline(language: Language, model: RewardModel, sft: Path, seed: int) -> Measured:
    policy = Policy.load(sft, tuning="full", seed=seed)
    updates = ROUNDS - COLD_ROUNDS + 1
    settings = PolicyTraining.model_validate(POLICY | {"lr_decay_updates": updates})
    updater = learning.updater_on(policy, settings, model, seed)
    Loop(language, updater, seed, scores=learning.scored_by(model), prompts=LEARNED // 4).run(updates)
    return learning.measure(language, policy, seed=MEASURED_WITH)


def _reward(language: Language, sft: Path, seed: int, *, cold_epochs: int) -> RewardUpdater:
    settings = RewardTraining.model_validate(REWARD | {"cold_epochs": cold_epochs})
    model = RewardModel.load(sft, tuning="full", heads=Heads(members=settings.heads), seed=seed)
    return RewardUpdater(model, settings, seed)


def is_held_out_vote(vote: Vote) -> bool:
    return is_held_out(vote.conversation_id, RewardTraining().held_out)  # pyright: ignore[reportCallIssue]


def thumbs_on(
    served: Sequence[Answer], crowd: Sequence[Person], collected: CollectedVotes, rng: random.Random, number: int
) -> Iterator[Rating]:
    for index, answer in enumerate(served):
        person = rng.choice(crowd)
        utility, asked = answer.utility(person), rng.random() < ASKED
        collected.answers += 1
        collected.pleased += thumb_up_probability(utility)
        up = person.thumb(utility, asked=asked)
        if up is not None:
            (collected.asked if asked else collected.given).append(up)
            yield _rating(answer, person, up, f"thumb-{number}-{index}")


def _rating(answer: Answer, person: Person, up: bool, name: str) -> Rating:
    return Rating(
        event_id=name,
        conversation_id=name,
        person=person.name,
        prompt_token_ids=answer.prompt_ids,
        candidate=Candidate(token_ids=answer.token_ids),
        up=up,
    )


def _rankings(
    language: Language, policy: Policy, crowd: Sequence[Person], rng: random.Random, number: int
) -> Iterator[Vote]:
    return learning.rankings(language, policy, crowd, world.training_prompts(), RANKED, rng.randrange(1 << 30))


def _thumbs_only(language: Language, sft: Path, crowd: Sequence[Person], seed: int, *, asked: bool) -> RewardModel:
    """A reward model from THUMBS thumbs on the fine-tuned model's answers: of people who like to, or who were asked."""
    rng, policy = random.Random(f"thumbs only {seed}"), Policy.load(sft, tuning="full")
    ratings: list[Rating] = []
    for batch in range(1000):
        for answer in language.sample(policy, rng.choices(world.training_prompts(), k=SERVED), seed + 17 * batch):
            person = rng.choice(crowd)
            up = person.thumb(answer.utility(person), asked=asked)
            if up is not None and len(ratings) < THUMBS:
                ratings.append(_rating(answer, person, up, f"only-{len(ratings)}"))
        if len(ratings) == THUMBS:
            break
    updater = _reward(language, sft, seed, cold_epochs=4)
    updater.update(ratings, [], [])
    return updater.model


def run(options: argparse.Namespace) -> dict[str, Any]:
    began = time.monotonic()
    found: list[Result] = []
    tasks = [(follow, (seed, options.out / f"seed-{seed}")) for seed in reports.seeds(options)]
    for one in workers(options.workers, tasks):
        found.append(one)
        note(f"seed {one.seed}: online {one.online.mean:.3f}, offline {one.offline.mean:.3f}, {one.seconds:.0f} s")
    found.sort(key=lambda one: one.seed)

    def mean(name: str) -> dict[str, float]:
        keys = getattr(found[0], name)
        return {key: round(statistics.fmean(getattr(one, name)[key] for one in found), 4) for key in keys}

    report = {
        "seeds": options.seeds,
        "sft": summary([one.sft.mean for one in found]),
        "online": summary([one.online.mean for one in found]) | {"kl": summary([one.online.kl for one in found])},
        "offline": summary([one.offline.mean for one in found]) | {"kl": summary([one.offline.kl for one in found])},
        "online_over_offline": gain([(one.online, one.offline) for one in found]),
        "curve": [
            {
                "votes": round(statistics.fmean(point[0] for point in points)),
                "reward": summary([point[1] for point in points]),
            }
            for points in zip(*(one.curve for one in found), strict=True)
        ],
        "votes": mean("kinds"),
        "selection": mean("selection"),
        "accuracy": mean("accuracy"),
        "wall_s": round(time.monotonic() - began, 1),
    }
    report["holds"] = {
        "online ≥ offline − .05": report["online_over_offline"]["mean"] >= -0.05,
        "online ≥ SFT + .2": report["online"]["mean"] >= report["sft"]["mean"] + 0.2,
        "the raw share of thumbs up misses by more than .1": abs(report["selection"]["raw_bias"]) > 0.1,
        "the corrected one by less than .03": abs(report["selection"]["corrected_bias"]) < 0.03,
    }
    return report


def table(report: dict[str, Any]) -> str:
    over, selection = report["online_over_offline"], report["selection"]
    learned = [(name, report[name]) for name in ("online", "offline")]
    lines = [
        "votes            " + ", ".join(f"{count:.0f} {kind}" for kind, count in report["votes"].items()),
        *(
            f"{point['votes']:>6} votes     {point['reward']['mean']:.3f}   {listed(point['reward']['seeds'])}"
            for point in report["curve"]
        ),
        f"SFT              {report['sft']['mean']:.3f}   {listed(report['sft']['seeds'])}",
        *(
            f"{name:<16} {row['mean']:.3f}   {listed(row['seeds'])}   KL {row['kl']['mean']:.2f}"
            for name, row in learned
        ),
        f"online − offline {over['mean']:+.3f} ± {over['stderr']:.3f}",
        f"share that pleases {selection['pleased']:.3f}; by thumbs {selection['raw_bias']:+.3f}, "
        f"corrected {selection['corrected_bias']:+.3f}",
        *(f"accuracy {value:.3f}   {name}" for name, value in report["accuracy"].items()),
        "",
        *reports.verdicts(report["holds"]),
    ]
    return "\n".join([*lines, f"\nwall {report['wall_s']:.0f} s"])


def main() -> int:
    return reports.conclude(reports.parser(__doc__, "online", seeds=3).parse_args(), run, table)


if __name__ == "__main__":
    sys.exit(main())
