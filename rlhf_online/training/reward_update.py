"""Incremental training of the reward model on people's votes.

An update takes the new votes, mixes in replayed ones against forgetting, passes over both, measures on votes that no
update ever sees, and normalises the scores on reference answers. One loss over all kinds of feedback: Plackett–Luce for
rankings (ties by Efron), Bradley–Terry with margins for pairs, Bernoulli with a person's intercept for thumbs, each
head weighted by its own bootstrap. All answers of a vote stay in one optimiser step.

Shapes: N answers of a batch, K heads; see `votes.VoteBatch`. Invariant: the same votes in the same order give the same
weights; every random choice comes from the seed and the number of the update.
"""

import math
import random
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rlhf_online.algorithms import reward_losses
from rlhf_online.config import RewardTraining
from rlhf_online.feedback.preferences import Preference
from rlhf_online.models import trunk
from rlhf_online.models.reward import RewardModel
from rlhf_online.models.tokens import ChatTokenizer, Pair, length
from rlhf_online.training.intercepts import Intercepts
from rlhf_online.training.optimiser import NamedAdam
from rlhf_online.training.votes import Vote, VoteBatch, assemble, ordered_pairs, to_vote

MAX_SLOTS = 16
SLOT_RIDGE = 0.01
HELD_OUT_CAPACITY = 2000
MICRO_BATCH_TOKENS = 8192
CALIBRATION_BINS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardReport:
    """What an update did. `accuracy` and `ece` (expected calibration error) are over `accuracy_n` held-out pairs, and
    `thumb_accuracy` over `thumb_n` held-out thumbs; 0 where there is none. `seen` counts new and replayed votes."""

    seen: int
    new: int
    loss: float
    accuracy: float
    accuracy_n: int
    ece: float
    thumb_accuracy: float
    thumb_n: int
    mean: float
    std: float


class RewardUpdater:
    """Trains `model` in place."""

    def __init__(self, model: RewardModel, tokenizer: ChatTokenizer, settings: RewardTraining, seed: int) -> None:
        self.model = model
        self.updates = 0
        self._tokenizer = tokenizer
        self._settings = settings
        self._seed = seed
        self._replay: list[Vote] = []
        self._held_out: dict[str, Vote] = {}
        self._intercepts = Intercepts()
        self._slots_S = nn.Parameter(torch.zeros(MAX_SLOTS, device=model.device))
        parameters = model.parameters() | {"slots": self._slots_S}
        self._adam = NamedAdam(parameters, dict.fromkeys(parameters, settings.lr), betas=(0.9, 0.999), eps=1e-8)

    def update(
        self, new: Sequence[Preference], held_out: Sequence[Preference], reference_pairs: Sequence[Pair]
    ) -> RewardReport:
        """Learn from `new`; keep `held_out` (the new ones, or all again) for measuring, and never learn from it.

        Scores are normalised on `reference_pairs`, or on the answers voted on where there are fewer than two.
        """
        rng = random.Random(f"reward {self._seed} {self.updates}")
        votes = [to_vote(preference, self._tokenizer) for preference in new]
        self._keep_held_out([to_vote(preference, self._tokenizer) for preference in held_out])
        wanted = min(len(self._replay), round(self._settings.replay * len(votes)))
        data = votes + rng.sample(self._replay, wanted)
        epochs = self._settings.epochs if self.updates else self._settings.cold_epochs
        loss = self._train(data, epochs, rng)
        self._remember(votes, rng)
        self.updates += 1
        reference = list(reference_pairs)
        if len(reference) < 2:
            reference = [pair for vote in data for pair in vote.pairs()]
        if len(reference) >= 2:
            self.model.normalise(reference)
        mean, std = self.model.mean_K.mean().item(), self.model.std
        return RewardReport(seen=len(data), new=len(votes), loss=loss, mean=mean, std=std, **self.evaluate())

    def forget(self, revoked: Collection[tuple[str, str]]) -> None:
        """Never replay, nor measure on, the votes of these (event id, person): their person took them back."""
        gone = set(revoked)
        self._replay = [vote for vote in self._replay if (vote.event_id, vote.person) not in gone]
        self._held_out = {
            event_id: vote for event_id, vote in self._held_out.items() if (event_id, vote.person) not in gone
        }

    @property
    def thumbs(self) -> list[Vote]:
        """The thumbs kept for replay, those of the last update among them; none held out."""
        return [vote for vote in self._replay if vote.up is not None]

    def evaluate(self) -> dict[str, Any]:
        """Accuracy and calibration of the heads' mean on the held-out votes, as RewardReport names them."""
        right: list[float] = []
        confidence: list[float] = []
        thumbs: list[bool] = []
        votes = list(self._held_out.values())
        utilities_N = self.model.utilities([pair for vote in votes for pair in vote.pairs()]).mean(1).tolist()
        at = 0
        for vote in votes:
            own = utilities_N[at : at + len(vote.answers)]
            at += len(vote.answers)
            for better, worse in ordered_pairs(vote):
                delta = own[better] - own[worse]
                right.append(float(delta > 0) + 0.5 * (delta == 0))
                confidence.append(1 / (1 + math.exp(-min(abs(delta), 30.0))))
            if vote.up is not None:
                thumbs.append((own[0] + self._intercepts.of([vote.person])[0] > 0) == vote.up)
        return {
            "accuracy": sum(right) / max(1, len(right)),
            "accuracy_n": len(right),
            "ece": calibration_error(confidence, right),
            "thumb_accuracy": sum(thumbs) / max(1, len(thumbs)),
            "thumb_n": len(thumbs),
        }

    def _train(self, data: list[Vote], epochs: int, rng: random.Random) -> float:
        """Passes over `data`, the learning rate falling to a tenth over the update; the last epoch's mean loss."""
        totals = Counter(vote.person for vote in data if vote.up is not None)
        size = self._settings.batch
        steps, done, loss, weight = epochs * math.ceil(len(data) / size), 0, 0.0, 0.0
        for _ in range(epochs):
            rng.shuffle(data)
            loss = weight = 0.0
            for start in range(0, len(data), size):
                batch_loss, batch_weight = self._step(data[start : start + size], totals, 1 - 0.9 * done / steps)
                loss, weight, done = loss + batch_loss, weight + batch_weight, done + 1
        return loss / max(weight, 1e-8)

    def _step(self, votes: Sequence[Vote], totals: Counter[str], scale: float) -> tuple[float, float]:
        """One optimiser step, in micro-batches of whole votes; the summed loss and its weight."""
        heads = self.model.heads.out_features
        pieces = [assemble(piece, heads) for piece in self._micro_batches(votes)]
        denominator = sum(piece.weight() for piece in pieces)
        if denominator == 0:
            return 0.0, 0.0
        self._adam.zero_grad()
        total = 0.0
        for piece in pieces:
            loss = self._loss(piece, totals, denominator)
            loss.backward()
            total += loss.item()
        (SLOT_RIDGE * self._slots_S.square().sum()).backward()
        if math.isfinite(self._adam.clip(1.0)):
            self._adam.step(scale)
        return total * denominator, denominator

    def _micro_batches(self, votes: Sequence[Vote]) -> list[list[Vote]]:
        limit = self.model.token_budget(MICRO_BATCH_TOKENS)
        pieces: list[list[Vote]] = [[]]
        rows = widest = 0
        for vote in votes:
            width = max(length(pair) for pair in vote.pairs())
            if pieces[-1] and (rows + len(vote.answers)) * max(widest, width) > limit:
                pieces.append([])
                rows = widest = 0
            pieces[-1].append(vote)
            rows, widest = rows + len(vote.answers), max(widest, width)
        return pieces

    def _loss(self, batch: VoteBatch, totals: Counter[str], denominator: float) -> Tensor:
        device, heads = self.model.device, self.model.heads.out_features
        utilities_NK = self.model.forward(self.model.collate(batch.pairs)).float()
        slots_N = batch.slots_N.to(device)
        known_N = (slots_N >= 0) & (slots_N < MAX_SLOTS)
        shown_NK = utilities_NK + torch.where(known_N, self._slots_S[slots_N.clamp(0, MAX_SLOTS - 1)], 0).unsqueeze(1)
        loss = torch.zeros((), device=device)
        if len(batch.rank_RG):
            utilities_RGK = shown_NK[batch.rank_RG.clamp(min=0).to(device)]
            utilities_BG = utilities_RGK.permute(2, 0, 1).flatten(0, 1)
            tiers_BG = batch.tiers_RG.to(device).repeat(heads, 1)
            weights_B = batch.rank_weights_RK.to(device).T.flatten()
            loss = (
                loss + reward_losses.plackett_luce_loss(utilities_BG, tiers_BG, weights_B, denominator=denominator)[0]
            )
        if len(batch.chosen_P):
            margins_P = torch.tensor(reward_losses.MARGINS, device=device)[batch.strength_P.clamp(0, 3).to(device)]
            loss = (
                loss
                + reward_losses.bradley_terry_loss(
                    shown_NK[batch.chosen_P.to(device)],
                    shown_NK[batch.rejected_P.to(device)],
                    batch.tied_P.to(device).unsqueeze(1),
                    margins_P.unsqueeze(1),
                    batch.pair_weights_PK.to(device),
                    denominator=denominator,
                )[0]
            )
        if len(batch.thumb_Q):
            thumbs_QK = utilities_NK[batch.thumb_Q.to(device)]
            means = thumbs_QK.detach().mean(1).tolist()
            self._intercepts.step(means, batch.up_Q.tolist(), batch.people_Q, totals)
            intercepts_Q1 = torch.tensor(self._intercepts.of(batch.people_Q), device=device).unsqueeze(1)
            up_QK, weights_QK = batch.up_Q.to(device).unsqueeze(1), batch.thumb_weights_QK.to(device)
            up_QK = up_QK.expand_as(thumbs_QK)
            loss = (
                loss
                + reward_losses.thumbs_loss(thumbs_QK, intercepts_Q1, up_QK, weights_QK, denominator=denominator)[0]
            )
        return loss

    def _remember(self, votes: Sequence[Vote], rng: random.Random) -> None:
        """Beyond the capacity a newcomer takes a random one's place: the past fades, geometrically."""
        for vote in votes:
            if len(self._replay) < self._settings.replay_capacity:
                self._replay.append(vote)
            else:
                self._replay[rng.randrange(len(self._replay))] = vote

    def _keep_held_out(self, votes: Sequence[Vote]) -> None:
        self._held_out.update((vote.event_id, vote) for vote in votes)
        while len(self._held_out) > HELD_OUT_CAPACITY:
            del self._held_out[next(iter(self._held_out))]

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The model, the optimiser and all else that the next update depends on: tensors, and JSON values."""
        tensors = self.model.state() | trunk.named("adam", self._adam.state())
        values = {
            "updates": self.updates,
            "replay": [vote.to_json() for vote in self._replay],
            "held_out": [vote.to_json() for vote in self._held_out.values()],
            "intercepts": self._intercepts.to_json(),
            "slots": self._slots_S.tolist(),
        }
        return tensors, values

    def load_state(self, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        """Put back what `state` gave. Raises VersionCorrupt for another model's."""
        self.model.load_state(tensors)
        self._adam.load_state(trunk.unnamed("adam", tensors))
        self.updates = values["updates"]
        self._replay = [Vote.from_json(item) for item in values["replay"]]
        held_out = [Vote.from_json(item) for item in values["held_out"]]
        self._held_out = {vote.event_id: vote for vote in held_out}
        self._intercepts.load_json(values["intercepts"])
        with torch.no_grad():
            self._slots_S.copy_(torch.tensor(values["slots"]))


def calibration_error(confidence: Sequence[float], right: Sequence[float]) -> float:
    """Expected calibration error (Guo et al. 2017, eq. 5): Σ over bins of equal width of share · |accuracy − mean
    confidence|; confidences lie in [½, 1]. 0 for no predictions."""
    bins: dict[int, list[int]] = {}
    for index, value in enumerate(confidence):
        bins.setdefault(min(int((value - 0.5) * 2 * CALIBRATION_BINS), CALIBRATION_BINS - 1), []).append(index)
    gaps = (abs(sum(right[i] - confidence[i] for i in members)) for members in bins.values())
    return sum(gaps) / max(1, len(confidence))
