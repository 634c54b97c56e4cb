"""All that a trainer works with in the tiny world, without vLLM: a real log with people's votes, a real registry, a
real reward service, and an engine that samples in torch with whatever version is live."""

import copy
import itertools
import json
import random
import threading
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from prometheus_client import CollectorRegistry

from rlhf_online.eventlog.local import LocalLog
from rlhf_online.eventlog.tail import LocalReader
from rlhf_online.events import (
    Answer,
    AnswerRef,
    Completion,
    Envelope,
    Feedback,
    FeedbackKind,
    Message,
    Ranking,
    Sampling,
    Thumb,
    VersionSpan,
)
from rlhf_online.gate.settings import GateSettings
from rlhf_online.metrics import TrainerMetrics
from rlhf_online.models.limits import ModelLimits
from rlhf_online.models.policy import Policy
from rlhf_online.models.reward import RewardModel
from rlhf_online.models.tokens import ChatTokenizer
from rlhf_online.rewards import weights
from rlhf_online.rewards.client import RewardClient
from rlhf_online.rollout.sampler import Part
from rlhf_online.rollout.types import Rollout
from rlhf_online.simulation.tiny_model import write_tiny_model
from rlhf_online.state import StateDir
from rlhf_online.training.lease import FileLease
from rlhf_online.training.loop import Trainer
from rlhf_online.training.policy.settings import PolicyTraining
from rlhf_online.training.settings import RewardTraining, RolloutSettings, TrainerSettings
from rlhf_online.versions import open_registry
from rlhf_online.versions.genesis import genesis
from rlhf_online.versions.manifest import Manifest
from rlhf_online.versions.registry import Registry
from rlhf_online.wire import encode
from services.trainer.wiring import build
from tests.support.gate import OPEN
from tests.support.reward_service import RewardService, reward_service

Tokens = tuple[int, ...]
MAX_TOKENS = 8
PROMPTS = [f"name {number} {category}" for number in ("one", "two", "three") for category in ("fruit", "metal", "tool")]


class TorchEngine:
    """Answers with the live version's weights: what vLLM does for the real trainer.

    The same version gives the same prompts the same answers, in whatever process and however often it is asked.
    """

    def __init__(self, registry: Registry, base: Path, tokenizer: ChatTokenizer, version: str = "") -> None:
        self.version = version
        self._calls = itertools.count(1)
        self._registry = registry
        self._base = base
        self._tokenizer = tokenizer
        self._loaded: tuple[str, Policy] | None = None
        self._tuning: Literal["full", "lora"] = registry.manifest(registry.versions("policy")[0]).tuning

    def policy(self) -> tuple[str, Policy]:
        live = self.version or self._registry.live("policy")
        assert live is not None
        if self._loaded is None or self._loaded[0] != live:
            self._loaded = live, Policy.load(self._base, tuning=self._tuning, version=self._registry.path(live))
        return self._loaded

    def of(self, version: str) -> "TorchEngine":
        """One that answers by that version; "" for the live one."""
        other = copy.copy(self)
        other.version = version
        return other

    def serving(self, prompt: Tokens) -> str:
        return self.policy()[0]

    def stream(self, prompts: Sequence[Tokens], n: int, max_tokens: int, temperature: float) -> Iterator[Part]:
        yield prompts, self.sample(prompts, n, max_tokens, temperature)

    def sample(self, prompts: Sequence[Tokens], n: int, max_tokens: int, temperature: float) -> list[Rollout]:
        version, policy = self.policy()
        call = next(self._calls)
        repeated = [prompt for prompt in prompts for _ in range(n)]
        answers = policy.sample(
            repeated,
            max_tokens=max_tokens,
            temperature=temperature,
            seed=zlib.crc32(repr((version, tuple(prompts), n, max_tokens, temperature)).encode()),
            eos_ids=self._tokenizer.eos_ids,
        )
        logprobs = policy.logprobs(list(zip(repeated, answers, strict=True)), temperature=temperature)
        return [
            Rollout(
                rollout_id=f"fresh-{call}-{row}",
                prompt_token_ids=prompt,
                token_ids=answer,
                logprobs=values,
                policy_version=version,
                temperature=temperature,
                finished=answer[-1] in self._tokenizer.eos_ids,
            )
            for row, (prompt, answer, values) in enumerate(zip(repeated, answers, logprobs, strict=True))
        ]


LENIENT = GateSettings.model_validate(
    {
        "samples": 16,
        "win_rate": {"min": 0.0},
        "held_back": {"share": 0.0},
        "length": {"max_ratio": 50.0, "min_ratio": 0.0},
        **OPEN,
    }
)
"""For models that know next to nothing: their candidates are to be promoted."""


@dataclass
class World:
    """`accepted` holds the event id of every vote that was logged."""

    state: StateDir
    settings: TrainerSettings
    tokenizer: ChatTokenizer
    registry: Registry
    engine: TorchEngine
    log: LocalLog
    service: RewardService
    accepted: list[str] = field(default_factory=list)
    conversations: int = 0

    def append(self, envelope: Envelope) -> None:
        self.log.append(encode(envelope)).result(30)

    def chat(self, count: int, *, answers: int = 3, objective: str = "", longest: bool = False) -> list[str]:
        """`count` people ask, get some answers each, and rank them by the objective: short ones first, or the
        `longest`. Returns the votes' event ids."""
        rng = random.Random(self.conversations)
        texts = [rng.choice(PROMPTS) for _ in range(count)]
        prompts = [self.tokenizer.prompt_ids([Message(role="user", content=text)]) for text in texts]
        rollouts = self.engine.sample(prompts, answers, MAX_TOKENS, 1.0)
        ids = []
        for number, text in enumerate(texts):
            completion = self.completion(text, rollouts[number * answers : (number + 1) * answers])
            self.append(Envelope(event_id=completion.completion_id, event=completion))
            order = sorted(completion.answers, key=lambda item: (len(item.token_ids), item.index), reverse=longest)
            refs = [AnswerRef(completion_id=completion.completion_id, index=answer.index) for answer in order]
            ids.append(self.vote(completion, Ranking(tiers=tuple((ref,) for ref in refs)), objective=objective))
        return ids

    def vote(
        self, completion: Completion, kind: FeedbackKind, person: str = "p", objective: str = "", *, key_id: str = ""
    ) -> str:
        """Log a vote; returns its event id."""
        event_id = f"vote-{len(self.accepted)}"
        feedback = Feedback(
            conversation_id=completion.conversation_id,
            person=person,
            kind=kind,
            created_ms=completion.finished_ms + 1,
            objective=objective,
            key_id=key_id,
        )
        self.append(Envelope(event_id=event_id, event=feedback))
        self.accepted.append(event_id)
        return event_id

    def orphan(self, created_ms: int) -> str:
        """A vote on an answer that never comes."""
        ghost = self.completion(PROMPTS[0], [], finished_ms=created_ms)
        return self.vote(ghost, Thumb(answer=AnswerRef(completion_id="ghost"), up=True))

    def completion(self, text: str, rollouts: Sequence[Rollout], finished_ms: int = 0) -> Completion:
        """What the chat service would log, in a conversation of its own; it is not appended."""
        self.conversations += 1
        name = f"completion-{self.conversations}"
        now = finished_ms or 1_000_000 + self.conversations
        return Completion(
            completion_id=name,
            conversation_id=f"conversation-{self.conversations}",
            person="p",
            messages=(Message(role="user", content=text),),
            prompt_token_ids=rollouts[0].prompt_token_ids if rollouts else (),
            answers=tuple(
                Answer(
                    index=index,
                    text=self.tokenizer.decode(rollout.token_ids),
                    token_ids=rollout.token_ids,
                    logprobs=rollout.logprobs,
                    spans=(VersionSpan(policy_version=rollout.policy_version, first_token=0),),
                    finish_reason="stop" if rollout.finished else "length",
                )
                for index, rollout in enumerate(rollouts)
            ),
            sampling=Sampling(max_tokens=MAX_TOKENS),
            started_ms=now - 1,
            finished_ms=now,
        )

    @contextmanager
    def trainer(self, stop: threading.Event | None = None) -> Iterator[Trainer]:
        """A trainer built by the service's own wiring, with a lease of its own, resumed from the last checkpoint."""
        rewards = RewardClient(self.service.address)
        reader = LocalReader(self.state.log)
        metrics = TrainerMetrics(CollectorRegistry())
        try:
            with FileLease.take(self.state.checkpoints) as lease:
                yield build(
                    self.settings,
                    lease,
                    reader,
                    self.engine,
                    rewards,
                    self.tokenizer,
                    metrics,
                    stop or threading.Event(),
                )
        finally:
            reader.close()
            rewards.close()

    def ledger(self) -> dict[str, list[bytes]]:
        """What the newest checkpoint's ledger holds, read without the ledger's code: disposition → digests."""
        newest = max(path for path in self.state.checkpoints.iterdir() if (path / "manifest.json").is_file())
        names = ("trained", "held_out", "orphaned", "dead_lettered", "rollout", "withdrawn", "erased")
        found: dict[str, list[bytes]] = {name: [] for name in names}
        for file in json.loads((newest / "manifest.json").read_text())["ledger"]:
            data = (self.state.checkpoints / "ledger" / file).read_bytes()
            for at in range(0, len(data), 17):
                found[names[data[at]]].append(data[at + 1 : at + 17])
        return found


def settings_of(state: StateDir, base: Path, **changes: object) -> TrainerSettings:
    """Cycles of a second: few votes, few rollouts, one pass, and a policy that moves however little was learned."""
    values: dict = {
        "state_dir": state.root,
        "metrics_port": 0,
        "chat_url": "http://127.0.0.1:9",
        "reward_address": "127.0.0.1:9",
        "model": str(base),
        "device": "cpu",
        "cold_votes": 12,
        "min_votes": 8,
        "join_window_s": 1000.0,
        "reward": RewardTraining(heads=2, batch=16, epochs=1, cold_epochs=2, held_out=0.2, policy_accuracy=0.0),
        "policy": PolicyTraining(epochs=1, minibatches=2, max_step_kl=50.0),
        "rollout": RolloutSettings(per_cycle=32, answers_per_prompt=4, max_tokens=MAX_TOKENS),
        "gate": LENIENT,
    }
    return TrainerSettings(**{**values, **changes})


@contextmanager
def world(root: Path, **changes: object) -> Iterator[World]:
    """The world below `root`, or a new one with a first policy version and no votes; `changes` are to its settings."""
    base, state = root / "model", StateDir(root / "state")
    if not base.exists():
        write_tiny_model(base, weights_seed=3)
    settings = settings_of(state, base, **changes)
    tokenizer, registry = ChatTokenizer(base), open_registry(state.versions, settings=settings.versions)
    tuning = "lora" if changes.get("tuning") == "lora" else "full"
    genesis(registry, base, tuning=tuning, probe_of=lambda model: ())  # no engine here asks for it

    def load(manifest: Manifest) -> RewardModel:
        return RewardModel.load(base, folder=registry.path(manifest.version), tuning=manifest.tuning)

    log = LocalLog(state.log)
    try:
        limits, read = ModelLimits(vocabulary=78, context=128), (lambda: weights.read(registry.store, state))
        with reward_service(registry, load, tokenizer, limits, weights=read) as service:
            engine = TorchEngine(registry, base, tokenizer)
            yield World(state, settings, tokenizer, registry, engine, log, service)
    finally:
        log.close()
