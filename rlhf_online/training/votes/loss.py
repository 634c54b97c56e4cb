"""One loss over all kinds of feedback, and what is learned of people beside the reward model.

Plackett–Luce for rankings (ties by Efron), Bradley–Terry with margins for pairs, Bernoulli with a person's intercept
for thumbs, a noisy label for implicit signals, and a penalty on the level of utilities where it is asked for; each head
weighted by its own bootstrap. Beside the model stand an intercept for each slot in which an answer was shown, one for
each person's thumbs (an objective), and the reliability of each signal.

Shapes: N answers of a batch, O objectives, K heads; R, P, Q, H as in `votes.VoteBatch`. Invariant: the losses of
micro-batches, each with the denominator of the whole, add up to the loss of the whole, and their gradients too.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rlhf_online.algorithms import reward_losses
from rlhf_online.models.reward import RewardModel
from rlhf_online.models.tokens import Pair
from rlhf_online.training.votes.intercepts import Intercepts
from rlhf_online.training.votes.reliability import Reliability
from rlhf_online.training.votes.vote import Vote, VoteBatch

MAX_SLOTS = 16
Thumbs = Mapping[tuple[int, str], int]
"""How many thumbs each (objective, person) gives in an epoch."""


def count_thumbs(votes: Sequence[Vote], objectives: Sequence[str]) -> Counter[tuple[int, str]]:
    """See Thumbs."""
    thumbs = [vote for vote in votes if vote.up is not None and not vote.signal]
    return Counter((vote.objective_of(objectives), vote.person) for vote in thumbs)


class VoteLoss:
    """`slots_S` learns by the optimiser; intercepts and reliabilities have steps of their own.

    `centring` is the weight of the penalty on the level.
    """

    def __init__(self, model: RewardModel, centring: float) -> None:
        self.slots_S = nn.Parameter(torch.zeros(MAX_SLOTS, device=model.device))
        self.intercepts = tuple(Intercepts() for _ in model.objectives)
        self.reliability = Reliability()
        self._model = model
        self._centring = centring

    def __call__(
        self, batch: VoteBatch, typical: Sequence[Pair], denominator: float, thumbs: Thumbs | None = None
    ) -> Tensor:
        """The loss of a batch ÷ `denominator`. `typical` are answers that implicit signals are compared with.

        With `thumbs` people's intercepts take their steps, before the loss.
        """
        device = self._model.device
        pairs = [*batch.pairs, *typical] if len(batch.signal_H) else batch.pairs
        utilities_NOK = self._model.forward(self._model.collate(pairs)).float()
        slots_N = batch.slots_N.to(device)
        known_N = (slots_N >= 0) & (slots_N < MAX_SLOTS)
        shift_N = torch.where(known_N, self.slots_S[slots_N.clamp(0, MAX_SLOTS - 1)], 0)
        answers_NOK = utilities_NOK[: len(batch.pairs)]
        shown_NOK = answers_NOK + shift_N.reshape(-1, 1, 1)
        losses = [torch.zeros((), device=device)]
        if len(batch.rank_RG):
            losses.append(self._rankings(batch, shown_NOK, answers_NOK, denominator))
        if len(batch.chosen_P):
            losses.append(self._pairs(batch, shown_NOK, answers_NOK, denominator))
        if len(batch.thumb_Q):
            losses.append(self._thumbs(batch, answers_NOK, denominator, thumbs))
        if len(batch.signal_H) and typical:
            typical_OK = utilities_NOK[len(batch.pairs) :].mean(0)
            losses.append(self._signals(batch, answers_NOK, typical_OK, denominator))
        return torch.stack(losses).sum()

    def _rankings(self, batch: VoteBatch, shown_NOK: Tensor, answers_NOK: Tensor, denominator: float) -> Tensor:
        """Heads stand one below the other: a row for each ranking and head."""
        heads, device = self._model.members, self._model.device
        rows_RG, objective_R1 = batch.rank_RG.clamp(min=0).to(device), batch.rank_objective_R.to(device).unsqueeze(1)
        tiers_BG = batch.tiers_RG.to(device).repeat(heads, 1)
        weights_B = batch.rank_weights_RK.to(device).T.flatten()
        utilities_BG = shown_NOK[rows_RG, objective_R1].permute(2, 0, 1).flatten(0, 1)
        loss = reward_losses.plackett_luce_loss(utilities_BG, tiers_BG, weights_B, denominator=denominator)[0]
        level_BG = answers_NOK[rows_RG, objective_R1].permute(2, 0, 1).flatten(0, 1)
        return loss + self._level(level_BG, tiers_BG >= 0, weights_B, denominator)

    def _pairs(self, batch: VoteBatch, shown_NOK: Tensor, answers_NOK: Tensor, denominator: float) -> Tensor:
        device = self._model.device
        chosen_P, rejected_P = batch.chosen_P.to(device), batch.rejected_P.to(device)
        objective_P, weights_PK = batch.pair_objective_P.to(device), batch.pair_weights_PK.to(device)
        margins_P = torch.tensor(reward_losses.MARGINS, device=device)[batch.strength_P.clamp(0, 3).to(device)]
        loss = reward_losses.bradley_terry_loss(
            shown_NOK[chosen_P, objective_P],
            shown_NOK[rejected_P, objective_P],
            batch.tied_P.to(device).unsqueeze(1),
            margins_P.unsqueeze(1),
            weights_PK,
            denominator=denominator,
        )[0]
        level_P2K = torch.stack((answers_NOK[chosen_P, objective_P], answers_NOK[rejected_P, objective_P]), 1)
        level_B2 = level_P2K.permute(2, 0, 1).flatten(0, 1)
        everywhere_B2 = torch.ones_like(level_B2, dtype=torch.bool)
        return loss + self._level(level_B2, everywhere_B2, weights_PK.T.flatten(), denominator)

    def _level(self, utilities_BG: Tensor, real_BG: Tensor, weights_B: Tensor, denominator: float) -> Tensor:
        """Where a shown slot adds to a utility, the utility alone is centred."""
        if not self._centring:
            return torch.zeros((), device=self._model.device)
        loss, _ = reward_losses.centring_loss(utilities_BG, real_BG, weights_B, denominator=denominator)
        return self._centring * loss

    def _thumbs(self, batch: VoteBatch, answers_NOK: Tensor, denominator: float, thumbs: Thumbs | None) -> Tensor:
        device = self._model.device
        utilities_QK = answers_NOK[batch.thumb_Q.to(device), batch.thumb_objective_Q.to(device)]
        objective_Q = batch.thumb_objective_Q.tolist()
        if thumbs is not None and bool(utilities_QK.isfinite().all()):
            self._step_intercepts(utilities_QK.detach().mean(1).tolist(), batch, objective_Q, thumbs)
        intercepts_Q = [
            self.intercepts[objective].of([person])[0]
            for objective, person in zip(objective_Q, batch.people_Q, strict=True)
        ]
        return reward_losses.thumbs_loss(
            utilities_QK,
            torch.tensor(intercepts_Q, device=device).unsqueeze(1),
            batch.up_Q.to(device).unsqueeze(1).expand_as(utilities_QK),
            batch.thumb_weights_QK.to(device),
            denominator=denominator,
        )[0]

    def _step_intercepts(
        self, utilities: Sequence[float], batch: VoteBatch, objective_Q: Sequence[int], thumbs: Thumbs
    ) -> None:
        ups = batch.up_Q.tolist()
        for objective, intercepts in enumerate(self.intercepts):
            rows = [row for row, other in enumerate(objective_Q) if other == objective]
            totals = {person: count for (other, person), count in thumbs.items() if other == objective}
            if rows:
                people = [batch.people_Q[row] for row in rows]
                intercepts.step([utilities[row] for row in rows], [ups[row] for row in rows], people, totals)

    def _signals(self, batch: VoteBatch, answers_NOK: Tensor, typical_OK: Tensor, denominator: float) -> Tensor:
        device = self._model.device
        objective_H = batch.signal_objective_H.to(device)
        reliability = {signal: self.reliability.of(signal) for signal in set(batch.signals_H)}
        reliability_H = torch.tensor([reliability[signal] for signal in batch.signals_H], device=device)
        return reward_losses.implicit_loss(
            answers_NOK[batch.signal_H.to(device), objective_H],
            typical_OK[objective_H],
            reliability_H.unsqueeze(1),
            batch.signal_weights_HK.to(device),
            denominator=denominator,
        )[0]

    def to_json(self) -> dict[str, Any]:
        """What `load_json` takes."""
        return {
            "slots": self.slots_S.tolist(),
            "intercepts": [intercepts.to_json() for intercepts in self.intercepts],
            "reliability": self.reliability.to_json(),
        }

    def load_json(self, values: Mapping[str, Any]) -> None:
        with torch.no_grad():
            self.slots_S.copy_(torch.tensor(values["slots"]))
        for intercepts, stored in zip(self.intercepts, values["intercepts"], strict=True):
            intercepts.load_json(stored)
        self.reliability.load_json(values["reliability"])
