"""What a critic's notes change, and is it seen? `python -m tests.benches.critic [--seeds 3] [--json]`.

In the tiny world ITEMS lists of four answers are judged by PEOPLE_AN_ITEM of PEOPLE people each, half of whom are in a
hurry: they click at random. Who sees an item's notes is drawn as the annotators' queue draws it. Streams of a seed have
the same items and people:

    true          who sees notes looks, in a hurry or not
    empty         control: notes change nobody
    misleading    who sees notes puts the best answer last, at which they point

*Agreement* is what `rlhf-online critic effect` says notes change of Krippendorff's α, with its 95 % interval; *ρ* how
far who judged beside notes and without is believed by the reward model at last (`training.votes.raters`), on average,
the former as far as their votes agree with those without (`training.votes.beside_notes`).
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

from rlhf_online.events import SHOWN, WITHHELD, AnswerRef, Envelope, Feedback, Ranking
from rlhf_online.feedback.votes import Comparison
from rlhf_online.rewards.critic.effect import changes, effect
from rlhf_online.simulation import people
from rlhf_online.simulation.people import Person
from services.chat.annotation.queue import sees_notes
from tests.benches.support import arms, reports
from tests.benches.support.arms import Lists
from tests.benches.support.reports import listed, note
from tests.support import learning
from tests.support.learning import Answer

SFT_STEPS = 300
ITEMS, PEOPLE_AN_ITEM, UPDATES = 400, 4, 4
PEOPLE, HURRIED = 16, 8
LEAST_GAIN, SAME = 0.02, 0.1

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


def votes(items: Sequence[Sequence[Answer]], seed: int, stream: Stream) -> list[Comparison]:
    """Each item's, by people who are drawn; the first HURRIED are in a hurry."""
    crowd, rng = people.population(PEOPLE, seed=seed, shares={"clean": 1.0}), random.Random(f"who judges {seed}")
    cast = []
    for number, answers in enumerate(items):
        for place in rng.sample(range(PEOPLE), PEOPLE_AN_ITEM):
            person, name = crowd[place], f"item-{seed}-{number}"
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


def learn(seed: int, sft: Path, stream: Stream) -> Found:
    lists = Lists.drawn("critic", seed, sft, ITEMS)
    cast = votes(lists.shown, seed, stream)
    change = changes(effect(map(logged, cast)))["agreement on orders"]
    told = [report.signal_reliability for report in lists.taught(cast, UPDATES)[1]]
    believed = next(each for each in reversed(told) if "assisted" in each)  # after an alarm of drift nobody is known
    beside, without = (
        lists.accuracy(lists.taught([vote for vote in cast if vote.assisted is arm], UPDATES)[0])
        for arm in (True, False)
    )
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
    for result in arms.found(options, learn, [(stream,) for stream in STREAMS], SFT_STEPS):
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
        f"control: who sees empty ones as who sees none, ± {SAME:g}, in each seed": all(
            abs(each.rho[0] - each.rho[1]) <= SAME for each in empty
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
    parser = arms.parser(__doc__, "critic", seeds=3, cache="judge-sft")
    return reports.conclude(parser.parse_args(), run, table)


if __name__ == "__main__":
    sys.exit(main())
