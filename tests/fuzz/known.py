"""What the service gave out, and must not lose: ids that later requests name, and whose they are.

An id is drawn as a number and looked up when it is sent, so that the same draw can be sent again while hypothesis
makes it smaller.
"""

import random
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from rlhf_online.events import Envelope

KEPT = 64
NAMES = {"replaces": "event_id", "after": "event_id", "model": "version", "versions": "version"}
"""Fields whose values are ids that have another name where they are given out."""
WORDS: dict[str, tuple[str, ...]] = {
    "role": ("system", "user", "assistant", "tool", "developer"),
    "objective": ("helpful",),
    "reasons": ("correct", "too_long"),
    "user": ("ann", "bob"),
    "idempotency_key": ("one", "two"),
    "kind": ("policy", "reward"),
    "signal": ("regenerate", "rephrase", "stop"),
    "version": ("rlhf-online", "base", "policy-999999"),
}


@dataclass(slots=True)
class Known:
    """`answers` were said to be logged, `votes` to be taken: event ids, and how often."""

    ids: dict[str, deque[str]] = field(default_factory=dict)
    persons: dict[str, set[str]] = field(default_factory=dict)
    """Of each id: a conversation's is chosen by its client, so several may have one of that name."""
    answers: Counter[str] = field(default_factory=Counter)
    votes: Counter[str] = field(default_factory=Counter)

    def add(self, kind: str, value: str, person: str) -> None:
        """An id of a person's. What is kept of many is the newest."""
        if not value:
            return
        if value not in self.persons:
            self.ids.setdefault(kind, deque(maxlen=KEPT)).append(value)
        self.persons.setdefault(value, set()).add(person)

    def answered(
        self, completions: Sequence[str], conversation: str, person: str, *, logged: bool, comparison: str = ""
    ) -> None:
        """An answer, or those of a comparison."""
        self.add("conversation_id", conversation, person)
        self.add("comparison_id", comparison, person)
        for completion in completions:
            self.add("completion_id", completion, person)
            self.answers[completion] += logged

    def voted(self, event_id: str, person: str) -> None:
        """A vote was taken, or its edit, or its withdrawal."""
        self.add("event_id", event_id, person)
        self.votes[event_id] += 1

    def pick(self, name: str, number: int) -> str | None:
        """An id, or a word with a meaning, for a field of that name."""
        kind = NAMES.get(name, name)
        choices = (*self.ids.get(kind, ()), *WORDS.get(kind, ()))
        return choices[number % len(choices)] if choices else None

    def filled(self, name: str, value: Any, rng: random.Random) -> Any:
        """`value` with most of its texts replaced where their field has a meaning."""
        match value:
            case dict():
                return {key: self.filled(key, inner, rng) for key, inner in value.items()}
            case list():
                return [self.filled(name, inner, rng) for inner in value]
            case str() if rng.random() < 0.75 and (known := self.pick(name, rng.randrange(1 << 16))) is not None:
                return known
            case _:
                return value

    def lost(self, log: Iterable[Envelope]) -> list[str]:
        """What is wrong with the log: an answer is there exactly once, a vote at least, since it may be sent again."""
        found = Counter(envelope.event_id for envelope in log)
        logged = [each for each, times in self.answers.items() if times]
        wrong = [f"the answer {each} is {found[each]} times in the log" for each in logged if found[each] != 1]
        return wrong + [f"the vote {each} is lost" for each in self.votes if not found[each]]
