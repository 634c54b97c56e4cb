"""Scored answers for a policy update: those that users were served, topped up by fresh ones of the live version.

    buffer ──live answers──┐
    sampler ──fresh────────┴──▶ reward service (one pinned version) ──▶ scored rollouts

Answers are scored in the parts in which they come, while the engine writes those that follow.

Invariants: a live answer is claimed in the ledger and so used once; every score is by the reward version, weights and
rules asked for. One that is not finite stays NaN: the policy update leaves its answer out and counts it.
"""

import copy
import math
import random
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import structlog

from rlhf_online.errors import InvalidInput, RlhfError
from rlhf_online.gate.evidence import comparable
from rlhf_online.rewards.sources import RewardSource, Scored, score_by_all
from rlhf_online.rollout.buffer import RolloutBuffer
from rlhf_online.rollout.curriculum import Curriculum
from rlhf_online.rollout.eligibility import staleness
from rlhf_online.rollout.sampler import Part
from rlhf_online.rollout.types import Rollout, ScoredRollout
from rlhf_online.training.ledger import Ledger
from rlhf_online.training.retrier import Retrier
from rlhf_online.training.settings import RolloutSettings
from rlhf_online.versions.manifest import kind_of
from rlhf_online.versions.registry import Registry

Tokens = tuple[int, ...]
TEMPERATURE = 1.0
SCORE_TIMEOUT_S = 120.0
SERVED_WITHIN_S = 30.0
POLL_S = 0.25


class AnswerSampler(Protocol):
    """Samples fresh answers from the live version, as `rollout.sampler.Sampler` does."""

    def sample(self, prompts: Sequence[Tokens], n: int, max_tokens: int, temperature: float) -> list[Rollout]: ...

    def stream(self, prompts: Sequence[Tokens], n: int, max_tokens: int, temperature: float) -> Iterator[Part]: ...

    def serving(self, prompt: Tokens) -> str: ...

    def of(self, version: str) -> "AnswerSampler":
        """One of a version that is held beside the live one, for an audience."""
        ...


class Experience:
    """Gathers and scores rollouts. `pessimism` times the ensemble's spread is taken off each score."""

    def __init__(
        self,
        sampler: AnswerSampler,
        sources: Sequence[RewardSource],
        buffer: RolloutBuffer,
        ledger: Ledger,
        registry: Registry,
        retrier: Retrier,
        settings: RolloutSettings,
        pessimism: float,
    ) -> None:
        self.sources = list(sources)
        self.curriculum = Curriculum(settings.curriculum, settings.prompts)
        self.sampler = sampler
        self.buffer = buffer
        self._ledger = ledger
        self._registry = registry
        self._retrier = retrier
        self._settings = settings
        self.pessimism = pessimism
        self.staleness: dict[str, int] = {}
        """Versions promoted since each version that wrote answers of the last `gather`."""
        self.spreads: list[float] = []
        """Of the last rollouts' scores."""
        self._log = structlog.get_logger()

    def of(self, version: str) -> "Experience":
        """One of answers by another version than the live one, which the engine holds for an audience. It draws prompts
        uniformly: what a curriculum has learned is of other scores."""
        other = copy.copy(self)
        other.sampler = self.sampler.of(version)
        other.curriculum = Curriculum("uniform", self._settings.prompts)
        other.staleness, other.spreads = {}, []
        return other

    def wait_until_served(self, version: str, prompt: Tokens) -> bool:
        """Wait for the engine to serve `version`, SERVED_WITHIN_S at most; False if another version became live."""
        deadline = time.monotonic() + SERVED_WITHIN_S
        while True:
            serving = self._retrier.call("asking which version serves", lambda: self.sampler.serving(prompt))
            if self._retrier.call("reading the live version", lambda: self._registry.live(kind_of(version))) != version:
                return False
            if serving == version:
                return True
            if time.monotonic() > deadline:
                self._log.warning("the live version is not served yet", live=version, serving=serving)
                return True
            self._retrier.sleep(POLL_S)

    def gather(
        self, prompts: Sequence[Tokens], live: str, baseline: int, rng: random.Random, *, grouped: bool = False
    ) -> Iterator[list[Rollout]]:
        """About `per_cycle` answers, with `baseline` ones among them, if possible, that the gate can compare with: in
        parts, as they come.

        Fresh answers are to prompts that the curriculum draws from `prompts`, without replacement. `grouped`: answers
        to one prompt are compared, so that the prompts of which there is a single live answer come first.
        """
        settings = self._settings
        lineage = self._retrier.call("reading what led to it", lambda: self._registry.lineage(kind_of(live)))
        taken = self.buffer.take(settings.per_cycle, lineage, lambda name: self._ledger.take(name, "rollout"))
        found = sum(comparable(rollout, live, TEMPERATURE, settings.max_tokens) for rollout in taken)
        asked = Counter(rollout.prompt_token_ids for rollout in taken)
        singletons = [prompt for prompt, times in asked.items() if times == 1] if grouped else []
        wanted = max(settings.per_cycle - len(taken) + len(singletons), baseline - found)
        count = min(len(prompts), -(-wanted // settings.answers_per_prompt))
        self.staleness = staleness(lineage)
        yield taken
        if count <= 0:
            return
        first = dict.fromkeys(singletons[:count])
        others = [prompt for prompt in prompts if prompt not in first]
        chosen = [*first, *self.curriculum.draw(others, count - len(first), rng)]
        try:
            for part in self._fresh(chosen):
                yield self.buffer.drop_stale(part, lineage)
        except InvalidInput:  # an audience's version is not held any more: there will be no update
            for rollout in taken:
                self._ledger.give_back(rollout.rollout_id)
            self.buffer.add(reversed(taken))
            raise

    def _fresh(self, prompts: Sequence[Tokens]) -> Iterator[list[Rollout]]:
        """Answers to these prompts; what came before the engine was away is not asked for again."""
        settings, parts = self._settings, None

        def following() -> Part:
            nonlocal parts
            if parts is None:
                parts = self.sampler.stream(prompts, settings.answers_per_prompt, settings.max_tokens, TEMPERATURE)
            try:
                return next(parts)
            except RlhfError:
                parts = None
                raise

        while prompts:
            answered, rollouts = self._retrier.call("sampling fresh answers", following)
            prompts = prompts[len(answered) :]
            yield rollouts

    def score(
        self, pairs: Sequence[tuple[Tokens, Tokens]], reward_version: str, weights: Mapping[str, float], rules: str = ""
    ) -> list[Scored]:
        """Pessimistic scores, mean − k·spread, and the spreads, in order; NaN where the reward model gave no number."""
        scored = self._retrier.call(
            "scoring answers",
            lambda: score_by_all(self.sources, pairs, reward_version, SCORE_TIMEOUT_S, weights, rules),
        )
        return [replace(item, score=item.score - self.pessimism * item.spread) for item in scored]

    def score_rollouts(
        self, parts: Iterable[Sequence[Rollout]], reward_version: str, weights: Mapping[str, float], rules: str = ""
    ) -> list[ScoredRollout]:
        """The rollouts with their scores, which the curriculum learns of; an answer without a token has none (NaN)."""
        scored: list[ScoredRollout] = []
        self.spreads = []
        for rollouts in parts:
            pairs = [(rollout.prompt_token_ids, rollout.token_ids) for rollout in rollouts if rollout.token_ids]
            given = self.score(pairs, reward_version, weights, rules) if pairs else []
            self.spreads += [item.spread for item in given if math.isfinite(item.spread)]
            scores = iter(given)
            scored += [
                ScoredRollout(rollout=item, score=next(scores).score if item.token_ids else math.nan)
                for item in rollouts
            ]
        self.curriculum.observe(scored)
        return scored
