"""Comparisons that people were shown: where each answer stood, and whether a vote on them could know who wrote what.

A vote is blind until its person has compared the answers once: from then on the versions' names are told to whoever
asks. A vote after that, and one on answers of which one names the model or a version in its text, is marked as one that
could know. What was shown in which order is known here, and not by the client's word.

The newest `capacity` comparisons are known; they stand in the log with their answers, and are read again at a start.
"""

import re
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from rlhf_online.events import AnswerRef, Completion, Feedback, Pairwise, Ranking, Withdrawal

CAPACITY = 10_000
VERSION = r"(?:policy|reward)-\d"
SHORTEST_NAME = 4
"""Letters. A shorter family of models ("gpt") is too often part of a word: its whole name then must be there."""


@dataclass(frozen=True, slots=True)
class ShownAnswer:
    """`versions` wrote it, in their order; none where they could not be told."""

    ref: AnswerRef
    versions: tuple[str, ...]


@dataclass(slots=True)
class ShownComparison:
    """`tells`: an answer names who wrote it. `opened`: its person has compared the answers, and may see the names."""

    comparison_id: str
    conversation_id: str
    person: str
    slots: dict[int, ShownAnswer] = field(default_factory=dict)
    tells: bool = False
    opened: bool = False

    def answers(self) -> tuple[ShownAnswer, ...]:
        """As they were shown, the first one first."""
        return tuple(self.slots[slot] for slot in sorted(self.slots))

    def refs(self) -> tuple[AnswerRef, ...]:
        return tuple(answer.ref for answer in self.answers())


class KnownComparisons:
    """`names` are the model's: its folder's, "SmolLM2-135M-Instruct", and the one that requests use."""

    def __init__(self, names: Iterable[str] = (), capacity: int = CAPACITY) -> None:
        self._naming = re.compile("|".join((VERSION, *_said_names(names))), re.IGNORECASE)
        self._capacity = capacity
        self._comparisons: OrderedDict[str, ShownComparison] = OrderedDict()
        self._of_answer: dict[str, str] = {}
        """Completion id → comparison id."""

    def add(self, completion: Completion) -> None:
        """Take in an exchange; one that is no part of a comparison changes nothing."""
        if not completion.comparison_id:
            return
        comparison = self._comparisons.setdefault(
            completion.comparison_id,
            ShownComparison(completion.comparison_id, completion.conversation_id, completion.person),
        )
        for answer in completion.answers:
            versions = tuple(dict.fromkeys(span.policy_version for span in answer.spans))
            ref = AnswerRef(completion_id=completion.completion_id, index=answer.index)
            comparison.slots[completion.slot] = ShownAnswer(ref, versions)
            comparison.tells |= self.names_itself(f"{answer.reasoning} {answer.text}")
        self._of_answer[completion.completion_id] = completion.comparison_id
        if len(self._comparisons) > self._capacity:
            _, oldest = self._comparisons.popitem(last=False)
            for ref in oldest.refs():
                self._of_answer.pop(ref.completion_id, None)

    def find(self, comparison_id: str) -> ShownComparison | None:
        """Whoever was shown it."""
        return self._comparisons.get(comparison_id)

    def get(self, comparison_id: str, person: str) -> ShownComparison | None:
        """That person's comparison of this id, if it is known."""
        found = self._comparisons.get(comparison_id)
        return found if found is not None and found.person == person else None

    def marked(self, vote: Feedback) -> Feedback:
        """The vote, and what is known of the comparison that it judges, if it judges one of its own person's."""
        comparison = self._judged(vote)
        if comparison is None:
            return vote
        return replace(
            vote,
            comparison_id=comparison.comparison_id,
            shown=comparison.refs(),
            could_know=comparison.tells or comparison.opened,
        )

    def voted(self, vote: Feedback) -> None:
        """The vote is on disk: from now on its person may know the names, if it compares."""
        comparison = self._judged(vote)
        if comparison is not None and isinstance(vote.kind, Pairwise | Ranking):
            comparison.opened = True

    def _judged(self, vote: Feedback) -> ShownComparison | None:
        refs = vote.answers()
        if not refs or isinstance(vote.kind, Withdrawal):
            return None
        comparison = self.get(self._of_answer.get(refs[0].completion_id, ""), vote.person)
        return comparison if comparison is not None and set(refs) <= set(comparison.refs()) else None

    def names_itself(self, text: str) -> bool:
        """Whether the text tells who wrote it."""
        return any(not text[: found.start()][-1:].isalnum() for found in self._naming.finditer(text))


def _said_names(names: Iterable[str]) -> list[str]:
    """Patterns of the names by which a model would call itself: its family ("SmolLM") where that is a name.

    One that is made of letters alone ("base", "model") is a word like any other, and tells nothing.
    """
    said = []
    for name in names:
        family = (re.match(r"[^\W\d_]*", name) or [""])[0]
        if name and family != name:
            said.append(re.escape(family if len(family) >= SHORTEST_NAME and family != "rlhf" else name))
    return said
