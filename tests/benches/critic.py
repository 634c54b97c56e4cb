"""What a critic's notes change, and is it seen? `python -m tests.benches.critic [--seeds 3] [--json]`.

In the tiny world ITEMS lists of four answers are judged by PEOPLE_AN_ITEM of PEOPLE people each, half of whom are in a
hurry: they click at random. Who sees an item's notes is drawn as the annotators' queue draws it. Streams of a seed have
the same items and people:

    true          who sees notes looks, in a hurry or not
    empty         control: notes change nobody
    misleading    who sees notes puts the best answer last, at which they point

*Agreement* is what `rlhf-online critic effect` says notes change of Krippendorff's α, with its 95 % interval; *ρ* how
far who judged beside notes and without is believed by the reward model at last (`training.votes.raters`), on average.
*Accuracy* is how many pairs of answers to held-out prompts a reward model orders as the true reward does that learned
from the votes beside notes alone, and from those without them alone.

The exit code is 1 if something in "holds" does not. Supervised models, of 300 steps, are kept in `--cache`.
"""

import argparse
import random
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from rlhf_online.events import SHOWN, WITHHELD, AnswerRef, Envelope, Feedback, Ranking
from rlhf_online.feedback.votes import Comparison
from rlhf_online.models.policy import Policy
from rlhf_online.models.reward import RewardModel
from rlhf_online.rewards.critic.effect import changes, effect
from rlhf_online.simulation import people, world
from rlhf_online.simulation.people import Person
from rlhf_online.training.reward_update import RewardUpdater
from rlhf_online.training.settings import RewardTraining
from services.chat.annotation.queue import sees_notes
from tests.benches.support import reports
from tests.benches.support.reports import listed, note
from tests.benches.support.workers import Task, workers
from tests.support import learning
from tests.support.learning import Answer, Language

SFT_STEPS = 300
ITEMS, PEOPLE_AN_ITEM, UPDATES = 400, 4, 4
PEOPLE, HURRIED = 16, 8
ANSWERS = 8
"""Measured to each held-out prompt."""
LEAST_GAIN = 0.02

Stream = Literal["true", "empty", "misleading"]
STREAMS: tuple[Stream, ...] = get_args(Stream)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """`change` is what notes change of the agreement, with its interval's ends; ρ and accuracy are of votes beside
    notes, and of those without."""

    seed: int
    stream: Stream
    change: tuple[float, float, float]
    rho: tuple[float, float]
    accuracy: tuple[float, float]


def supervised(cache: Path, seed: int) -> int:
    """The supervised model of a seed, made once."""
    folder = cache / f"seed-{seed}"
    if not (folder / "sft" / "config.json").is_file():
        torch.set_num_threads(1)
        learning.fine_tune_world(folder, seed, steps=SFT_STEPS)
    return seed


def votes(items: Sequence[Sequence[Answer]], seed: int, stream: Stream) -> list[Comparison]:
    """Each item's, by people who are drawn; the first HURRIED are in a hurry."""
    crowd, rng = people.population(PEOPLE, seed=seed, shares={"clean": 1.0}), random.Random(f"who judges {seed}")
    cast = []
    for number, answers in enumerate(items):
        for place in rng.sample(range(PEOPLE), PEOPLE_AN_ITEM):
            person, name = crowd[place], f"item-{number}"
            assisted = sees_notes(name, person.name)
            person.mode = "random" if place < HURRIED and not (assisted and stream == "true") else "people"
            vote = judged(answers, person, f"{name} {place}", misled=assisted and stream == "misleading")
            cast.append(replace(vote, assisted=assisted, conversation_id=name))
    return cast


def judged(answers: Sequence[Answer], person: Person, name: str, *, misled: bool) -> Comparison:
    vote = learning.ranking(answers, person, name)
    if not misled:
        return vote
    best = max(range(len(answers)), key=lambda place: answers[place].reward)
    last = next(each for each in vote.candidates if each.position == best)
    return replace(vote, candidates=(*(each for each in vote.candidates if each is not last), last))


def logged(vote: Comparison) -> Envelope:
    """The vote as the chat service logs it."""
    item = vote.conversation_id
    refs = [AnswerRef(completion_id=item, index=candidate.position) for candidate in vote.candidates]
    event = Feedback(
        conversation_id=item,
        person=vote.person,
        kind=Ranking(tiers=tuple((ref,) for ref in refs)),
        annotation_item=item,
        notes=SHOWN if vote.assisted else WITHHELD,
    )
    return Envelope(event_id=vote.event_id, event=event)


def learn(seed: int, stream: Stream, cache: Path) -> Found:
    torch.set_num_threads(1)
    sft = cache / f"seed-{seed}" / "sft"
    language, policy = Language(sft), Policy.load(sft, tuning="full")
    asked = random.Random(f"critic {seed}").choices(world.training_prompts(), k=ITEMS)
    given = language.sample(policy, [prompt for prompt in asked for _ in range(4)], seed)
    held_out = language.sample(policy, [p for p in world.held_out_prompts() for _ in range(ANSWERS)], 90_000 + seed)
    reference = [answer.pair for answer in given[:512]]
    cast = votes([given[at : at + 4] for at in range(0, len(given), 4)], seed, stream)

    def taught(some: Sequence[Comparison]) -> tuple[float, dict[str, float]]:
        updater = RewardUpdater(RewardModel.load(sft, tuning="full", seed=seed), RewardTraining(), seed)
        believed: dict[str, float] = {}
        for number in range(UPDATES):
            at, end = (len(some) * count // UPDATES for count in (number, number + 1))
            believed = updater.update(some[at:end], [], reference).signal_reliability
        return learning.accuracy(updater.model, held_out), believed

    change = changes(effect(map(logged, cast)))["agreement on orders"]
    _, believed = taught(cast)
    beside, without = (taught([vote for vote in cast if vote.assisted is arm])[0] for arm in (True, False))
    return Found(
        seed=seed,
        stream=stream,
        change=(change.value, change.low, change.high),
        rho=(believed["assisted"], believed["unassisted"]),
        accuracy=(beside, without),
    )


# The report


def run(options: argparse.Namespace) -> dict[str, Any]:
    found: list[Found] = []

    def streams(result: object) -> list[Task]:
        """Once a supervised model is there."""
        return [(learn, (result, stream, options.cache)) for stream in STREAMS] if isinstance(result, int) else []

    seeds = range(options.first, options.first + options.seeds)
    for result in workers(options.workers, [(supervised, (options.cache, seed)) for seed in seeds], streams):
        if isinstance(result, Found):
            note(f"{asdict(result)}")
            found.append(result)
    found.sort(key=lambda each: each.seed)
    true, empty, misleading = ([each for each in found if each.stream == stream] for stream in STREAMS)
    holds = {
        "notes that make people look raise their agreement, surely and in each seed": all(
            each.change[1] > 0 for each in true
        ),
        "control: empty notes change it surely in one seed at most": sum(
            not each.change[1] <= 0 <= each.change[2] for each in empty
        )
        <= 1,
        "who looks because of notes is believed more beside them, in each seed": all(
            each.rho[0] > each.rho[1] for each in true
        ),
        f"their votes teach {LEAST_GAIN:g} more than those without": statistics.fmean(
            each.accuracy[0] - each.accuracy[1] for each in true
        )
        >= LEAST_GAIN,
        "who is misled by notes is believed less beside them, in each seed": all(
            each.rho[0] < each.rho[1] for each in misleading
        ),
    }
    return {"ok": all(holds.values()), "found": [asdict(each) for each in found], "holds": holds}


def table(report: dict[str, Any]) -> str:
    rows = []
    for stream in STREAMS:
        same = [each for each in report["found"] if each["stream"] == stream]
        change = ", ".join("{:+.2f} ({:+.2f} to {:+.2f})".format(*each["change"]) for each in same)
        rows.append(f"{stream}\n    agreement    {change}")
        for name in ("rho", "accuracy"):
            beside, without = (listed([each[name][arm] for each in same]) for arm in (0, 1))
            rows.append(f"    {name:<13}{beside} beside notes, {without} without")
    return "\n".join([*rows, *reports.verdicts(report["holds"])])


def main() -> int:
    parser = reports.parser(__doc__, "critic", seeds=3)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--cache", type=Path, default=reports.ROOT / "build" / "judge-sft", help="supervised models")
    return reports.conclude(parser.parse_args(), run, table)


if __name__ == "__main__":
    sys.exit(main())
