"""The passes of one update over votes: optimiser steps on all of them, and when to stop.

An update stops early where more passes make held-out votes less likely, and goes back to the weights under which they
were most likely. All answers of a vote stay in one step, cut into micro-batches of whole votes as memory asks for: one
that runs out of it begins anew with half the size, which stays so.
"""

import math
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog
import torch
from torch import Tensor

from rlhf_online.events import AI
from rlhf_online.feedback.votes import Vote, is_signal, pairs
from rlhf_online.models import trunk
from rlhf_online.models.packing import Packer
from rlhf_online.models.reward import RewardModel
from rlhf_online.models.tokens import Pair
from rlhf_online.training import distributed
from rlhf_online.training.optimiser import NamedAdam, NoRoomForCopy, OnStep, unseen
from rlhf_online.training.settings import RewardTraining
from rlhf_online.training.votes import influence
from rlhf_online.training.votes.batch import VoteBatch, assemble
from rlhf_online.training.votes.loss import ThumbCounts, VoteLoss, count_thumbs

POSITION_RIDGE = 0.01
WARMUP = 0.1
"""Share of the first update's steps in which the learning rate rises."""
MICRO_BATCH_TOKENS = 16384
MIN_HELD_OUT = 50
"""Held-out votes below which an update is not stopped early: their loss says too little."""
MAX_HELD_OUT = 500
"""The newest of them that the passes of an update are compared on."""
PATIENCE = 2
"""Passes without improvement after which an update stops."""


@dataclass(frozen=True, slots=True)
class BestPass:
    """The pass whose weights an update ends with: its mean loss, that of held-out votes then (0 if they are too few),
    and its number, 0 if no step was taken."""

    loss: float = 0.0
    held_out_loss: float = 0.0
    passes: int = 0


class VotePasses:
    """Trains `model`, and what `loss` learns beside it."""

    def __init__(self, model: RewardModel, settings: RewardTraining, *, moments_on_cpu: bool = False) -> None:
        """Raises NotEnoughRoom."""
        self.loss = VoteLoss(model, settings.centring)
        self.capped: Mapping[str, float] = {}
        """What votes weighed in the last update that weighed less than 1, by their event ids (`votes.influence`)."""
        self._model = model
        self._batch = settings.batch
        self._lr = settings.lr
        self._caps = settings.influence
        self._usual = 1.0
        """What a vote of the update weighs by its caps, on average."""
        parameters = model.parameters() | {"position_bias": self.loss.position_bias_S}
        self._adam = NamedAdam(parameters, betas=(0.9, 0.999), eps=1e-8, on_cpu=moments_on_cpu)
        self._most_tokens = self._tokens = MICRO_BATCH_TOKENS
        """Of a micro-batch: at most, where memory did not run out, and as what is free allows in this update."""

    def run(
        self,
        data: list[Vote],
        baseline: Sequence[Pair],
        held_out: Sequence[Vote],
        *,
        epochs: int,
        first: bool,
        rng: random.Random,
        skipped: Counter[str],
        on_step: OnStep = unseen,
    ) -> BestPass:
        """Up to `epochs` passes over `data`, which is shuffled in place; `first` says that it is the first update.

        `baseline` are answers that implicit signals are compared with. Steps that were not taken are counted.
        """
        thumbs = count_thumbs(data, self._model.objectives)
        self.capped = influence.weights(data, self._caps)
        self._usual = influence.mean(data, self.capped)
        steps, done = epochs * math.ceil(len(data) / self._batch), 0
        room = self._model.token_budget(self._most_tokens, self._adam.to_come())
        self._tokens = distributed.least(room, "the reward model's update")
        on_step(done, steps)
        validation = held_out[-MAX_HELD_OUT:] if len(held_out) >= MIN_HELD_OUT else []
        best = BestPass()
        restore: Callable[[], None] | None = None
        learned = 0.0
        for number in range(1, epochs + 1 if data else 1):
            rng.shuffle(data)
            loss = weight = 0.0
            for start in range(0, len(data), self._batch):
                rate = self._lr * _schedule(done, steps, warm_up=first)
                step = self._step(data[start : start + self._batch], baseline, thumbs, rate, skipped)
                loss, weight, done = loss + step[0], weight + step[1], done + 1
                on_step(done, steps)
            learned += weight
            held_out_loss = self.mean_loss(validation) if validation else 0.0
            if restore is None or held_out_loss < best.held_out_loss or math.isnan(best.held_out_loss):
                best = BestPass(loss / max(weight, 1e-8), held_out_loss, number)
                if not (validation and number < epochs):
                    continue
                restore = None  # one copy at a time
                try:
                    restore = self._snapshot()
                except NoRoomForCopy as error:
                    structlog.get_logger().error("the update ends with this pass", passes=number, why=str(error))
                    break
            elif number == epochs or number - best.passes == PATIENCE:
                restore()
                break
        return best if learned else BestPass(held_out_loss=best.held_out_loss)

    def _step(
        self, votes: Sequence[Vote], baseline: Sequence[Pair], thumbs: ThumbCounts, rate: float, skipped: Counter[str]
    ) -> tuple[float, float]:
        """One optimiser step; the summed loss and its weight."""
        try:
            total, denominator = self._fitting(lambda: self._backward(votes, baseline, thumbs))
        except RuntimeError as error:
            if not distributed.out_of_memory(error):
                raise
            structlog.get_logger().error("out of memory, with one vote at a time: a step is not taken", why=str(error))
            skipped["out_of_memory"] += 1
            return 0.0, 0.0
        if denominator == 0:
            return 0.0, 0.0
        self.loss.new_votes.observe()
        distributed.all_reduce(self._model.parameters().values(), {})
        (POSITION_RIDGE * self.loss.position_bias_S.square().sum()).backward()
        if not math.isfinite(total) or not math.isfinite(self._adam.clip(1.0)):
            skipped["not_finite"] += 1
            return 0.0, 0.0
        self._adam.step(rate)
        return total * denominator, denominator

    def _backward(self, votes: Sequence[Vote], baseline: Sequence[Pair], thumbs: ThumbCounts) -> tuple[float, float]:
        """Make the gradient that of these votes' mean loss; that loss, and what it is the mean over. A step of votes
        that caps make light is a short one: else a cap would hold only where others' votes are in the same step."""
        pieces = self._batches(votes, baseline)
        denominator = sum(piece.weight() for piece in pieces) * self._usual / influence.mean(votes, self.capped)
        self._adam.zero_grad()
        if denominator == 0:
            return 0.0, 0.0
        told = torch.zeros((), device=self._model.device)
        for piece in pieces:
            loss = self.loss(piece, baseline, denominator, thumbs)
            work = partial(_backward, loss)
            distributed.together(work, "the reward model's step", in_step=self._model.shards.cut)
            told = told + loss.detach()
        return told.item(), denominator

    def _fitting(self, work: Callable[[], tuple[float, float]]) -> tuple[float, float]:
        """`work()`, from its beginning with micro-batches of half the size, in all processes, whenever memory runs out
        in one of them. Raises what it raised when it does so with the smallest."""
        while True:
            biases = [bias.to_json() for bias in self.loss.rater_bias]
            try:
                return work()
            except RuntimeError as error:
                if not distributed.out_of_memory(error):
                    raise
                for bias, before in zip(self.loss.rater_bias, biases, strict=True):
                    bias.load_json(before)
                self.loss.new_votes.unmeet()
                if self._tokens <= 1:
                    raise
            self._most_tokens = self._tokens = self._tokens // 2
            torch.cuda.empty_cache()
            structlog.get_logger().warning("out of memory: smaller micro-batches of votes", tokens=self._tokens)

    def let_go(self) -> None:
        """Of the gradients, which are as large as the weights, and of no use to the policy's update."""
        self._adam.zero_grad()

    @torch.no_grad()
    def mean_loss(self, votes: Sequence[Vote]) -> float:
        """Mean loss of votes, all heads reading all of them; the model learns nothing, and new ones are looked at as
        ever."""
        batches = self._batches(votes, (), bootstrap=False)
        denominator = sum(batch.weight() for batch in batches)
        with self._model.shards.gathered():
            loss = torch.stack([self.loss(batch, (), denominator) for batch in batches]).sum().item()
        self.loss.new_votes.observe()
        return loss

    def _batches(self, votes: Sequence[Vote], baseline: Sequence[Pair], *, bootstrap: bool = True) -> list[VoteBatch]:
        """Micro-batches of whole votes."""
        heads, objectives = self._model.members, self._model.objectives
        known = {"ai_weight": self.loss.label_reliability.weight(AI), "capped": self.capped}
        pieces = micro_batches(self._model.packer, votes, baseline if any(map(is_signal, votes)) else (), self._tokens)
        return [assemble(piece, heads, objectives, self.loss.raters, bootstrap=bootstrap, **known) for piece in pieces]

    # Keeping

    def _snapshot(self) -> Callable[[], None]:
        """Copies of all that a pass changes; calling it puts them back."""
        put_back, learned = self._adam.snapshot(), self.loss.to_json()

        def restore() -> None:
            put_back()
            self.loss.load_json(learned)

        return restore

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The model, the optimiser, and what is learned beside the model."""
        return self._model.state() | trunk.below("adam", self._adam.state()), self.loss.to_json()

    def load_state(self, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        """Put back what `state` gave. Raises VersionCorrupt for another model's."""
        self._model.load_state(tensors)
        self._adam.load_state(trunk.unnamed("adam", tensors))
        self.loss.load_json(values)


def _backward(loss: Tensor) -> None:
    if loss.requires_grad:  # of several processes one may have computed none of its utilities
        loss.backward()


def micro_batches(packer: Packer, votes: Sequence[Vote], baseline: Sequence[Pair], limit: int) -> list[list[Vote]]:
    """Whole votes in their order, at most `limit` tokens of a pass together with `baseline`; one vote at least."""
    groups = packer.cut([list(pairs(vote)) for vote in votes], limit, baseline)
    return [[votes[index] for index in group] for group in groups]


def _schedule(done: int, steps: int, *, warm_up: bool) -> float:
    """The learning rate's factor: falling to a tenth, and rising first where Adam's moments are young: its first
    steps are as long as any, in directions that single batches give, and would spoil what the trunk knows."""
    rising = round(WARMUP * steps) if warm_up else 0
    return (1 - 0.9 * done / steps) * min(1.0, (done + 1) / max(1, rising))
