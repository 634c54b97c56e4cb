"""How fast the trainer learns, and what its care costs: `python -m tests.benches.trainer [--sizes world 15m] [--json]`.

A policy update by PPO (measuring, passes of minibatches, the check of how far it moved) and a pass of the reward model
over rankings, each against two bare torch loops of the same model, answers, minibatches and types (`bare_loops`): the
plain one pads, the strong one packs as the trainer does and has no undo, no counting and no checks. The three take
turns in one process. A ratio is the median over the rounds of bare time ÷ ours; .9 is asked for against both.

Weights are made so that the model predicts its answers as a trained one does (`predictable`): random ones would move by
nats a step, and the update be undone. On a GPU: 0.1, 1 and 7 billion weights, 7 by an adapter too; a row that does not
fit is left out, and it says by how much. MFU counts 6 operations a weight and token that is learned from, 2 where
it is only read or the weight is frozen, against the chip's dense bfloat16 peak (`--peak-tflops`); MFU_BOUNDS are asked
for. Peak memory is that of the trainer's own update: resident on a CPU, allocated on a GPU.

`--against FOLDER`, a worktree of an earlier commit, times that tree's updates beside this one's, each as its services
compute, but for the layers that an adapter changes, which are all in that tree: `--against .` tells what the topmost
alone save. On a CPU a model of SmolLM2's shape, or of the folder `--model`, under the settings of `rlhf-online up`; 2.5
times as fast is asked for. On a GPU the first of `--sizes`, by default 1b; 8 times.
Exit status 1 where a bound is missed.
"""

import argparse
import gc
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from rlhf_online.cli.up import LORA, REAL_MODEL
from rlhf_online.feedback.votes import Candidate, Comparison
from rlhf_online.models import precision, trunk
from rlhf_online.models.policy import Policy
from rlhf_online.models.precision import Written
from rlhf_online.models.reward import RewardModel
from rlhf_online.models.tokens import Pair
from rlhf_online.rollout.types import Rollout, ScoredRollout
from rlhf_online.simulation.tiny_model import write_tiny_model
from rlhf_online.training.policy.algorithms import PPO
from rlhf_online.training.policy.settings import PolicyTraining
from rlhf_online.training.policy_update import PolicyUpdater
from rlhf_online.training.reward_update import RewardUpdater
from rlhf_online.training.settings import RewardTraining
from tests.benches.support import timed_updates
from tests.benches.support.bare_loops import KL_COEF, LR, RANKED, BarePPO, BareReward
from tests.support.processes import peak_kib

BOUND = 0.9
POLICY_STEP, REWARD_STEP = "policy update (PPO)", "reward model, a pass"
MFU_BOUNDS = {
    ("0.1b", POLICY_STEP): 0.25,
    ("1b", POLICY_STEP): 0.48,
    ("1b", REWARD_STEP): 0.45,
    ("7b-lora", POLICY_STEP): 0.40,
}
AGAINST_BOUND = {"cpu": 2.5, "cuda": 8.0}
SURE = 2.0
"""Nats by which the next word of `predictable` stands above all others together."""
BYTES = {"full": 26, "lora": 6}
"""Of memory a weight, with the activations of a pass: masters, moments, gradient, reference, and what is cast."""
PEAK_TFLOPS = {"A100": 312.0, "H100": 989.0, "H200": 989.0, "B200": 2250.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """A model, and how much it is given: answers of A/2 to A tokens to prompts of P."""

    shape: dict[str, int]
    answers: int
    prompt: int
    answer: int
    epochs: int = 2
    minibatches: int = 4
    rankings: int = 64
    tuning: Literal["full", "lora"] = "full"


def _llama(hidden: int, layers: int, heads: int, inner: int, vocabulary: int = 32_000) -> dict[str, int]:
    return {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "head_dim": hidden // heads,
        "intermediate_size": inner,
        "vocab_size": vocabulary,
        "max_position_embeddings": 4096,
    }


SIZES = {
    "world": Size(shape={}, answers=512, prompt=8, answer=8, epochs=4, rankings=128),
    "15m": Size(shape=_llama(256, 6, 8, 704, 16_000), answers=32, prompt=32, answer=64, minibatches=2, rankings=16),
    "0.1b": Size(shape=_llama(768, 12, 12, 2048), answers=512, prompt=256, answer=256),
    "1b": Size(shape=_llama(2048, 18, 16, 5632), answers=256, prompt=256, answer=256),
    "7b-lora": Size(shape=_llama(4096, 32, 32, 11_008), answers=64, prompt=256, answer=256, rankings=16, tuning="lora"),
    "7b": Size(shape=_llama(4096, 32, 32, 11_008), answers=64, prompt=256, answer=256, rankings=16),
}


SMOLLM = _llama(576, 30, 9, 1536, 49_152) | {"num_key_value_heads": 3}
"""SmolLM2-135M's."""


def write_model(folder: Path, shape: dict[str, int], device: torch.device) -> None:
    """A model of this shape that predicts what `draw` draws, with the tiny world's tokenizer, in bfloat16, as most are
    published."""
    base = folder / "base"
    write_tiny_model(base, weights_seed=None)
    path = base / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | shape))
    with device:
        lm = trunk.random_lm(base, seed=0, device=device)
    predictable(lm)
    trunk.save_model(lm, folder, base=base, written=Written({}, torch.bfloat16), keep_config=True)


@torch.no_grad()
def predictable(lm: trunk.PreTrainedModel) -> None:
    """Weights with which token t is followed by t + 1, most of the time: states are mostly the token's embedding, and
    the output layer's row of t + 1 is that of t, so that the logit is SURE above what all others add up to."""
    embedding, head = lm.get_input_embeddings(), trunk.output_head(lm)
    assert isinstance(embedding, torch.nn.Embedding) and isinstance(head, torch.nn.Linear)
    vocabulary, width = head.weight.shape
    embedding.weight.normal_(generator=torch.Generator(lm.device).manual_seed(0))
    for name, parameter in lm.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            parameter.mul_(0.5 / (2 * int(lm.config.num_hidden_layers)) ** 0.5)
    unit_Vd = embedding.weight / embedding.weight.square().mean(1, keepdim=True).sqrt()
    head.weight.copy_(unit_Vd.roll(1, 0) * (torch.tensor(float(vocabulary)).log() + SURE) / width)


def draw(size: Size, vocabulary: int, count: int) -> list[Pair]:
    """Prompts of any tokens, and answers as `predictable` would write them."""
    rng = random.Random(0)

    def answer(token: int) -> tuple[int, ...]:
        tokens = []
        for _ in range(rng.randint(size.answer // 2, size.answer)):
            token = (token + 1) % vocabulary if rng.random() < 0.85 else rng.randrange(vocabulary)
            tokens.append(token)
        return tuple(tokens)

    prompts = [tuple(rng.randrange(5, vocabulary) for _ in range(size.prompt)) for _ in range(count)]
    return [(prompt, answer(prompt[-1])) for prompt in prompts]


# Measuring


class Peak:
    """The most memory since it was made, MiB."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        gc.collect()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        else:
            Path("/proc/self/clear_refs").write_text("5")

    def mib(self) -> int:
        if self._device.type == "cuda":
            return round(torch.cuda.max_memory_allocated(self._device) / 2**20)
        return peak_kib() // 1024


def compare(
    works: dict[str, Callable[[], object]], rounds: int, device: torch.device
) -> tuple[dict[str, float], dict[str, float], int]:
    """Median seconds of each, and of each one's time ÷ that of "ours", taking turns; and the peak of "ours", MiB.

    A first round of each is not counted.
    """

    def timed(work: Callable[[], object]) -> float:
        begin = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - begin

    peak = Peak(device)
    timed(works["ours"])
    mib = peak.mib()
    for name, work in works.items():
        if name != "ours":
            timed(work)
    turns = list(works)
    times: list[dict[str, float]] = []
    for number in range(rounds):
        first = number % len(turns)
        times.append({name: timed(works[name]) for name in turns[first:] + turns[:first]})
    seconds = {name: statistics.median(taken[name] for taken in times) for name in turns}
    ratios = {name: statistics.median(taken[name] / taken["ours"] for taken in times) for name in turns}
    return seconds, ratios, mib


class Phases:
    """Seconds from one report of progress to the next, of the last update: before the steps, in them, after."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._marks: list[float] = []

    def begin(self) -> None:
        self._marks = [time.perf_counter()]

    def on_step(self, done: int, of: int) -> None:
        if done in (0, of):
            self._marks.append(time.perf_counter())

    def end(self) -> None:
        marks = [*self._marks, time.perf_counter()]
        names = ("before", "steps", "after")
        self.seconds = {name: round(b - a, 3) for name, a, b in zip(names, marks, marks[1:], strict=False)}


def policy_row(folder: Path, size: Size, device: torch.device, dtype: torch.dtype, rounds: int) -> dict[str, Any]:
    policy = Policy.load(folder, tuning=size.tuning, device=device, dtype=dtype)
    pairs = draw(size, int(policy.lm.config.vocab_size), size.answers)
    rng = random.Random(1)
    rollouts = [
        ScoredRollout(
            rollout=Rollout(
                rollout_id=str(row),
                prompt_token_ids=tuple(prompt),
                token_ids=tuple(answer),
                logprobs=logprobs,
                policy_version="policy-000000",
                temperature=1.0,
                finished=True,
            ),
            score=rng.gauss(0, 1),
        )
        for row, ((prompt, answer), logprobs) in enumerate(zip(pairs, policy.logprobs(pairs), strict=True))
    ]
    ppo = PPO(value_lr=LR, kl_coef=KL_COEF)
    settings = PolicyTraining(algorithm=ppo, lr=LR, epochs=size.epochs, minibatches=size.minibatches)
    updater, phases = PolicyUpdater(policy, settings, 0), Phases()

    def ours() -> None:
        phases.begin()
        report = updater.update(rollouts, on_step=phases.on_step)
        phases.end()
        assert report.rollouts == size.answers and not report.undone, report

    def bare(strong: bool) -> BarePPO:
        return BarePPO(
            policy,
            policy.as_reference,
            rollouts,
            epochs=size.epochs,
            minibatches=size.minibatches,
            tokens=policy.token_budget(settings.micro_batch_tokens),
            strong=strong,
        )

    tokens = sum(len(prompt) + len(answer) for prompt, answer in pairs)
    weights = sum(parameter.numel() for parameter in policy.lm.parameters())
    learned = 4 if size.tuning == "lora" else 6
    measured = compare({"ours": ours, "plain": bare(False), "strong": bare(True)}, rounds, device)
    flops = weights * tokens * (learned * size.epochs + 2 * 2)
    return row(POLICY_STEP, measured, phases, tokens * size.epochs, flops)


def reward_row(folder: Path, size: Size, device: torch.device, dtype: torch.dtype, rounds: int) -> dict[str, Any]:
    model = RewardModel.load(folder, tuning=size.tuning, device=device, dtype=dtype)
    pairs = draw(size, int(model.decoder.config.vocab_size), RANKED * size.rankings)
    rankings = [
        Comparison(
            event_id=f"vote-{number}",
            conversation_id=f"conversation-{number}",
            person="p",
            prompt_token_ids=tuple(pairs[number][0]),
            candidates=tuple(Candidate(token_ids=tuple(answer)) for _, answer in pairs[number :: size.rankings]),
            tiers=tuple((index,) for index in range(RANKED)),
        )
        for number in range(size.rankings)
    ]
    values = {"lr": LR, "epochs": 1, "cold_epochs": 1, "replay": 0.0, "held_out": 0.0}
    settings = RewardTraining.model_validate(values)
    updater, phases = RewardUpdater(model, settings, 0), Phases()
    reference: list[Pair] = [((1, 5), (6, 2)), ((1, 7), (8, 2))]

    def ours() -> None:
        phases.begin()
        updater.update(rankings, [], reference, on_step=phases.on_step)
        phases.end()

    def bare(strong: bool) -> BareReward:
        return BareReward(model, rankings, batch=settings.batch, tokens=model.token_budget(8192), strong=strong)

    # The prompt of a ranking is computed once, and counted once.
    tokens = sum(len(vote.prompt_token_ids) + sum(len(c.token_ids) for c in vote.candidates) for vote in rankings)
    weights = sum(parameter.numel() for parameter in model.decoder.parameters())
    measured = compare({"ours": ours, "plain": bare(False), "strong": bare(True)}, rounds, device)
    return row(REWARD_STEP, measured, phases, tokens, (4 if size.tuning == "lora" else 6) * weights * tokens)


def row(
    name: str, measured: tuple[dict[str, float], dict[str, float], int], phases: Phases, tokens: int, flops: float
) -> dict[str, Any]:
    seconds, ratios, mib = measured
    rates = {
        "tokens_per_s" if kind == "ours" else f"{kind}_tokens_per_s": round(tokens / taken)
        for kind, taken in seconds.items()
    }
    told = {f"of_{kind}": round(ratio, 3) for kind, ratio in ratios.items() if kind != "ours"}
    return {
        "step": name, **rates, **told, "peak_mib": mib, "seconds": phases.seconds,
        "tflops": flops / seconds["ours"] / 1e12,
    }  # fmt: skip


def lacking(size: Size, device: torch.device) -> str:
    """Why a size does not fit on the GPU; empty if it does."""
    shape = size.shape
    if device.type != "cuda" or not shape:
        return ""
    width, inner, layers = shape["hidden_size"], shape["intermediate_size"], shape["num_hidden_layers"]
    weights = layers * (4 * width**2 + 3 * width * inner) + 2 * shape["vocab_size"] * width
    needed, free = BYTES[size.tuning] * weights, torch.cuda.mem_get_info(device)[0]
    return "" if needed <= free else f"needs about {needed / 2**30:.0f} GiB, and {free / 2**30:.0f} GiB are free"


# Against an earlier commit


def against(tree: Path, spec: dict[str, Any], rounds: int) -> list[dict[str, Any]]:
    """Seconds of updates by that tree's code, of all layers, and by this one's: taking turns on a CPU, one after the
    other on a GPU, whose memory is one's."""
    asked = {"earlier": spec | {"layers": {"policy": 0, "reward": 0}}, "ours": spec}
    for name, values in asked.items():
        (Path(spec["folder"]) / f"{name}.json").write_text(json.dumps(values))
    trees = {"earlier": tree.resolve(), "ours": Path(__file__).resolve().parents[2]}
    together = [trees] if spec["device"] == "cpu" else [{name: root} for name, root in trees.items()]
    types: dict[str, str] = {}
    times: dict[str, dict[str, list[float]]] = {"policy": {}, "reward": {}}
    for turn in together:
        processes = {name: _start(root, Path(spec["folder"]) / f"{name}.json") for name, root in turn.items()}
        try:
            types |= {name: _reply(process)["ready"] for name, process in processes.items()}
            for step, taken in times.items():
                for _ in range(1 + rounds):
                    for name, process in processes.items():
                        taken.setdefault(name, []).append(_ask(process, step))
        finally:
            for process in processes.values():
                process.kill()
                process.wait()
    rows = []
    for step, taken in times.items():
        counted = {name: seconds[1:] for name, seconds in taken.items()}
        ratio = statistics.median(then / now for then, now in zip(counted["earlier"], counted["ours"], strict=True))
        seconds = {name: round(statistics.median(values), 2) for name, values in counted.items()}
        rows.append({"step": f"{step} update", "times_as_fast": round(ratio, 2), "seconds": seconds, "dtype": types})
    return rows


def _as_up(model: Path, threads: int) -> dict[str, Any]:
    """What `rlhf-online up` asks of a small model: adapters, and four answers to each of sixteen prompts that a chat
    template makes, a system message first."""
    rng, vocabulary = random.Random(0), int(json.loads((model / "config.json").read_text())["vocab_size"])

    def tokens(least: int, most: int) -> list[int]:
        return [rng.randrange(5, vocabulary) for _ in range(rng.randint(least, most))]

    system = tokens(22, 22)
    groups = [([*system, *tokens(14, 20)], [tokens(24, 48) for _ in range(RANKED)]) for _ in range(16)]
    policy = {"epochs": 2, "minibatches": 2, "micro_batch_tokens": 2048}
    pairs = [(prompt, answer) for prompt, answers in groups for answer in answers]
    trainer = REAL_MODEL["trainer"]
    layers = {"policy": LORA["lora_layers"], "reward": trainer["reward"].get("lora_layers", 0)}
    return {"folder": str(model), "device": "cpu", "threads": threads, "tuning": "lora", "layers": layers,
            "pairs": pairs, "groups": groups, "policy": policy}  # fmt: skip


def _as_row(model: Path, size: Size) -> dict[str, Any]:
    """A quarter of the answers of a row, and as many of its rankings."""
    pairs = draw(size, size.shape["vocab_size"], size.answers // 4)
    groups = [
        (prompt, [answer for _, answer in pairs[row : row + RANKED]]) for row, (prompt, _) in enumerate(pairs[::4])
    ]
    policy = {"epochs": size.epochs, "minibatches": size.minibatches}
    return {"folder": str(model), "device": "cuda", "threads": 1, "tuning": size.tuning,
            "layers": {"policy": 0, "reward": 0},
            "pairs": pairs, "groups": groups, "policy": policy}  # fmt: skip


def _start(tree: Path, spec: Path) -> subprocess.Popen[str]:
    command = [sys.executable, timed_updates.__file__, str(spec)]
    environment = os.environ | {"PYTHONPATH": str(tree)}
    return subprocess.Popen(
        command, cwd=tree, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def _reply(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("{"):
            return json.loads(line)
    raise RuntimeError(f"the updates ended with {process.wait()}: what they said stands above")


def _ask(process: subprocess.Popen[str], step: str) -> float:
    assert process.stdin is not None
    print(step, file=process.stdin, flush=True)
    return _reply(process)["seconds"]


def _holds(found: dict[str, Any]) -> bool:
    """Of a row that was measured: fast enough beside the bare loops and, on a GPU, for the chip."""
    bound = MFU_BOUNDS.get((found["size"], found.get("step", "")), 0.0)
    return found.get("of_plain", 1) >= BOUND and found.get("of_strong", 1) >= BOUND and found.get("mfu", bound) >= bound


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, help="default: those for this machine")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1, help="of a CPU")
    parser.add_argument(
        "--dtype", choices=("auto", "float32", "bfloat16"), default="auto", help="what layers compute in"
    )
    parser.add_argument("--against", type=Path, metavar="FOLDER", help="a worktree of an earlier commit")
    parser.add_argument("--model", type=Path, help="with --against: a model's folder, instead of SmolLM2's shape")
    parser.add_argument("--peak-tflops", type=float, help="dense bfloat16 peak of the GPU; default: by its name")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = trunk.pick_device("auto")
    on_gpu = device.type == "cuda"
    chip = torch.cuda.get_device_name(device) if on_gpu else f"CPU, {options.threads} threads"
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-trainer-") as folder:
        if options.against is None:
            sizes = options.sizes or (["0.1b", "1b", "7b-lora", "7b"] if on_gpu else ["world", "15m"])
            rows = [found for name in sizes for found in _rows(Path(folder) / name, name, device, options)]
            ok = any("step" in found for found in rows) and all(map(_holds, rows))
        else:
            model = Path(folder)
            if on_gpu:
                size = SIZES[(options.sizes or ["1b"])[0]]
                write_model(model, size.shape, device)
                spec = _as_row(model, size)
            elif options.model is None:
                write_model(model, SMOLLM, device)
                spec = _as_up(model, options.threads)
            else:
                for path in options.model.resolve().iterdir():
                    (model / path.name).symlink_to(path)
                spec = _as_up(model, options.threads)
            rows = against(options.against, spec, options.rounds)
            ok = all(found["times_as_fast"] >= AGAINST_BOUND[device.type] for found in rows)
    if options.json:
        print(json.dumps({"device": chip, "bound": BOUND, "rows": rows, "ok": ok}))
    else:
        print(f"{chip}; at least {BOUND} × the bare loops asked for, {AGAINST_BOUND[device.type]} × an earlier commit")
        for found in rows:
            told = (f"{key} {value:,}" if isinstance(value, int) else f"{key} {value}" for key, value in found.items())
            print("  ".join(told))
    return 0 if ok else 1


def _rows(folder: Path, name: str, device: torch.device, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Both rows of a size, or why there are none."""
    size = SIZES[name]
    if reason := lacking(size, device):
        return [{"size": name, "skipped": reason}]
    folder.mkdir()
    write_model(folder, size.shape, device)
    dtype = precision.choose(options.dtype, device, trunk.read_config(folder))
    chip = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    peak = options.peak_tflops or next((value for known, value in PEAK_TFLOPS.items() if known in chip), 0.0)
    rows = []
    for measure in (policy_row, reward_row):
        found = {"size": name, "dtype": precision.name(dtype), **measure(folder, size, device, dtype, options.rounds)}
        tflops = found.pop("tflops")
        if chip and peak:
            found["mfu"] = round(tflops / peak, 3)
        rows.append(found)
        gc.collect()
        torch.cuda.empty_cache()
    return rows


if __name__ == "__main__":
    sys.exit(main())
