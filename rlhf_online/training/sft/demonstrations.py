"""What supervised fine-tuning learns from: a file of conversations, and the corrections that people gave.

The file is JSONL in OpenAI's format for fine-tuning, a conversation a line:

    {"messages": [{"role": "user", "content": "Is fig a fruit?"}, {"role": "assistant", "content": "Yes."}]}

Each assistant's message is a demonstration, after all that comes before it; `"weight": 0` makes it context alone. A
correction is a demonstration of its text as the answer to the corrected answer's conversation.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rlhf_online.errors import InvalidInput, UndecodableEvent
from rlhf_online.eventlog.base import Record, Source
from rlhf_online.events import Completion, Correction, Feedback, Message
from rlhf_online.feedback.answer_store import AnswerStore
from rlhf_online.feedback.held_out import is_held_out
from rlhf_online.feedback.join import Join, Joined
from rlhf_online.feedback.revisions import Revisions
from rlhf_online.wire import decode

Demonstration = tuple[Sequence[Message], str]

ROLES = ("system", "developer", "user", "assistant", "tool")
READ_RECORDS = 1000
FOR_EVER_MS = 1 << 60
SHOWN_ERRORS = 5


def read_file(path: Path) -> list[Demonstration]:
    """The demonstrations of a JSONL file; empty lines are passed over.

    Raises InvalidInput that names the first bad lines and says what is wrong with each.
    """
    found: list[Demonstration] = []
    wrong: list[str] = []
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    found += _conversation(line)
                except InvalidInput as error:
                    wrong.append(f"line {number}: {error}")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} cannot be read: {error}") from error
    if wrong:
        rest = [f"and {len(wrong) - SHOWN_ERRORS} more"] if len(wrong) > SHOWN_ERRORS else []
        raise InvalidInput("\n  ".join([f"{path} has lines that are no demonstration:", *wrong[:SHOWN_ERRORS], *rest]))
    if not found:
        raise InvalidInput(f"{path} holds no demonstration: a line is {{'messages': [{{'role': …, 'content': …}}, …]}}")
    return found


def _conversation(line: str) -> Iterator[Demonstration]:
    """Raises InvalidInput."""
    try:
        values = json.loads(line)
    except json.JSONDecodeError as error:
        raise InvalidInput(f"not JSON: {error}") from error
    messages = values.get("messages") if isinstance(values, dict) else None
    if not isinstance(messages, list) or not messages:
        raise InvalidInput("expected an object with a list 'messages'")
    before: list[Message] = []
    learned = 0
    for index, item in enumerate(messages):
        message = _message(item, f"messages[{index}]")
        if message.role == "assistant" and item.get("weight", 1) != 0:
            if not before:
                raise InvalidInput("messages[0] is the assistant's: there is nothing that it answers")
            if not message.content.strip():
                raise InvalidInput(f"messages[{index}] is an empty answer")
            learned += 1
            yield tuple(before), message.content
        before.append(message)
    if not learned:
        raise InvalidInput("no message of the assistant to learn from")


def _message(item: Any, name: str) -> Message:
    """Raises InvalidInput."""
    if not isinstance(item, dict) or item.get("role") not in ROLES:
        raise InvalidInput(f"{name}: expected an object with a 'role' of {', '.join(ROLES)}")
    content = item.get("content")
    if isinstance(content, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in content):
        content = "".join(str(part.get("text", "")) for part in content)
    if not isinstance(content, str):
        raise InvalidInput(f"{name}: 'content' must be a text")
    return Message(role=item["role"], content=content)


@dataclass(frozen=True, slots=True, kw_only=True)
class Corrections:
    """What people corrected. `held_out` conversations are for measuring only; `unusable` are empty, equal to the
    answer, or about an answer that the log does not hold; `unreadable` are damaged or undecodable records."""

    demonstrations: list[Demonstration]
    held_out: int
    unusable: int
    unreadable: int


def corrections(source: Source, *, held_out: float) -> Corrections:
    """The corrections in the log, from its beginning to its end, without those that were replaced or taken back.

    `held_out` is the share of the conversations that no update ever sees. Raises LogUnavailable, PositionLost.
    """
    with TemporaryDirectory() as folder:
        reader = _Reader(AnswerStore(Path(folder)))
        position = {}
        while True:
            records, position = source.read(position, READ_RECORDS)
            if not records:
                return reader.found(held_out)
            for record in records:
                reader.take_in(record)


class _Reader:
    """Joins corrections with the answers that they correct; what was replaced or taken back, in any order, is gone."""

    def __init__(self, answers: AnswerStore) -> None:
        self._join = Join(answers, FOR_EVER_MS)
        self._revisions = Revisions()
        self._joined: dict[str, Joined] = {}
        self._gone: set[tuple[str, str]] = set()
        self._unreadable = 0

    def take_in(self, record: Record) -> None:
        try:
            envelope = decode(record.payload) if not record.damage else None
        except UndecodableEvent:
            envelope = None
        if envelope is None:
            self._unreadable += 1
            return
        match envelope.event:
            case Feedback() as feedback:
                if feedback.replaces:
                    for gone in self._revisions.replace(envelope.event_id, feedback.person, feedback.replaces):
                        self._withdraw(gone, feedback.person)
                here = envelope.event_id in self._joined or (envelope.event_id, feedback.person) in self._gone
                if here or not isinstance(feedback.kind, Correction):
                    return
            case Completion():
                pass
            case _:
                return
        for joined in self._join.add(envelope):
            self._joined[joined.event_id] = joined
        if self._join.answers.full:
            self._join.answers.seal()

    def _withdraw(self, event_id: str, person: str) -> None:
        self._gone.add((event_id, person))
        joined = self._joined.get(event_id)
        if joined is not None and joined.feedback.person == person:
            del self._joined[event_id]
        else:
            self._join.withdraw(event_id, person)

    def found(self, share: float) -> Corrections:
        demonstrations: list[Demonstration] = []
        held_out = 0
        unusable = self._join.pending + len(self._join.dead_lettered)
        for joined in self._joined.values():
            (completion, answer), correction = next(iter(joined.answers.values())), joined.feedback.kind
            assert isinstance(correction, Correction)
            if is_held_out(completion.conversation_id, share):
                held_out += 1
            elif not completion.messages or not correction.text.strip() or correction.text == answer.text:
                unusable += 1
            else:
                demonstrations.append((completion.messages, correction.text))
        return Corrections(
            demonstrations=demonstrations, held_out=held_out, unusable=unusable, unreadable=self._unreadable
        )
