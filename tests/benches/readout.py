"""What a reward model on a real chat model learns from few rankings, by where it reads an answer and by how many of the
model's layers learn.

    make bench BENCH=readout                                            about 40 minutes on two cores
    make bench BENCH=readout ARGS="--readouts mean --layers 0 10 6"     by layers alone

SmolLM2-135M-Instruct answers everyday prompts, simulated people (`everyday`) rank four answers at a time by a known
utility and noise, and reward models learn from the same votes with the settings of `rlhf-online up`: one reads an
answer at its last token, the other is the mean over its tokens; of one all layers have an adapter (0), of others the
topmost. All order answers to prompts that no vote was about; all answers to a prompt are compared, and "far" are those
whose utilities differ by FAR or more. The exit code is 1 if the mean over the tokens does not order more of them
rightly than the last token, or fewer layers order fewer than all, by two standard errors over the prompts.
"""

import random
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import torch

from rlhf_online.cli.up import BUNDLED, REAL_MODEL
from rlhf_online.events import Message
from rlhf_online.feedback.votes import Candidate, Comparison
from rlhf_online.models.policy import Policy
from rlhf_online.models.reward import Heads, RewardModel
from rlhf_online.models.tokens import ChatTokenizer, Pair
from rlhf_online.models.trunk import Lora
from rlhf_online.simulation.people import plackett_luce
from rlhf_online.training.reward_update import RewardUpdater
from rlhf_online.training.settings import RewardTraining
from tests.benches.everyday import HELD_OUT, TEMPERATURE, VOTED_ON, Utility
from tests.benches.support import reports
from tests.benches.support.reports import note
from tests.benches.support.workers import workers

TOGETHER, JUDGED = 4, 8
"""Answers in a ranking; answers to each held-out prompt."""
MAX_TOKENS = 48
NEAR, FAR = 0.05, 0.4
READOUTS = ("last", "mean")


@dataclass(frozen=True, slots=True)
class Answered:
    """A prompt's answers in tokens, and their utilities."""

    prompt_ids: tuple[int, ...]
    answers: tuple[tuple[int, ...], ...]
    utilities: tuple[float, ...]

    def pairs(self) -> list[Pair]:
        return [(self.prompt_ids, answer) for answer in self.answers]


@dataclass(frozen=True, slots=True)
class Found:
    """Shares of pairs of answers to one prompt that are ordered rightly: of all, and of those far apart."""

    readout: str
    layers: int
    by_prompt: tuple[float, ...]
    far: float
    seconds: float


def answer(prompts: Sequence[str], together: int, seed: int) -> list[Answered]:
    """Answers of the model to each prompt, at temperature 1."""
    tokenizer, utility = ChatTokenizer(BUNDLED), Utility()
    asked = [tokenizer.prompt_ids([Message(role="user", content=prompt)]) for prompt in prompts]
    given = Policy.load(BUNDLED, tuning="lora").sample(
        [ids for ids in asked for _ in range(together)],
        max_tokens=MAX_TOKENS,
        temperature=1.0,
        seed=seed,
        eos_ids=tokenizer.eos_ids,
    )
    felt = [utility(tokenizer.decode(ids), ids[-1] in tokenizer.eos_ids) for ids in given]
    parts = [slice(start, start + together) for start in range(0, len(given), together)]
    return [Answered(ids, tuple(given[part]), tuple(felt[part])) for ids, part in zip(asked, parts, strict=True)]


def learn(readout: str, layers: int, voted: Sequence[Answered], judged: Sequence[Answered], seed: int) -> Found:
    """A new reward model, from one ranking of each of `voted`."""
    torch.set_num_threads(1)
    began = time.monotonic()
    settings = RewardTraining.model_validate(
        REAL_MODEL["trainer"]["reward"] | {"readout": readout, "lora_layers": layers}
    )
    model = RewardModel.load(
        BUNDLED,
        tuning=settings.tuning,
        heads=Heads(members=settings.heads, readout=settings.readout),
        lora=Lora.of(settings),
        seed=seed,
    )
    updater = RewardUpdater(model, settings, seed)
    dice = random.Random(f"rankings {seed}")
    votes = [_ranking(number, item, dice) for number, item in enumerate(voted)]
    updater.update(votes, [], [pair for item in judged for pair in item.pairs()])
    ordered = [_ordered(item, model.scores(item.pairs()).mean((1, 2)).tolist()) for item in judged]
    by_prompt = tuple(statistics.fmean(right for apart, right in pairs if apart >= NEAR) for pairs in ordered)
    far = statistics.fmean(right for pairs in ordered for apart, right in pairs if apart >= FAR)
    return Found(readout, layers, by_prompt, far, round(time.monotonic() - began, 1))


def _ordered(item: Answered, scores: Sequence[float]) -> list[tuple[float, bool]]:
    """For each pair of the answers how far apart their utilities are, and whether the scores order them so."""
    judged = list(zip(item.utilities, scores, strict=True))
    return [(abs(u - v), (u - v) * (a - b) > 0) for (u, a), (v, b) in combinations(judged, 2)]


def _ranking(number: int, item: Answered, dice: random.Random) -> Comparison:
    order = plackett_luce(item.utilities, TEMPERATURE, dice)
    return Comparison(
        event_id=f"ranking-{number}",
        conversation_id=f"conversation-{number}",
        person="",
        prompt_token_ids=item.prompt_ids,
        candidates=tuple(Candidate(token_ids=item.answers[place], position=place) for place in order),
        tiers=tuple((index,) for index in range(len(order))),
    )


def run(options: Any) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    arms = [(readout, layers) for readout in options.readouts for layers in options.layers]
    for seed in reports.seeds(options):
        dice = random.Random(f"prompts {seed}")
        note(f"seed {seed}: {options.rankings} × {TOGETHER} and {len(HELD_OUT)} × {JUDGED} answers")
        voted = answer(dice.choices(VOTED_ON, k=options.rankings), TOGETHER, 2 * seed)
        judged = answer(HELD_OUT, JUDGED, 2 * seed + 1)
        note("the reward models learn")
        for found in workers(options.workers, [(learn, (*arm, voted, judged, seed)) for arm in arms]):
            rows.append({"seed": seed, "accuracy": statistics.fmean(found.by_prompt)} | asdict(found))
            note(f"{found.readout}, {found.layers} layers: {rows[-1]['accuracy']:.3f}, far {found.far:.3f}")
    rows.sort(key=lambda row: (row["seed"], row["readout"], row["layers"]))
    compared = [(("last", layers), ("mean", layers)) for layers in options.layers if len(options.readouts) == 2]
    compared += [
        ((readout, 0), (readout, n))
        for readout in options.readouts
        for n in options.layers
        if n and 0 in options.layers
    ]
    gains = {f"{b[0]}, {b[1]} layers over {a[0]}, {a[1]}": _gain(rows, a, b) for a, b in compared}
    holds = {
        name: gain > 2 * stderr if name.startswith("mean") and "over last" in name else gain > -2 * stderr
        for name, (gain, stderr) in gains.items()
    }
    return {"rankings": options.rankings, "rows": rows, "gains": gains, "holds": holds}


def _gain(rows: Sequence[dict[str, Any]], before: tuple[str, int], after: tuple[str, int]) -> tuple[float, float]:
    """Mean of what one arm orders rightly more than another, paired by prompt, and its standard error."""
    one, other = (
        [share for row in rows if (row["readout"], row["layers"]) == arm for share in row["by_prompt"]]
        for arm in (before, after)
    )
    gains = [b - a for a, b in zip(one, other, strict=True)]
    return statistics.fmean(gains), statistics.stdev(gains) / len(gains) ** 0.5


def table(report: dict[str, Any]) -> str:
    lines = [f"{report['rankings']} rankings of {TOGETHER}; 0 layers are all"]
    lines.append(f"{'seed':<6}{'readout':<9}{'layers':>7}{'right':>7}{'far':>7}{'s':>7}")
    lines += [
        f"{row['seed']:<6}{row['readout']:<9}{row['layers']:>7}{row['accuracy']:>7.3f}{row['far']:>7.3f}"
        f"{row['seconds']:>7.0f}"
        for row in report["rows"]
    ]
    lines += [f"{name}: {gain:+.3f} ± {stderr:.3f}" for name, (gain, stderr) in report["gains"].items()]
    return "\n".join([*lines, *reports.verdicts(report["holds"])])


def main() -> int:
    parser = reports.parser(__doc__, "readout", seeds=1)
    parser.add_argument("--rankings", type=int, default=200, help="rankings that the reward models learn from")
    parser.add_argument("--readouts", nargs="+", choices=READOUTS, default=list(READOUTS), help="where they read")
    parser.add_argument("--layers", nargs="+", type=int, default=[0], help="topmost layers that learn; 0: all")
    if not BUNDLED.is_dir():
        parser.error(f"{BUNDLED} is not there: run `make install` in the project's root, and the bench from there")
    return reports.conclude(parser.parse_args(), run, table)


if __name__ == "__main__":
    sys.exit(main())
