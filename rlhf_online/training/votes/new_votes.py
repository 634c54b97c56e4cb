"""People's new votes, as the pass that learns from them first meets them: what each says of who gave it (`raters`), and
how it was foretold (`foretelling`). Both by the model and what was known of people before the vote moved either.

Shapes: N answers of a batch, O objectives, K heads.
"""

from collections.abc import Iterable, Sequence

from torch import Tensor

from rlhf_online.feedback.votes import Comparison, Vote
from rlhf_online.training.votes.batch import Placed
from rlhf_online.training.votes.foretelling import Giver, foretell
from rlhf_online.training.votes.rater_bias import RaterBias
from rlhf_online.training.votes.raters import Raters
from rlhf_online.watch.drift import Surprise


class NewVotes:
    """`raters` learn from them; `rater_bias`, one an objective, is only asked."""

    def __init__(self, objectives: Sequence[str], raters: Raters, rater_bias: Sequence[RaterBias]) -> None:
        self.foretold: dict[str, Surprise] = {}
        """How each one that was met was foretold, by its event id."""
        self._objectives = objectives
        self._raters = raters
        self._rater_bias = rater_bias
        self._awaited: set[str] = set()
        self._met: list[tuple[list[tuple[Placed, Giver]], Tensor, Tensor]] = []

    def expect(self, event_ids: Iterable[str]) -> None:
        """Each is looked at when it is first met, and never again."""
        self._awaited, self.foretold = set(event_ids), {}
        self._raters.make_room()

    def meet(self, said: Sequence[Placed], answers_NOK: Tensor, position_N: Tensor) -> None:
        """Votes of a batch, the utilities of its answers, and what all people add to each for its place. Those that
        are awaited are to be looked at by what the heads think on average, and by what is known now of who gave them.
        """
        placed = [(vote, at) for vote, at in said if vote.event_id in self._awaited and not vote.by_ai]
        if placed:
            met = [((vote, at), self._giver(vote)) for vote, at in placed]
            self._met.append((met, answers_NOK.mean(2), position_N))

    def _giver(self, vote: Vote) -> Giver:
        if isinstance(vote, Comparison):
            return self._raters.of(vote)
        return 1.0, self._rater_bias[vote.objective_index(self._objectives)].of([vote.person])[0]

    def observe(self) -> None:
        """Look at those that were met since: at the end of a step, as it waits for the GPU."""
        for met, utilities_NO, position_N in self._met:
            utilities_NO, position_N = utilities_NO.cpu(), position_N.cpu()
            for (vote, at), giver in met:
                objective: int = vote.objective_index(self._objectives)
                rows = slice(at, at + len(vote.candidates))
                utilities, position_bias = utilities_NO[rows, objective].tolist(), position_N[rows].tolist()
                if surprise := foretell(vote, utilities, position_bias, giver, self._objectives[objective]):
                    self.foretold[vote.event_id] = surprise
                if isinstance(vote, Comparison):
                    self._raters.observe(vote, utilities, position_bias)
                self._awaited.discard(vote.event_id)
        self._met = []

    def unmeet(self) -> None:
        """Of a step that begins anew."""
        self._met = []
