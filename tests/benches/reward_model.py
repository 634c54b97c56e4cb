"""What the reward model learns from how many labels: `python -m tests.benches.reward_model [--seeds 3] [--json]`.

In the tiny world a supervised model answers training prompts, four answers each, and clean simulated people judge them:
all four in order (Plackett–Luce), the first two (Bradley–Terry), or only the first (thumbs). A label is one such vote;
5 % of them are held out, as ever. *Accuracy* is how many pairs of answers the mean of the heads puts in the order of
the true reward: on prompts that no vote was about, and on new answers to the others. Three more tables: Bradley–Terry
over all six pairs of each ranking; whether the heads' disagreement on a pair tells the wrong pairs (area under the
ROC); and what is left of the first of four weeks, each about other categories, when the last one has been learned.

Medians over seeds, each with a supervised model and people of its own; `--seeds 1 --labels 500` is quick. Supervised
models are kept in `--cache`. The exit code is 1 if something in "holds" does not.
"""

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import torch

from rlhf_online.events import Message
from rlhf_online.feedback.held_out import is_held_out
from rlhf_online.feedback.votes import Candidate, Comparison, Rating, Vote
from rlhf_online.models.policy import Policy
from rlhf_online.models.reward import RewardModel
from rlhf_online.models.tokens import ChatTokenizer
from rlhf_online.simulation import people, world
from rlhf_online.training.reward_update import RewardUpdater
from rlhf_online.training.settings import RewardTraining
from rlhf_online.training.votes import measures
from tests.benches.support import reports
from tests.support import learning

ROOT = Path(__file__).resolve().parents[2]
ANSWERS = 4
PEOPLE = 200
HELD_OUT = 0.05
MOST_PAIRED = 1500
"""Rankings that are also taken as six pairs each, which costs three times as much."""
WEEKS = ("fruit", "metal", "animal", "color")
WEEK_RANKINGS, WEEK_UPDATE = 750, 250


@dataclass(frozen=True, slots=True)
class Asked:
    """A prompt, the supervised model's answers to it in tokens, and their true rewards."""

    prompt: tuple[int, ...]
    answers: tuple[tuple[int, ...], ...]
    rewards: tuple[float, ...]


class Studio:
    """A supervised model that answers, and people who judge."""

    def __init__(self, cache: Path, seed: int) -> None:
        self.seed = seed
        self.model = supervised(cache, seed)
        self.tokenizer = ChatTokenizer(self.model)
        self._policy = Policy.load(self.model, tuning="full")
        self._asked = 0

    def ask(self, prompts: Sequence[world.Prompt], count: int) -> list[Asked]:
        """`count` times one of `prompts`, drawn evenly, with ANSWERS answers at temperature 1."""
        rng = random.Random(f"prompts {self.seed} {self._asked}")
        chosen = [rng.choice(prompts) for _ in range(count)]
        ids = [self.tokenizer.prompt_ids([Message(role="user", content=prompt.text)]) for prompt in chosen]
        self._asked += 1
        eos = self.tokenizer.eos_ids
        answers = self._policy.sample(
            [row for row in ids for _ in range(ANSWERS)],
            max_tokens=world.MAX_ANSWER_TOKENS,
            temperature=1.0,
            seed=1000 * self.seed + self._asked,
            eos_ids=eos,
        )
        groups = [answers[at : at + ANSWERS] for at in range(0, len(answers), ANSWERS)]
        return [
            Asked(row, tuple(group), tuple(self._reward(prompt, answer) for answer in group))
            for prompt, row, group in zip(chosen, ids, groups, strict=True)
        ]

    def _reward(self, prompt: world.Prompt, answer: tuple[int, ...]) -> float:
        finished = answer[-1] in self.tokenizer.eos_ids
        return world.true_reward(prompt, self.tokenizer.decode(answer), finished=finished)

    def updater(self, **settings: Any) -> RewardUpdater:
        """A reward model that has learned nothing yet, on the supervised model's trunk."""
        model = RewardModel.load(self.model, tuning="full", seed=self.seed)
        return RewardUpdater(model, RewardTraining(**settings), self.seed)


def supervised(cache: Path, seed: int) -> Path:
    """The supervised model of `seed`, made if it is not there: a minute."""
    folder = cache / f"seed-{seed}"
    made = folder / "sft"
    return made if (made / "config.json").is_file() else learning.fine_tune_world(folder, seed)


# People


def crowd(seed: int) -> Iterator[people.Person]:
    """One after the other, for ever; who comes next is drawn."""
    everybody = people.population(PEOPLE, seed=seed, shares={"clean": 1.0})
    rng = random.Random(f"crowd {seed}")
    while True:
        yield rng.choice(everybody)


Judge = Callable[[Asked, people.Person, str], list[Vote]]


def ranking(asked: Asked, person: people.Person, name: str) -> list[Vote]:
    return [_comparison(asked, person.rank(asked.rewards), person, name)]


def pair(asked: Asked, person: people.Person, name: str) -> list[Vote]:
    return [_comparison(asked, person.rank(asked.rewards[:2]), person, name)]


def all_pairs(asked: Asked, person: people.Person, name: str) -> list[Vote]:
    order = person.rank(asked.rewards)
    return [_comparison(asked, both, person, f"{name}-{a}{b}") for a, b in combinations(range(ANSWERS), 2)
            for both in [[order[a], order[b]]]]  # fmt: skip


def thumb(asked: Asked, person: people.Person, name: str) -> list[Vote]:
    """Everybody asked gives one: no selection here."""
    up = person.rng.random() < people.thumb_up_probability(asked.rewards[0])
    candidate = Candidate(token_ids=asked.answers[0])
    common: dict[str, Any] = {"event_id": name, "conversation_id": name, "person": person.name}
    return [Rating(**common, prompt_token_ids=asked.prompt, candidate=candidate, up=up)]


def _comparison(asked: Asked, order: Sequence[int], person: people.Person, name: str) -> Comparison:
    return Comparison(
        event_id=name,
        conversation_id=name.partition("-")[0],
        person=person.name,
        prompt_token_ids=asked.prompt,
        candidates=tuple(Candidate(token_ids=asked.answers[index]) for index in order),
        tiers=tuple((place,) for place in range(len(order))),
    )


def learn(updater: RewardUpdater, asked: Sequence[Asked], judge: Judge, seed: int, tag: str = "") -> float:
    """One update on what people say about `asked`; the seconds it took."""
    votes: tuple[list[Vote], list[Vote]] = [], []
    for number, (item, person) in enumerate(zip(asked, crowd(seed), strict=False)):
        name = f"{judge.__name__}{tag}{number}"
        votes[is_held_out(name, HELD_OUT)].extend(judge(item, person, name))
    reference = [(item.prompt, answer) for item in asked[:128] for answer in item.answers]
    began = time.monotonic()
    updater.update(*votes, reference)
    return time.monotonic() - began


# Measuring


def differences(model: RewardModel, asked: Sequence[Asked]) -> tuple[torch.Tensor, torch.Tensor]:
    """Over all pairs of answers to a prompt whose true rewards differ: by how much the first head, the second, … puts
    the better one above the other (P, K), and by how much it is better (P,)."""
    utilities = model.utilities([(item.prompt, answer) for item in asked for answer in item.answers])[:, 0]
    found, gaps = [], []
    for row, item in enumerate(asked):
        for a, b in combinations(range(ANSWERS), 2):
            if abs(gap := item.rewards[a] - item.rewards[b]) > 1e-9:
                delta = utilities[ANSWERS * row + a] - utilities[ANSWERS * row + b]
                found.append(delta if gap > 0 else -delta)
                gaps.append(abs(gap))
    return torch.stack(found), torch.tensor(gaps)


def accuracy(model: RewardModel, asked: Sequence[Asked]) -> float:
    mean_P = differences(model, asked)[0].mean(1)
    return ((mean_P > 0).float() + 0.5 * (mean_P == 0)).mean().item()


def telling_errors(model: RewardModel, asked: Sequence[Asked]) -> dict[str, float]:
    """How often a wrongly ordered pair is above a rightly ordered one by what the model itself says: the heads'
    spread on the probability that the one is better, their spread on the difference of utilities, that by the size of
    the difference, and only the smallness of the difference."""
    delta_PK, _ = differences(model, asked)
    mean_P, spread_P = delta_PK.mean(1), delta_PK.std(1, unbiased=False)
    signs = {
        "spread": delta_PK.sigmoid().std(1, unbiased=False),
        "raw_spread": spread_P,
        "relative_spread": spread_P / mean_P.abs(),
        "small_difference": -mean_P.abs(),
    }
    return {f"auc_{name}": _auc(values, mean_P <= 0) for name, values in signs.items()}


def _auc(values_P: torch.Tensor, wrong_P: torch.Tensor) -> float:
    def rows(chosen_P: torch.Tensor) -> list[tuple[int, float]]:
        return list(enumerate(values_P[chosen_P].tolist()[:2000]))

    return measures.ordered(rows(wrong_P), rows(~wrong_P)).value


# The tables


def labels(studio: Studio, sizes: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Accuracy by kind and number of labels, and the heads' spread against errors."""
    asked = studio.ask(world.training_prompts(), max(sizes))
    strange, known = studio.ask(world.held_out_prompts(), 800), studio.ask(world.training_prompts(), 800)
    for judge in (ranking, pair, all_pairs, thumb):
        for size in sizes:
            if judge is all_pairs and size > MOST_PAIRED:
                continue
            updater = studio.updater()
            seconds = learn(updater, asked[:size], judge, studio.seed)
            row = {"table": "labels", "kind": judge.__name__, "labels": size, "seed": studio.seed, "seconds": seconds}
            row |= {"held_out_prompts": accuracy(updater.model, strange), "new_answers": accuracy(updater.model, known)}
            row |= {"ece": updater.evaluate().ece} if judge is not thumb else {}
            yield row | telling_errors(updater.model, strange)


def forgetting(studio: Studio, replay: float) -> dict[str, Any]:
    """Four weeks, each about one category, in updates of WEEK_UPDATE rankings: accuracy on the first after each."""

    def about(category: str) -> list[world.Prompt]:
        return [prompt for prompt in world.training_prompts() if prompt.category == category]

    updater = studio.updater(replay=replay)
    test = {category: studio.ask(about(category), 300) for category in WEEKS}
    first: list[float] = []
    for week, category in enumerate(WEEKS):
        asked = studio.ask(about(category), WEEK_RANKINGS)
        for at in range(0, WEEK_RANKINGS, WEEK_UPDATE):
            learn(updater, asked[at : at + WEEK_UPDATE], ranking, studio.seed + at, f"w{week}u{at}n")
        first.append(accuracy(updater.model, test[WEEKS[0]]))
    last = accuracy(updater.model, test[WEEKS[-1]])
    row = {"table": "forgetting", "replay": replay, "seed": studio.seed, "week_4": last}
    return row | {f"week_1_after_{week}": value for week, value in enumerate(first, 1)}


COLUMNS = {
    "labels": (
        ("kind", "labels"),
        (
            *("held_out_prompts", "new_answers", "ece", "auc_spread", "auc_raw_spread", "auc_relative_spread"),
            *("auc_small_difference", "seconds"),
        ),
    ),
    "forgetting": (("replay",), (*(f"week_1_after_{week}" for week in range(1, 5)), "week_4")),
}


def holds(rows: Sequence[dict[str, Any]]) -> dict[str, bool]:
    """What is asked for, of the medians over the seeds; that which was measured."""

    def median(name: str, **key: object) -> float | None:
        values = [row[name] for row in rows if name in row and all(row.get(k) == v for k, v in key.items())]
        return statistics.median(values) if values else None

    ranked = {"table": "labels", "kind": "ranking", "labels": 3000}
    accuracy, auc = median("held_out_prompts", **ranked), median("auc_spread", **ranked)
    kept = {"table": "forgetting", "replay": 1.0}
    early, late = (median(f"week_1_after_{week}", **kept) for week in (1, 4))
    found: dict[str, bool] = {}
    if accuracy is not None and auc is not None:
        found["3,000 rankings order .84 of the held-out pairs rightly"] = accuracy >= 0.84
        found["the spread tells wrong pairs after 3,000 rankings, AUC ≥ .6"] = auc >= 0.6
    if early is not None and late is not None:
        found["what week 1 taught falls by .02 at most"] = early - late <= 0.02
    return found


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Medians over the seeds, the least and greatest in brackets."""
    for table, (keys, columns) in COLUMNS.items():
        print(f"\n{table}\n" + "".join(f"{name:>12}" for name in keys) + "".join(f"{name:>24}" for name in columns))
        of = [row for row in rows if row["table"] == table]
        for group in dict.fromkeys(tuple(row[key] for key in keys) for row in of):
            same = [row for row in of if tuple(row[key] for key in keys) == group]
            cells = ["".join(f"{value!s:>12}" for value in group)]
            for name in columns:
                values = [row[name] for row in same if name in row]
                text = f"{statistics.median(values):.3f} ({min(values):.3f}–{max(values):.3f})" if values else ""
                cells.append(f"{text:>24}")
            print("".join(cells))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0 … N-1")
    parser.add_argument("--labels", type=int, nargs="+", default=[500, 1500, 3000, 6000])
    parser.add_argument("--cache", type=Path, default=ROOT / "build" / "reward_model")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for seed in range(options.seeds):
        studio = Studio(options.cache, seed)
        for row in (forgetting(studio, replay) for replay in (1.0, 0.0)):
            rows.append(row)
            print(row, file=sys.stderr, flush=True)
        for row in labels(studio, options.labels):
            rows.append(row)
            print(row, file=sys.stderr, flush=True)
    held = holds(rows)
    if options.json:
        print(json.dumps({"rows": rows, "holds": held}))
    else:
        show(rows)
        print("\n" + "\n".join(reports.verdicts(held)))
    return 0 if all(held.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
