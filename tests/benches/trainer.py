"""What the trainer's care costs: `python -m tests.benches.trainer [--sizes world 15m] [--json]`.

A policy update by PPO (measuring, passes of minibatches, the check of how far it moved) and a pass of the reward model
over rankings, each against a bare torch loop that does what the method asks for and nothing else: the same model,
answers, minibatches and dtype; no undo, no counting, no checks. The two alternate in one process. A ratio is the median
over the rounds of bare time ÷ ours, and .9 is asked for. Weights are random: what they say costs the same.

On a GPU: bf16, transformers' SDPA, and 0.1, 1 and 7 billion weights. MFU counts 6 operations a weight and trained
token, 2 where nothing is trained, against the chip's dense bf16 peak (`--peak-tflops`). Peak memory is that of the
trainer's own update: resident on a CPU, allocated on a GPU. Exit status 1 where a ratio is below the bound.
"""

import argparse
import gc
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rlhf_online.feedback.votes import Candidate, Comparison
from rlhf_online.models import trunk
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

BOUND = 0.9
CLIP, KL_COEF, GAE_LAMBDA = 0.2, 0.03, 0.95
LR = 1e-6
"""So small that weights, and with them lengths and losses, stay what they are over the rounds."""
RANKED = 4
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
    "7b": Size(shape=_llama(4096, 32, 32, 11_008), answers=64, prompt=256, answer=256, rankings=16),
}


def write_model(folder: Path, size: Size, dtype: torch.dtype) -> None:
    """A model of this size with random weights and the tiny world's tokenizer."""
    base = folder / "base"
    write_tiny_model(base, weights_seed=None)
    path = base / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | size.shape))
    lm = trunk.random_lm(base, seed=0, device=torch.device("cpu"))
    for parameter in lm.parameters():
        parameter.data = parameter.data.to(dtype)
    trunk.save_model(lm, folder, base=base, written=Written({}, dtype), keep_config=True)


def draw(size: Size, vocabulary: int, count: int) -> list[Pair]:
    rng = random.Random(0)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(rng.randrange(5, vocabulary) for _ in range(count))

    lengths = [rng.randint(size.answer // 2, size.answer) for _ in range(count)]
    return [(tokens(size.prompt), tokens(length)) for length in lengths]


# The bare loops


def _chunks(pairs: Sequence[Pair], tokens: int) -> list[list[int]]:
    """Rows for passes of at most so many tokens."""
    rows = max(1, tokens // max(len(prompt) + len(answer) for prompt, answer in pairs))
    return [list(range(start, min(start + rows, len(pairs)))) for start in range(0, len(pairs), rows)]


@dataclass(frozen=True, slots=True)
class Padded:
    """Pairs a row each, right padded, as one writes it down."""

    tokens_BT: Tensor
    answer_BA: Tensor
    mask_BA: Tensor
    before_BA: Tensor
    """The position whose state predicts each answer token."""
    last_B: Tensor


def padded(pairs: Sequence[Pair], device: torch.device) -> Padded:
    width = max(len(prompt) + len(answer) for prompt, answer in pairs)
    most = max(len(answer) for _, answer in pairs)
    prompt_B = torch.tensor([len(prompt) for prompt, _ in pairs])
    answer_B = torch.tensor([len(answer) for _, answer in pairs])
    step_A = torch.arange(most)
    tokens = [[*prompt, *answer, *[0] * (width - len(prompt) - len(answer))] for prompt, answer in pairs]
    return Padded(
        tokens_BT=torch.tensor(tokens).to(device),
        answer_BA=torch.tensor([[*answer, *[0] * (most - len(answer))] for _, answer in pairs]).to(device),
        mask_BA=(step_A < answer_B.unsqueeze(1)).to(device),
        before_BA=(prompt_B.unsqueeze(1) - 1 + step_A).clamp(max=width - 1).to(device),
        last_B=(prompt_B + answer_B - 1).to(device),
    )


class BarePPO:
    """PPO as one writes it down: old log-probs, values and the reference's, GAE, clipped steps by Adam."""

    def __init__(
        self, policy: Policy, reference: nn.Module, rollouts: Sequence[ScoredRollout], size: Size, tokens: int
    ):
        self.lm, self.reference, self.size, self.tokens = policy.lm, reference, size, tokens
        self.value_head = nn.Linear(int(policy.lm.config.hidden_size), 1).to(policy.device)
        self.parameters = [*self.lm.parameters(), *self.value_head.parameters()]
        self.adam = torch.optim.Adam(self.parameters, lr=LR, eps=1e-5)
        self.pairs = [(s.rollout.prompt_token_ids, s.rollout.token_ids) for s in rollouts]
        self.scores = torch.tensor([s.score for s in rollouts])
        self.width = max(len(answer) for _, answer in self.pairs)
        self.order = random.Random(0)

    def _logprobs(self, model: Any, rows: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        batch = padded([self.pairs[r] for r in rows], self.lm.device)
        hidden = model.model(input_ids=batch.tokens_BT, use_cache=False).last_hidden_state
        hidden = hidden.gather(1, batch.before_BA.unsqueeze(-1).expand(-1, -1, hidden.shape[-1]))
        logits = model.lm_head(hidden).float()
        logprobs = logits.gather(-1, batch.answer_BA.unsqueeze(-1)).squeeze(-1) - logits.logsumexp(-1)
        return logprobs, hidden, batch.mask_BA

    @torch.no_grad()
    def _start(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        shape = (len(self.pairs), self.width)
        old, ref, values, mask = (torch.zeros(shape, device=self.lm.device) for _ in range(4))
        for rows in _chunks(self.pairs, self.tokens):
            logprobs, hidden, real = self._logprobs(self.lm, rows)
            width = real.shape[1]
            old[rows, :width], mask[rows, :width] = logprobs * real, real.float()
            values[rows, :width] = self.value_head(hidden.float()).squeeze(-1) * real
            ref[rows, :width] = self._logprobs(self.reference, rows)[0] * real
        rewards = -KL_COEF * (old - ref)
        last = mask.sum(1).long() - 1
        rewards[torch.arange(len(last)), last] += self.scores.to(rewards)
        advantages, carry, following = torch.zeros_like(rewards), 0.0, 0.0
        for t in range(self.width - 1, -1, -1):
            carry = (rewards[:, t] + following - values[:, t] + GAE_LAMBDA * carry) * mask[:, t]
            advantages[:, t], following = carry, values[:, t]
        returns, real = advantages + values, mask.bool()
        advantages = (advantages - advantages[real].mean()) / (advantages[real].std() + 1e-8)
        return old, values, advantages, returns, mask

    def __call__(self) -> None:
        old, values, advantages, returns, mask = self._start()
        rows = list(range(len(self.pairs)))
        count = len(rows) // self.size.minibatches
        for _ in range(self.size.epochs):
            self.order.shuffle(rows)
            for start in range(0, count * self.size.minibatches, count):
                self._step(rows[start : start + count], old, values, advantages, returns, mask)

    def _step(
        self, rows: list[int], old: Tensor, values: Tensor, advantages: Tensor, returns: Tensor, mask: Tensor
    ) -> None:
        self.adam.zero_grad(set_to_none=True)
        total = mask[rows].sum()
        for chunk in _chunks([self.pairs[r] for r in rows], self.tokens):
            part = [rows[index] for index in chunk]
            logprobs, hidden, real = self._logprobs(self.lm, part)
            width = real.shape[1]
            ratio, advantage = (logprobs - old[part, :width]).exp(), advantages[part, :width]
            gain = torch.minimum(ratio * advantage, ratio.clamp(1 - CLIP, 1 + CLIP) * advantage)
            value, before = self.value_head(hidden.float()).squeeze(-1), values[part, :width]
            near = before + (value - before).clamp(-CLIP, CLIP)
            target = returns[part, :width]
            error = torch.maximum((value - target).square(), (near - target).square())
            (((0.5 * error - gain) * real).sum() / total).backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.adam.step()


class BareReward:
    """Plackett–Luce over rankings, four heads on the last hidden state."""

    def __init__(self, model: RewardModel, rankings: Sequence[Comparison], batch: int, tokens: int):
        self.decoder, self.batch, self.tokens = model.decoder, batch, tokens
        self.heads = nn.Linear(int(model.decoder.config.hidden_size), 4).to(model.device)
        self.parameters = [*self.decoder.parameters(), *self.heads.parameters()]
        self.adam = torch.optim.Adam(self.parameters, lr=LR)
        self.rankings = [[(item.prompt_token_ids, c.token_ids) for c in item.candidates] for item in rankings]

    def __call__(self) -> None:
        for start in range(0, len(self.rankings), self.batch):
            votes = self.rankings[start : start + self.batch]
            self.adam.zero_grad(set_to_none=True)
            longest = max(len(prompt) + len(answer) for vote in votes for prompt, answer in vote)
            rows = max(1, self.tokens // (RANKED * longest))
            for first in range(0, len(votes), rows):
                self._backward(votes[first : first + rows], len(votes))
            torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
            self.adam.step()

    def _backward(self, votes: Sequence[Sequence[Pair]], total: int) -> None:
        pairs = [pair for vote in votes for pair in vote]
        batch = padded(pairs, self.decoder.device)
        hidden: Any = self.decoder(input_ids=batch.tokens_BT, use_cache=False).last_hidden_state
        last = hidden[torch.arange(len(pairs), device=hidden.device), batch.last_B]
        utilities = self.heads(last.float()).reshape(len(votes), RANKED, -1)
        below = utilities.flip(1).logcumsumexp(1).flip(1)
        ((below - utilities).sum() / (total * utilities.shape[-1])).backward()


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
        [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
        return int(line.split()[1]) // 1024


def compare(
    ours: Callable[[], object], bare: Callable[[], object], rounds: int, device: torch.device
) -> dict[str, Any]:
    """Median seconds of each and of their ratio, taking turns; a first round of each is not counted."""

    def timed(work: Callable[[], object]) -> float:
        begin = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - begin

    peak = Peak(device)
    timed(ours)
    mib = peak.mib()
    timed(bare)
    times = []
    for number in range(rounds):
        first, second = (ours, bare) if number % 2 else (bare, ours)
        one, two = timed(first), timed(second)
        times.append((one, two) if first is ours else (two, one))
    return {
        "seconds": statistics.median(our for our, _ in times),
        "bare_seconds": statistics.median(other for _, other in times),
        "ratio": round(statistics.median(other / our for our, other in times), 3),
        "peak_mib": mib,
    }


def policy_row(folder: Path, size: Size, device: torch.device, dtype: torch.dtype, rounds: int) -> dict[str, Any]:
    lm = trunk.load_lm(folder, device=device, dtype=dtype).requires_grad_(True)
    reference = trunk.load_lm(folder, device=device, dtype=dtype).requires_grad_(False)
    policy = Policy(lm, base=folder, reference=reference, adapter=None)
    pairs = draw(size, int(lm.config.vocab_size), size.answers)
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
    updater = PolicyUpdater(policy, settings, 0)
    bare = BarePPO(policy, reference, rollouts, size, policy.token_budget(settings.micro_batch_tokens))

    def ours() -> None:
        report = updater.update(rollouts)
        assert report.rollouts == size.answers and not report.undone, report

    tokens = sum(len(prompt) + len(answer) for prompt, answer in pairs)
    weights = sum(parameter.numel() for parameter in lm.parameters())
    flops = weights * tokens * (6 * size.epochs + 2 * 2)
    return row("policy update (PPO)", compare(ours, bare, rounds, device), tokens * size.epochs, flops)


def reward_row(folder: Path, size: Size, device: torch.device, dtype: torch.dtype, rounds: int) -> dict[str, Any]:
    model = RewardModel.load(folder, tuning="full", device=device, dtype=dtype)
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
    updater = RewardUpdater(model, settings, 0)
    reference: list[Pair] = [((1, 5), (6, 2)), ((1, 7), (8, 2))]
    bare = BareReward(model, rankings, settings.batch, model.token_budget(8192))
    tokens = sum(len(vote.prompt_token_ids) + len(c.token_ids) for vote in rankings for c in vote.candidates)
    weights = sum(parameter.numel() for parameter in model.decoder.parameters())
    measured = compare(lambda: updater.update(rankings, [], reference), bare, rounds, device)
    return row("reward model, a pass", measured, tokens, 6 * weights * tokens)


def row(name: str, measured: dict[str, Any], tokens: int, flops: float) -> dict[str, Any]:
    seconds, bare = measured.pop("seconds"), measured.pop("bare_seconds")
    rates = {"tokens_per_s": round(tokens / seconds), "bare_tokens_per_s": round(tokens / bare)}
    return {"step": name, **rates, **measured, "tflops": flops / seconds / 1e12}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, help="default: those for this machine")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1, help="of a CPU")
    parser.add_argument("--peak-tflops", type=float, help="dense bf16 peak of the GPU; default: by its name")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = trunk.pick_device("auto")
    on_gpu = device.type == "cuda"
    dtype = torch.bfloat16 if on_gpu else torch.float32
    chip = torch.cuda.get_device_name(device) if on_gpu else f"CPU, {options.threads} threads"
    peak = options.peak_tflops or next((value for name, value in PEAK_TFLOPS.items() if name in chip), 0.0)
    rows = []
    for name in options.sizes or (["0.1b", "1b", "7b"] if on_gpu else ["world", "15m"]):
        size = SIZES[name]
        with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-trainer-") as folder:
            write_model(Path(folder), size, dtype)
            for measure in (policy_row, reward_row):
                found = {"size": name, **measure(Path(folder), size, device, dtype, options.rounds)}
                tflops = found.pop("tflops")
                if on_gpu and peak:
                    found["mfu"] = round(tflops / peak, 3)
                rows.append(found)
                gc.collect()
                torch.cuda.empty_cache()
    ok = all(found["ratio"] >= BOUND for found in rows)
    if options.json:
        print(json.dumps({"device": chip, "dtype": str(dtype), "bound": BOUND, "rows": rows, "ok": ok}))
    else:
        print(f"{chip}, {dtype}; ratio of at least {BOUND} asked for")
        for found in rows:
            print(
                "  ".join(
                    f"{key} {value:,}" if isinstance(value, int) else f"{key} {value}" for key, value in found.items()
                )
            )
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
