"""Updates on demand, by whatever commit's tree PYTHONPATH names: so that two commits can take turns on one machine.

`python timed_updates.py SPEC.json` answers "ready", and then each line of stdin, "policy" or "reward", with the seconds
that such an update took. The spec names the model's folder and tuning, the device and a CPU's threads, answers for the
policy, groups of answers to a prompt each for the reward model, and the settings of the policy's update. It runs in the
tree of 46f9894 as well, whose rooms had other names and whose services computed in float32.
"""

import json
import random
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from rlhf_online.models.policy import Policy
from rlhf_online.models.reward import RewardModel
from rlhf_online.models.tokens import ChatTokenizer
from rlhf_online.training.policy_update import PolicyUpdater
from rlhf_online.training.reward_update import RewardUpdater

LR = 1e-7
"""So small that every round finds what the first one found."""


def named(name: str, *rooms: str) -> Any:
    """`name` from the first of these modules that is there."""
    for room in rooms:
        try:
            return getattr(import_module(f"rlhf_online.{room}"), name)
        except (ImportError, AttributeError):
            continue
    return None


Heads: Any = getattr(import_module("rlhf_online.models.reward"), "Heads", None)


def computed_in(folder: Path, device: str) -> torch.dtype:
    """What the services of this tree compute this model in."""
    choose, read = named("choose", "models.precision"), named("read_config", "models.trunk")
    return choose("auto", torch.device(device), read(folder)) if choose else torch.float32


def _adapter(rank: int, layers: int) -> dict[str, Any]:
    """Of so many of the topmost layers, where this tree can be told so."""
    Lora = named("Lora", "models.trunk")
    return {"lora": Lora(rank, layers)} if Lora else {"lora_rank": rank}


def policy_update(spec: dict[str, Any], dtype: torch.dtype) -> Callable[[], object]:
    Rollout = named("Rollout", "rollout.types", "rollout.buffer")
    ScoredRollout = named("ScoredRollout", "rollout.types", "rollout.buffer")
    folder, rng = Path(spec["folder"]), random.Random(0)
    adapter = _adapter(16, spec["layers"]["policy"])
    policy = Policy.load(folder, tuning=spec["tuning"], device=spec["device"], dtype=dtype, **adapter)
    pairs = [(tuple(prompt), tuple(answer)) for prompt, answer in spec["pairs"]]
    rollouts = [
        ScoredRollout(
            rollout=Rollout(
                rollout_id=str(row),
                prompt_token_ids=prompt,
                token_ids=answer,
                logprobs=logprobs,
                policy_version="policy-000000",
                temperature=1.0,
                finished=True,
            ),
            score=rng.gauss(0, 1),
        )
        for row, ((prompt, answer), logprobs) in enumerate(zip(pairs, policy.logprobs(pairs), strict=True))
    ]
    ppo = {"kl_coef": 0.1, "value_lr": LR}
    values: dict[str, Any] = {"lr": LR, **spec["policy"]}
    values |= {"algorithm": {"name": "ppo", **ppo}} if named("Vote", "feedback.votes") else ppo
    settings = named("PolicyTraining", "training.policy.settings", "config").model_validate(values)
    updater = PolicyUpdater(policy, settings, 0)

    def update() -> None:
        report = updater.update(rollouts)
        assert report.rollouts == len(rollouts) and not report.undone, report

    return update


def reward_update(spec: dict[str, Any], dtype: torch.dtype) -> Callable[[], object]:
    Candidate = named("Candidate", "feedback.votes", "feedback.preferences")
    Comparison = named("Comparison", "feedback.votes", "feedback.preferences")
    folder = Path(spec["folder"])
    heads = {"heads": Heads(members=4, readout="mean")} if Heads else {"heads": 4, "readout": "mean"}
    where = {"tuning": spec["tuning"], "device": spec["device"], "dtype": dtype}
    where |= _adapter(8, spec["layers"]["reward"])
    model = RewardModel.load(folder, **where, **heads)
    votes = [
        Comparison(
            event_id=f"vote-{number}",
            conversation_id=f"conversation-{number}",
            person="p",
            prompt_token_ids=tuple(prompt),
            candidates=tuple(Candidate(token_ids=tuple(answer)) for answer in answers),
            tiers=tuple((rank,) for rank in range(len(answers))),
        )
        for number, (prompt, answers) in enumerate(spec["groups"])
    ]
    values = {"lr": LR, "batch": 8, "epochs": 1, "cold_epochs": 1, "replay": 0.0, "held_out": 0.0}
    settings = named("RewardTraining", "training.settings", "config").model_validate(values)
    tokenizer = () if named("Vote", "feedback.votes") else (ChatTokenizer(folder),)
    make: Any = RewardUpdater
    updater = make(model, *tokenizer, settings, 0)
    reference = [(tuple(prompt), tuple(answers[0])) for prompt, answers in spec["groups"]]
    return lambda: updater.update(votes, [], reference)


def main() -> None:
    spec = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(spec["threads"])
    dtype = computed_in(Path(spec["folder"]), spec["device"])
    updates = {"policy": policy_update(spec, dtype), "reward": reward_update(spec, dtype)}
    print(json.dumps({"ready": str(dtype).removeprefix("torch.")}), flush=True)
    for line in sys.stdin:
        begin = time.perf_counter()
        updates[line.strip()]()
        if spec["device"] == "cuda":
            torch.cuda.synchronize()
        print(json.dumps({"seconds": time.perf_counter() - begin}), flush=True)


if __name__ == "__main__":
    main()
