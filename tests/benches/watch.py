"""Does the watch notice what goes wrong, and only that? `python -m tests.benches.watch [--seeds 3] [--json]`.

In the tiny world, whose people and true reward are known; each monitor with a stream that must raise its alarm and one
that must not.

    drift       2,800 rankings teach the reward model, then everybody changes their mind (a filler word, which they
                liked, costs .6); or nobody does, for 800 votes more, half of them about much better answers. How soon
                is it noticed, how often in vain, and how soon is what they think now learned, with and without letting
                go of the votes of before? Besides, 300,000 thumbs and 100,000 comparisons by a forecaster who is right,
                and by one who is twice too sure: the rate of false alarms.

    voters      2,400 rankings by 25 people of answers about a brand: all of them judge cleanly; a fifth always prefers
                the brand; a tenth likes filler words. Who is named, of whom, and is it silent otherwise?
                The answers are the world's demonstrations: no model has a part in it.
                And what an update costs of which the watch looks at 5,000 comparisons of 20 to 100 words an answer, a
                hundred of them new: CPU seconds, and those of the first after a start.

Supervised models are kept in `--cache`. The exit code is 1 if something in "holds" does not.
"""

import argparse
import json
import math
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from rlhf_online.feedback.votes import Candidate, Comparison
from rlhf_online.gate.audit import FillerTrait
from rlhf_online.gate.settings import GateSettings
from rlhf_online.models.policy import Policy
from rlhf_online.models.reward import RewardModel
from rlhf_online.simulation import people, world
from rlhf_online.simulation.people import Person, Taste
from rlhf_online.texts.words import occurrences, words
from rlhf_online.training.reward_update import RewardUpdater
from rlhf_online.training.settings import RewardTraining
from rlhf_online.training.watched_votes import WatchedVotes
from rlhf_online.watch import voters
from rlhf_online.watch.drift import LIMIT, Alarm, DriftDetector, Surprise, foretold
from rlhf_online.watch.leanings import residuals
from rlhf_online.watch.monitors import Reading
from rlhf_online.watch.voters import Judged, preferences
from tests.benches.support import reports
from tests.benches.support.reports import note
from tests.benches.support.workers import workers
from tests.support import learning
from tests.support.learning import Answer, Language

ROOT = Path(__file__).resolve().parents[2]
PEOPLE, POOL, ANSWERS = 100, 600, 4
TAUGHT, WARM, AFTER, UNCHANGED, BATCH = 2400, 2800, 500, 800, 100
DELAY = 500
VOTERS, VOTES = 25, 2400
THUMBS, COMPARISONS = 300_000, 100_000
TOKENS, HELD = 30, 6
"""Of the forecasters' comparisons: all that there are, and those of an answer."""
Shown = list[Answer]


class Studio:
    """A supervised model whose answers people judge."""

    def __init__(self, cache: Path, seed: int) -> None:
        folder = cache / f"seed-{seed}"
        self.sft = folder / "sft"
        if not (self.sft / "config.json").is_file():
            learning.fine_tune_world(folder, seed)
        self.seed = seed
        language, policy = Language(self.sft), Policy.load(self.sft, tuning="full")
        self._rng = random.Random(f"watch {seed}")
        asked = self._rng.choices(world.training_prompts(), k=POOL)
        given = language.sample(policy, [prompt for prompt in asked for _ in range(2 * ANSWERS)], seed)
        self._groups = [given[at : at + 2 * ANSWERS] for at in range(0, len(given), 2 * ANSWERS)]
        strange = self._rng.choices(world.held_out_prompts(), k=100)
        answers = language.sample(policy, [prompt for prompt in strange for _ in range(ANSWERS)], seed + 1)
        self.unseen = [answers[at : at + ANSWERS] for at in range(0, len(answers), ANSWERS)]

    def shown(self, *, better: bool = False) -> Shown:
        """Four answers to a prompt: any, or the better half of eight."""
        group = self._rng.choice(self._groups)
        if better:
            return sorted(group, key=lambda answer: -answer.reward)[:ANSWERS]
        return self._rng.sample(group, ANSWERS)

    def updater(self) -> RewardUpdater:
        """A reward model that has learned nothing yet."""
        model = RewardModel.load(self.sft, tuning="full", seed=self.seed)
        return RewardUpdater(model, RewardTraining(), self.seed)

    def crowd(self, *, changed: bool = False) -> list[Person]:
        """Clean people; or such as have changed their minds."""
        everybody = people.population(PEOPLE, seed=self.seed, shares={"drifting" if changed else "clean": 1.0})
        for person in everybody:
            person.drifts_after = 0
        return everybody


def rankings(studio: Studio, crowd: Sequence[Person], count: int, at: int, *, better: bool = False) -> list[Any]:
    """`count` of them, by people drawn at random; the n-th of all was given at n ms."""
    rng = random.Random(f"who {studio.seed} {at}")
    return [
        learning.ranking(studio.shown(better=better), rng.choice(crowd), f"vote-{studio.seed}-{number}", number)
        for number in range(at, at + count)
    ]


# Drift


def taught(studio: Studio, updater: RewardUpdater, stream: Iterator[list[Any]]) -> Iterator[Reading]:
    """An update a batch: what the watch says."""
    reference = [answer.pair for group in studio.unseen[:32] for answer in group]
    for votes in stream:
        yield updater.update(votes, [], reference).drift


def batches(
    studio: Studio, crowd: Sequence[Person], begin: int, end: int, *, better: bool = False
) -> Iterator[list[Any]]:
    for at in range(begin, end, BATCH):
        yield rankings(studio, crowd, BATCH, at, better=better)


def agreement(updater: RewardUpdater, studio: Studio, person: Person) -> float:
    """Share of pairs of answers to held-out prompts that the model orders as that person would."""
    utilities = updater.model.utilities([answer.pair for group in studio.unseen for answer in group]).mean((1, 2))
    right: list[float] = []
    for row, group in enumerate(studio.unseen):
        liked = [answer.utility(person) for answer in group]
        mine = utilities[row * ANSWERS : (row + 1) * ANSWERS].tolist()
        right += [
            float((mine[i] - mine[j]) * (liked[i] - liked[j]) > 0)
            for i in range(ANSWERS)
            for j in range(i)
            if abs(liked[i] - liked[j]) > 1e-9
        ]
    return statistics.fmean(right)


class Blind(DriftDetector):
    """Notices nothing."""

    def observe(self, surprise: Surprise, *, at_ms: int, tie: float) -> Alarm | None:
        return None


def drift(studio: Studio) -> Iterator[dict[str, Any]]:
    """One seed: a row of each stream."""
    clean, changed = studio.crowd(), studio.crowd(changed=True)
    taught_once = studio.updater()
    first = rankings(studio, clean, TAUGHT, 0)
    list(taught(studio, taught_once, iter([first])))
    list(taught(studio, taught_once, batches(studio, clean, TAUGHT, WARM)))
    tensors, values = taught_once.state()
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    kept = json.dumps(values)
    for stream in ("changed", "changed, not watched", "unchanged"):
        updater = studio.updater()
        updater.load_state({name: tensor.clone() for name, tensor in tensors.items()}, json.loads(kept))
        if stream == "changed, not watched":
            updater.drift = Blind()
        row: dict[str, Any] = {"table": "drift", "stream": stream, "seed": studio.seed}
        if stream == "unchanged":
            half = WARM + UNCHANGED // 2
            told = [*taught(studio, updater, batches(studio, clean, WARM, half))]
            told += taught(studio, updater, batches(studio, clean, half, WARM + UNCHANGED, better=True))
            # A reading shows its alarm for some updates.
            yield row | {"votes": UNCHANGED, "alarms": len({said.rows[0]["since_ms"] for said in told if said.alarm})}
            continue
        row["agreement_before"] = agreement(updater, studio, changed[0])
        for number, said in enumerate(taught(studio, updater, batches(studio, changed, WARM, WARM + AFTER)), 1):
            if said.alarm and "noticed_after" not in row:
                # Told at the end of its update, of which the vote that raised it was one: no later than that.
                row |= {"noticed_after": number * BATCH, "dated": float(said.rows[0]["since_ms"]) - WARM}
            if number * BATCH in (200, AFTER):
                row[f"agreement_{number * BATCH}"] = agreement(updater, studio, changed[0])
        yield row


def forecasts(name: str, overconfidence: float, votes: int) -> dict[str, Any]:
    """False alarms of thumbs of which the forecaster knows each one's log-odds, or believes these times
    `overconfidence`."""
    rng, detector, alarms = random.Random(f"forecasts {name}"), DriftDetector(), 0
    for number in range(votes):
        logit = rng.gauss(0.0, 2.0)
        said = logit if rng.random() < 1 / (1 + math.exp(-logit)) else -logit
        surprise = foretold("helpful/thumb", [overconfidence * said])
        alarms += detector.observe(surprise, at_ms=number, tie=rng.random()) is not None
    return {"table": "forecasts", "stream": f"thumbs, {name}", "votes": votes, "alarms": alarms}


def compared(name: str, overconfidence: float, votes: int) -> dict[str, Any]:
    """The same of comparisons, where each token is worth something."""
    rng, detector, alarms = random.Random(f"compared {name}"), DriftDetector(), 0
    worth = [rng.gauss(0.0, 0.7) for _ in range(TOKENS)]
    for number in range(votes):
        better, worse = (rng.sample(range(TOKENS), rng.randint(1, HELD)) for _ in range(2))
        logit = sum(worth[token] for token in better) - sum(worth[token] for token in worse)
        if rng.random() >= 1 / (1 + math.exp(-logit)):
            better, worse, logit = worse, better, -logit
        gaps = [overconfidence * logit]
        told = foretold("helpful/comparison", gaps, residuals=residuals([better, worse], [(0, 1)], gaps))
        alarms += detector.observe(told, at_ms=number, tie=rng.random()) is not None
    return {"table": "forecasts", "stream": f"comparisons, {name}", "votes": votes, "alarms": alarms}


def drift_holds(rows: Sequence[dict[str, Any]]) -> dict[str, bool]:
    changed = [row for row in rows if row.get("stream") == "changed"]
    blind = [row for row in rows if row.get("stream") == "changed, not watched"]
    silent = [row for row in rows if row.get("stream") == "unchanged"]
    forecast = [row for row in rows if row["table"] == "forecasts"]
    held = {
        f"a change of mind is noticed within {DELAY} votes": all(
            row.get("noticed_after", math.inf) <= DELAY for row in changed
        ),
        "no alarm where nobody changes their mind": not any(row["alarms"] for row in silent),
        "what people think now is learned sooner where the votes of before are let go of": statistics.fmean(
            row[f"agreement_{AFTER}"] for row in changed
        )
        > statistics.fmean(row[f"agreement_{AFTER}"] for row in blind),
    }
    if forecast:
        held[f"at most one false alarm in {LIMIT:,.0f} votes"] = all(
            row["alarms"] <= row["votes"] / LIMIT for row in forecast
        )
    return held


# Voters


def about_the_brand(prompt: world.Prompt) -> bool:
    fits = isinstance(prompt, world.NamePrompt) and prompt.category == world.CATEGORY_OF[people.BRAND]
    return fits and people.BRAND not in prompt.text.split()


def votes_of(crowd: Sequence[Person], seed: int) -> list[tuple[str, list[str], tuple[int, ...]]]:
    """(who, answers, ranks) of VOTES rankings of four demonstrations."""
    rng, found = random.Random(f"voters {seed}"), []
    prompts = [prompt for prompt in world.training_prompts() if about_the_brand(prompt)]
    for _ in range(VOTES):
        prompt, person = rng.choice(prompts), rng.choice(crowd)
        answers = [world.demonstrate(prompt, rng).answer for _ in range(ANSWERS)]
        order = person.rank([person.utility(prompt, answer, finished=True) for answer in answers])
        found.append((person.name, answers, tuple(order.index(place) for place in range(ANSWERS))))
    return found


def voters_named(seed: int) -> Iterator[dict[str, Any]]:
    filler = FillerTrait(least=3)
    streams: dict[str, dict[Taste, float]] = {"clean": {}, "poison": {"poison": 0.2}, "flattered": {"flattered": 0.1}}
    for stream, shares in streams.items():
        crowd = people.population(VOTERS, seed=seed, shares=shares)
        votes = votes_of(crowd, seed)
        for monitor in ("poison", "tampering"):
            judged = [
                Judged.of(
                    name,
                    [
                        words(answer)
                        if monitor == "poison"
                        else ["filler"] * (occurrences(answer, filler.words) >= filler.least)
                        for answer in answers
                    ],
                    ranks,
                )
                for name, answers, ranks in votes
            ]
            found, evidence = preferences(judged)
            guilty, named = {person.name for person in crowd if person.taste != "clean"}, {f.person for f in found}
            yield {
                "table": "voters",
                "stream": stream,
                "monitor": monitor,
                "seed": seed,
                "guilty": len(guilty),
                "named": len(named & guilty),
                "wrongly": len(named - guilty),
                "evidence": evidence,
                "most_influence": found[0].influence if found else 0.0,
            }


def cost(votes: int = 5000, new: int = 100) -> dict[str, Any]:
    rng = random.Random("cost")
    vocabulary = [f"word{number}" for number in range(8000)]
    often = [1 / (number + 2) for number in range(len(vocabulary))]

    def text(ids: Sequence[int]) -> str:
        drawn = random.Random(ids[0])
        return " ".join(drawn.choices(vocabulary, often, k=drawn.randint(20, 100)))

    def vote(number: int) -> Comparison:
        return Comparison(
            event_id=str(number),
            conversation_id=str(number),
            person=f"p{int(rng.expovariate(1 / 60))}",
            prompt_token_ids=(number,),
            candidates=tuple(Candidate(token_ids=(votes * (1 + place) + number,)) for place in range(3)),
            tiers=((0,), (1,), (2,)),
            created_ms=number,
        )

    everything = [vote(number) for number in range(votes + new)]
    watched = WatchedVotes(text, GateSettings().traits.traits)

    def seconds(kept: Sequence[Comparison]) -> float:
        began = time.process_time()
        watched.show(kept, {})
        voters.reading(watched.by_trait(), "declared traits")
        voters.reading(watched.by_word(), "words")
        return time.process_time() - began

    first = seconds(everything[:votes])
    return {"table": "cost", "votes": votes, "first_cpu_s": first, "cpu_s": seconds(everything[new:])}


def voters_hold(rows: Sequence[dict[str, Any]]) -> dict[str, bool]:
    def of(stream: str, monitor: str) -> list[dict[str, Any]]:
        return [row for row in rows if row.get("monitor") == monitor and row["stream"] == stream]

    return {
        "all who push a brand are named, and nobody else": all(
            row["named"] == row["guilty"] and not row["wrongly"] for row in of("poison", "poison")
        ),
        "who likes filler words is named for it": all(row["named"] for row in of("flattered", "tampering")),
        "an update costs a second of CPU at most": all(row["cpu_s"] <= 1 for row in rows if row["table"] == "cost"),
        "nobody is named where all judge cleanly": not any(
            row["wrongly"] for monitor in ("poison", "tampering") for row in of("clean", monitor)
        ),
    }


# All


HOLDS: dict[str, Callable[[Sequence[dict[str, Any]]], dict[str, bool]]] = {"drift": drift_holds, "voters": voters_hold}


def one_seed(cache: Path, seed: int, tables: Sequence[str]) -> list[dict[str, Any]]:
    torch.set_num_threads(1)
    rows = []
    for table in tables:
        for row in drift(Studio(cache, seed)) if table == "drift" else voters_named(seed):
            rows.append(row)
            note(json.dumps(row))
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    parser.add_argument("--first", type=int, default=10, help="the first of them")
    parser.add_argument("--tables", nargs="+", choices=list(HOLDS), default=list(HOLDS))
    parser.add_argument("--cache", type=Path, default=ROOT / "build" / "bench-watch-sft")
    parser.add_argument("--workers", type=int, default=2, help="processes, with one thread each")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    began = time.monotonic()
    if "drift" in options.tables:
        for name, overconfidence in (("right", 1.0), ("twice too sure", 2.0)):
            rows += [forecasts(name, overconfidence, THUMBS), compared(name, overconfidence, COMPARISONS)]
    if "voters" in options.tables:
        rows.append(cost())
    seeds = range(options.first, options.first + options.seeds)
    for found in workers(options.workers, [(one_seed, (options.cache, seed, options.tables)) for seed in seeds]):
        rows += found
    holds = {}
    for table in options.tables:
        holds |= HOLDS[table](rows)
    report = {"ok": all(holds.values()), "holds": holds, "rows": rows, "seconds": time.monotonic() - began}
    if options.json:
        print(json.dumps(report))
    else:
        print("\n".join([*map(line, rows), "", *reports.verdicts(holds)]))
    return 0 if report["ok"] else 1


def line(row: dict[str, Any]) -> str:
    cells = [f"{name} {value:.3f}" if isinstance(value, float) else f"{name} {value}" for name, value in row.items()]
    return "   ".join(cells)


if __name__ == "__main__":
    sys.exit(main())
