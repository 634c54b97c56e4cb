"""The same seed and the same log give the same checkpoint, digest by digest, wherever the trainer was killed."""

import hashlib
import json
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from rlhf_online.config import dump
from rlhf_online.events import AnswerRef, Envelope, Message, Thumb
from rlhf_online.gate.held_back import HeldBackCheck
from rlhf_online.state import StateDir
from rlhf_online.training.intake import intake
from rlhf_online.training.policy.settings import PolicyTraining
from tests.support.crash import Crash
from tests.support.trainer_world import PROMPTS, World, settings_of, world

ROOT = Path(__file__).resolve().parents[2]
VOTES = 45
POLICIES: dict[str, dict[str, Any]] = {
    "ppo": {"ema": 0.5, "algorithm": {"name": "ppo", "kl_target": 1.0}},
    "schedule": {"schedule": [{"algorithm": "best-of-n", "updates": 1}, {"algorithm": "reinforce"}]},
    "kto": {"algorithm": "kto"},
    "adapters": {"lora_rank": 4, "lora_layers": 1},
    "bfloat16": {},
}
ADAPTERS: dict[str, Any] = {
    "tuning": "lora",
    "reward": settings_of(StateDir(Path()), Path()).reward.model_copy(
        update={"tuning": "lora", "lora_layers": 1, "readout": "mean"}
    ),
}
CHANGES: dict[str, dict[str, Any]] = {"adapters": ADAPTERS, "bfloat16": {"dtype": "bfloat16"}}


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("log"))


@pytest.fixture(scope="module")
def adapters_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("adapters"), **ADAPTERS)


def written(root: Path, **changes: Any) -> Path:
    """A world whose log holds votes for three cycles, a third of them thumbs: up for short answers."""
    with world(root, **changes) as made:
        for number in range(VOTES // 3):
            made.chat(2)
            text = PROMPTS[number % len(PROMPTS)]
            prompt = made.tokenizer.prompt_ids([Message(role="user", content=text)])
            [rollout] = made.engine.sample([prompt], 1, 3 + number % 5, 1.0)
            completion = made.completion(text, [rollout])
            made.append(Envelope(event_id=completion.completion_id, event=completion))
            answer = AnswerRef(completion_id=completion.completion_id, index=0)
            made.vote(completion, Thumb(answer=answer, up=len(rollout.token_ids) < 5))
    return root


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As in the service's process."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@contextmanager
def copy(log: Path, root: Path, policy: str) -> Iterator[World]:
    shutil.copytree(log, root)
    settings = {"epochs": 2, "minibatches": 2, "max_step_kl": 50.0, "micro_batch_tokens": 120, **POLICIES[policy]}
    gate = settings_of(StateDir(Path()), Path()).gate.model_copy(update={"held_back": HeldBackCheck(share=0.3)})
    with world(root, policy=PolicyTraining.model_validate(settings), gate=gate, **CHANGES.get(policy, {})) as made:
        yield made


def learn(made: World) -> None:
    with made.trainer() as trainer:
        while trainer.run_once():
            pass


def digest(state: StateDir) -> dict[str, Any]:
    """The newest checkpoint's manifest, which holds the SHA-256 of its every file, without the count of starts."""
    newest = max(path for path in state.checkpoints.iterdir() if (path / "manifest.json").is_file())
    manifest = json.loads((newest / "manifest.json").read_text())
    for name, file in manifest["files"].items():
        assert hashlib.sha256((newest / name).read_bytes()).hexdigest() == file["sha256"]
    del manifest["epoch"]
    return manifest


class Backward:
    """Counts the gradients that are asked for, and kills the trainer before one of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count, self.fatal = 0, 0
        real = torch.Tensor.backward

        def backward(*args: Any, **kwargs: Any) -> None:
            self.count += 1
            if self.count == self.fatal:
                raise Crash
            real(*args, **kwargs)

        monkeypatch.setattr(torch.Tensor, "backward", backward)


@pytest.mark.parametrize("policy", POLICIES)
def test_the_same_log_gives_the_same_checkpoint_through_kills_between_micro_batches(
    log: Path, adapters_log: Path, tmp_path: Path, policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = adapters_log if policy == "adapters" else log
    # A cycle takes a part of the log, as if the rest had not been there yet.
    monkeypatch.setattr(intake, "MAX_VOTES", 15)
    monkeypatch.setattr(intake, "READ_RECORDS", 5)
    backward = Backward(monkeypatch)
    with copy(log, tmp_path / "whole", policy) as made:
        learn(made)
        expected = digest(made.state)
        live = made.registry.live("policy")
        outcomes = [item["outcome"] for item in made.state.read_status("trainer")["history"]]
    assert outcomes == ["promoted"] * 3 and live == "policy-000003"
    assert "held_back.safetensors" in expected["files"]
    total, rng = backward.count, random.Random(5)
    with copy(log, tmp_path / "killed", policy) as made:
        for _ in range(4):
            backward.count, backward.fatal = 0, rng.randrange(1, total // 2)
            try:
                learn(made)
            except Crash:
                continue
            break
        backward.fatal = 0
        learn(made)
        assert digest(made.state) == expected
        assert made.registry.live("policy") == live


def test_a_process_killed_within_an_update_gives_the_same_checkpoint(log: Path, tmp_path: Path) -> None:
    """SIGKILL before a random gradient of a real process; another one, in here, goes on."""
    config = tmp_path / "trainer.toml"
    with copy(log, tmp_path / "whole", "ppo") as made:
        learn(made)
        expected = digest(made.state)
    with copy(log, tmp_path / "killed", "ppo") as made:
        dump(made.settings.model_copy(update={"reward_address": made.service.address}), config)
        command = [sys.executable, "-m", "tests.support.trainer_process", str(config)]
        killed = subprocess.run([*command, str(random.Random(7).randrange(8, 16))], cwd=ROOT, timeout=300)
        assert killed.returncode == -signal.SIGKILL
        learn(made)
        assert digest(made.state) == expected
