"""One loss over all kinds of feedback, and what is learned of people beside the reward model.

Plackett–Luce for rankings (ties by Efron), Bradley–Terry with margins for pairs, both as far as who gave them is
believed, Bernoulli with a rater's bias for thumbs, a noisy label for implicit signals, and a penalty on the level of
utilities where it is asked for; each head weighted by its own bootstrap. Beside the model stand the bias of each
position in which an answer was shown, that of each rater's thumbs by an objective, the reliability of each rater's
comparisons and their own bias for the first position, and the reliability of each signal.

Shapes: N answers of a batch, O objectives, K heads; R, P, Q, H as in `votes.VoteBatch`. Invariant: the losses of
micro-batches, each with the denominator of the whole, add up to the loss of the whole, and their gradients too. Of
several processes (`distributed`) each computes a share of the utilities, and from all of them the whole loss: the
model's gradients add up over the processes, while that of the position bias is whole in each.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rlhf_online.algorithms import reward_losses
from rlhf_online.feedback.votes import Vote, is_thumb
from rlhf_online.models.reward import RewardModel
from rlhf_online.models.tokens import Pair
from rlhf_online.models.transfer import onto
from rlhf_online.training import distributed
from rlhf_online.training.votes.batch import VoteBatch
from rlhf_online.training.votes.label_reliability import LabelReliability
from rlhf_online.training.votes.new_votes import NewVotes
from rlhf_online.training.votes.rater_bias import RaterBias
from rlhf_online.training.votes.raters import Raters
from rlhf_online.training.votes.signal_reliability import SignalReliability

MAX_POSITIONS = 16
ThumbCounts = Mapping[tuple[int, str], int]
"""How many thumbs each (objective, person) gives in an epoch."""


def count_thumbs(votes: Sequence[Vote], objectives: Sequence[str]) -> Counter[tuple[int, str]]:
    """See ThumbCounts."""
    return Counter((vote.objective_index(objectives), vote.person) for vote in votes if is_thumb(vote))


class VoteLoss:
    """`position_bias_S` learns by the optimiser; rater biases and reliabilities have steps of their own.

    `centring` is the weight of the penalty on the level.
    """

    def __init__(self, model: RewardModel, centring: float) -> None:
        self.position_bias_S = nn.Parameter(torch.zeros(MAX_POSITIONS, device=model.device))
        self.rater_bias = tuple(RaterBias() for _ in model.objectives)
        self.raters = Raters()
        self.new_votes = NewVotes(model.objectives, self.raters, self.rater_bias)
        self.signal_reliability = SignalReliability()
        self.label_reliability = LabelReliability()
        self._model = model
        self._centring = centring

    def __call__(
        self, batch: VoteBatch, baseline: Sequence[Pair], denominator: float, thumbs: ThumbCounts | None = None
    ) -> Tensor:
        """The loss of a batch ÷ `denominator`. `baseline` are answers that implicit signals are compared with.

        With `thumbs` the raters' biases take their steps, before the loss.
        """
        device = self._model.device
        pairs = [*batch.pairs, *baseline] if len(batch.signal_H) else batch.pairs
        utilities_NOK = distributed.rows(
            pairs, self._utilities, "the reward model's step", in_step=self._model.shards.cut
        )
        answers_NOK = utilities_NOK[: len(batch.pairs)]
        position_N = self._position_bias(onto(batch.positions_N, device))
        self.new_votes.meet(batch.said, answers_NOK.detach(), position_N.detach())
        shown_NOK = answers_NOK + (position_N + onto(batch.place_N, device)).reshape(-1, 1, 1)
        losses = [torch.zeros((), device=device)]
        if len(batch.rank_RG):
            losses.append(self._rankings(batch, shown_NOK, answers_NOK, denominator))
        if len(batch.chosen_P):
            losses.append(self._pairs(batch, shown_NOK, answers_NOK, denominator))
        if len(batch.thumb_Q):
            losses.append(self._thumbs(batch, answers_NOK, denominator, thumbs))
        if len(batch.signal_H) and baseline:
            baseline_OK = utilities_NOK[len(batch.pairs) :].mean(0)
            losses.append(self._signals(batch, answers_NOK, baseline_OK, denominator))
        return torch.stack(losses).sum()

    def _utilities(self, pairs: Sequence[Pair]) -> Tensor:
        return self._model.forward(self._model.packer.pack(pairs)).float()

    def _position_bias(self, positions_N: Tensor) -> Tensor:
        """What all people add to an answer for its place; 0 where that is not known, (N,)."""
        known_N = (positions_N >= 0) & (positions_N < MAX_POSITIONS)
        return torch.where(known_N, self.position_bias_S[positions_N.clamp(0, MAX_POSITIONS - 1)], 0)

    def _rankings(self, batch: VoteBatch, shown_NOK: Tensor, answers_NOK: Tensor, denominator: float) -> Tensor:
        """Heads stand one below the other: a row for each ranking and head."""
        heads, device = self._model.members, self._model.device
        rows_RG = onto(batch.rank_RG.clamp(min=0), device)
        objective_R1 = onto(batch.rank_objective_R, device).unsqueeze(1)
        tiers_BG = onto(batch.tiers_RG, device).repeat(heads, 1)
        weights_B = onto(batch.rank_weights_RK, device).T.flatten()
        utilities_BG = shown_NOK[rows_RG, objective_R1].permute(2, 0, 1).flatten(0, 1)
        loss, _ = reward_losses.plackett_luce_loss(utilities_BG, tiers_BG, weights_B, denominator=denominator)
        level_BG = answers_NOK[rows_RG, objective_R1].permute(2, 0, 1).flatten(0, 1)
        return loss + self._level(level_BG, tiers_BG >= 0, weights_B, denominator)

    def _pairs(self, batch: VoteBatch, shown_NOK: Tensor, answers_NOK: Tensor, denominator: float) -> Tensor:
        device = self._model.device
        chosen_P, rejected_P = onto(batch.chosen_P, device), onto(batch.rejected_P, device)
        objective_P, weights_PK = onto(batch.pair_objective_P, device), onto(batch.pair_weights_PK, device)
        margins_P = onto(torch.tensor(reward_losses.MARGINS), device)[onto(batch.strength_P.clamp(0, 3), device)]
        loss, _ = reward_losses.bradley_terry_loss(
            shown_NOK[chosen_P, objective_P],
            shown_NOK[rejected_P, objective_P],
            onto(batch.tied_P, device).unsqueeze(1),
            margins_P.unsqueeze(1),
            weights_PK,
            denominator=denominator,
        )
        level_P2K = torch.stack((answers_NOK[chosen_P, objective_P], answers_NOK[rejected_P, objective_P]), 1)
        level_B2 = level_P2K.permute(2, 0, 1).flatten(0, 1)
        everywhere_B2 = torch.ones_like(level_B2, dtype=torch.bool)
        return loss + self._level(level_B2, everywhere_B2, weights_PK.T.flatten(), denominator)

    def _level(self, utilities_BG: Tensor, real_BG: Tensor, weights_B: Tensor, denominator: float) -> Tensor:
        """What is added for a position is not centred."""
        if not self._centring:
            return torch.zeros((), device=self._model.device)
        loss, _ = reward_losses.centring_loss(utilities_BG, real_BG, weights_B, denominator=denominator)
        return self._centring * loss

    def _thumbs(self, batch: VoteBatch, answers_NOK: Tensor, denominator: float, thumbs: ThumbCounts | None) -> Tensor:
        device = self._model.device
        utilities_QK = answers_NOK[onto(batch.thumb_Q, device), onto(batch.thumb_objective_Q, device)]
        objective_Q = batch.thumb_objective_Q.tolist()
        if thumbs is not None and bool(utilities_QK.isfinite().all()):
            self._step_rater_bias(utilities_QK.detach().mean(1).tolist(), batch, objective_Q, thumbs)
        bias_Q = [
            self.rater_bias[objective].of([person])[0]
            for objective, person in zip(objective_Q, batch.people_Q, strict=True)
        ]
        return reward_losses.thumbs_loss(
            utilities_QK,
            onto(torch.tensor(bias_Q), device).unsqueeze(1),
            onto(batch.up_Q, device).unsqueeze(1).expand_as(utilities_QK),
            onto(batch.thumb_weights_QK, device),
            denominator=denominator,
        )[0]

    def _step_rater_bias(
        self, utilities: Sequence[float], batch: VoteBatch, objective_Q: Sequence[int], thumbs: ThumbCounts
    ) -> None:
        ups = batch.up_Q.tolist()
        for objective, bias in enumerate(self.rater_bias):
            rows = [row for row, other in enumerate(objective_Q) if other == objective]
            totals = {person: count for (other, person), count in thumbs.items() if other == objective}
            if rows:
                people = [batch.people_Q[row] for row in rows]
                bias.step([utilities[row] for row in rows], [ups[row] for row in rows], people, totals)

    def _signals(self, batch: VoteBatch, answers_NOK: Tensor, baseline_OK: Tensor, denominator: float) -> Tensor:
        device = self._model.device
        objective_H = onto(batch.signal_objective_H, device)
        reliability = {signal: self.signal_reliability.of(signal) for signal in set(batch.signals_H)}
        reliability_H = onto(torch.tensor([reliability[signal] for signal in batch.signals_H]), device)
        return reward_losses.implicit_loss(
            answers_NOK[onto(batch.signal_H, device), objective_H],
            baseline_OK[objective_H],
            reliability_H.unsqueeze(1),
            onto(batch.signal_weights_HK, device),
            denominator=denominator,
        )[0]

    def to_json(self) -> dict[str, Any]:
        """What `load_json` takes."""
        return {
            "position_bias": self.position_bias_S.tolist(),
            "rater_bias": [bias.to_json() for bias in self.rater_bias],
            "signal_reliability": self.signal_reliability.to_json(),
            "raters": self.raters.to_json(),
            "label_reliability": self.label_reliability.to_json(),
        }

    def load_json(self, values: Mapping[str, Any]) -> None:
        with torch.no_grad():
            self.position_bias_S.copy_(torch.tensor(values["position_bias"]))
        for bias, stored in zip(self.rater_bias, values["rater_bias"], strict=True):
            bias.load_json(stored)
        self.signal_reliability.load_json(values["signal_reliability"])
        if "raters" in values:  # which earlier releases did not learn
            self.raters.load_json(values["raters"])
        self.label_reliability.load_json(values.get("label_reliability", {}))  # which earlier releases did not keep


def reliabilities(loss: VoteLoss) -> dict[str, float]:
    """ρ of each signal and labeller seen so far, and of who judged beside a critic's notes and without."""
    return loss.signal_reliability.figures() | loss.label_reliability.figures() | loss.raters.assisted()
