"""What a row of a file says, whatever its format: a prompt, answers to it, and what somebody thought of them. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True, kw_only=True)
class Message:
    """One of a prompt, with the fields of `events.Message`. Nobody changes one, nor a Row; frozen ones take three times
    as long to make.
    """

    role: str
    content: str
    other: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """One of three: `tiers` of answers (their numbers within the row), best first, those of a tier tied; `up`, whether
    the answer of the number `answer` is good; `correction`, a text that would have been better than it.

    `person` is a name, which is hashed; `person_hash` is one that was hashed before. `at_ms` is 0 where it is not
    known. `id` tells two judgements apart that say the same.
    """

    tiers: tuple[tuple[int, ...], ...] = ()
    answer: int = 0
    up: bool | None = None
    correction: str = ""
    strength: int = 0
    unsure: bool = False
    person: str = ""
    person_hash: str = ""
    reason: str = ""
    reasons: tuple[str, ...] = ()
    objective: str = ""
    source: str = "import"
    at_ms: int = 0
    id: str = ""


@dataclass(slots=True, kw_only=True)
class Row:
    """`messages` are the prompt. A row without answers holds judgements on the exchange that another row calls `name`.

    `conversation` is the conversation's name in the file; without one, exchanges that begin with the same question are
    one conversation. `person` is the name of who asked, or `person_hash` what replaced it before. `asked` is a JSON
    object with what else shaped the prompt (`tools`); `other` is kept beside it. `notes` are words for what was odd
    about it and is imported all the same.
    """

    messages: tuple[Message, ...] = ()
    answers: tuple[str, ...] = ()
    judgements: tuple[Judgement, ...] = ()
    name: str = ""
    conversation: str = ""
    person: str = ""
    person_hash: str = ""
    id: str = ""
    at_ms: int = 0
    asked: str = ""
    other: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


BETTER_FIRST = ((0,), (1,))
"""The tiers of a pair whose first answer is the better one."""
TIED = ((0, 1),)
