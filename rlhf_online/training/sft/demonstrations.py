"""What supervised fine-tuning learns from: a file of conversations, and the corrections that people gave.

The file is JSONL in OpenAI's format for fine-tuning, a conversation a line:

    {"messages": [{"role": "user", "content": "Is fig a fruit?"}, {"role": "assistant", "content": "Yes."}]}

Each assistant's message is a demonstration, after all that comes before it; `"weight": 0` makes it context only. It
may call `tool_calls` of the line's `tools`. A line of OpenAI's older format, `{"prompt": …, "completion": …}`, is a
question and its answer. A line that cannot be used is named with what is wrong, and the others are learned.

A correction is a demonstration of its text as the answer to the prompt that was served: its logged tokens.
"""

import codecs
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from rlhf_online.errors import InvalidInput, UndecodableEvent
from rlhf_online.eventlog.base import Record, Source
from rlhf_online.events import AnswerRef, Completion, Correction, Erasure, Feedback, Shredded
from rlhf_online.feedback.answer_store import AnswerStore
from rlhf_online.feedback.erasures import Erasures
from rlhf_online.feedback.held_out import is_held_out
from rlhf_online.feedback.join import Join, Joined
from rlhf_online.feedback.known_votes import KnownVotes
from rlhf_online.feedback.revisions import Revisions
from rlhf_online.wire import decode

if TYPE_CHECKING:
    from rlhf_online.keystore.keyring import Keyring

ROLES = ("system", "developer", "user", "assistant", "tool", "function")
READ_RECORDS = 1000
FOR_EVER_MS = 1 << 60
SHOWN_ERRORS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Demonstration:
    """An answer of the assistant, a message as OpenAI's, to a conversation in which it may call `tools`.

    `served` are the tokens that an engine was given for the messages; they are empty where none was. `place` is where
    it comes from, for people.
    """

    messages: Sequence[Mapping[str, Any]]
    answer: Mapping[str, Any]
    tools: Sequence[Mapping[str, Any]] = ()
    served: tuple[int, ...] = ()
    place: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demonstrations:
    """What a file holds; `wrong` says of each line that cannot be used what is wrong with it."""

    found: list[Demonstration]
    wrong: list[str]


def read_file(path: Path) -> Demonstrations:
    """The demonstrations of a JSONL file; empty lines are passed over.

    Raises InvalidInput for a file that cannot be read, or in which no line can be used.
    """
    found: list[Demonstration] = []
    wrong: list[str] = []
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                text = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
                if not text.strip():
                    continue
                try:
                    found += _conversation(text, f"line {number}")
                except InvalidInput as error:
                    wrong.append(f"line {number}: {error}")
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error}") from error
    if not found and wrong:
        raise InvalidInput(f"{path} holds no line that can be learned from:{listed(wrong)}")
    if not found:
        raise InvalidInput(f"{path} holds no demonstration: a line is {{'messages': [{{'role': …, 'content': …}}, …]}}")
    return Demonstrations(found=found, wrong=wrong)


def listed(wrong: Sequence[str]) -> str:
    """The first of what is wrong, a line each, and how many more there are."""
    rest = [f"and {len(wrong) - SHOWN_ERRORS} more"] if len(wrong) > SHOWN_ERRORS else []
    return "".join(f"\n  {each}" for each in [*wrong[:SHOWN_ERRORS], *rest])


def _conversation(line: bytes, place: str) -> list[Demonstration]:
    """Raises InvalidInput."""
    if line.lstrip()[:1] == b"[":
        raise InvalidInput("a JSON array: write each conversation as an object on a line of its own (JSONL)")
    try:
        values = json.loads(line.decode())
    except UnicodeDecodeError as error:
        raise InvalidInput("not UTF-8: save the file in it") from error
    except (json.JSONDecodeError, RecursionError) as error:
        raise InvalidInput(f"not JSON ({error}): a line is a whole conversation") from error
    values = values if isinstance(values, dict) else {}
    messages = _messages(values)
    tools = values.get("tools") or ()
    if not isinstance(tools, (list, tuple)) or not all(isinstance(tool, dict) for tool in tools):
        raise InvalidInput("'tools' must be a list of objects")
    answers = list(_answers(messages))
    if not answers:
        raise InvalidInput("no message of the assistant to learn from")
    return [
        Demonstration(messages=messages[:index], answer=messages[index], tools=tools, place=place) for index in answers
    ]


def _messages(values: dict[str, Any]) -> list[dict[str, Any]]:
    """The conversation of a line, checked. Raises InvalidInput."""
    messages = values.get("messages")
    if messages is None and isinstance(values.get("prompt"), str) and isinstance(values.get("completion"), str):
        # The completion of the older format begins with a space, by its guide: it went on from the prompt.
        answer = {"role": "assistant", "content": values["completion"].strip()}
        messages = [{"role": "user", "content": values["prompt"].strip()}, answer]
    if not isinstance(messages, list) or not messages:
        raise InvalidInput("expected an object with a list 'messages', or with the texts 'prompt' and 'completion'")
    for index, message in enumerate(messages):
        _check(message, f"messages[{index}]")
    return messages


def _answers(messages: Sequence[Mapping[str, Any]]) -> Iterator[int]:
    """Which messages are learned: the assistant's that answer something, and whose weight is not 0."""
    for index, message in enumerate(messages):
        if index and message["role"] == "assistant" and message.get("weight", 1) != 0:
            if not _text(message.get("content")).strip() and not message.get("tool_calls"):
                raise InvalidInput(f"messages[{index}] is an empty answer: give it a weight of 0 to learn the others")
            yield index


def _check(message: Any, name: str) -> None:
    """Raises InvalidInput."""
    if not isinstance(message, dict) or message.get("role") not in ROLES:
        raise InvalidInput(f"{name}: expected an object with a 'role' of {', '.join(ROLES)}")
    if message.get("weight", 1) not in (0, 1):
        raise InvalidInput(f"{name}: 'weight' must be 0 or 1")
    if message.get("function_call"):
        raise InvalidInput(f"{name}: 'function_call' is an older form of OpenAI's: write it as 'tool_calls'")
    content, calls = message.get("content"), message.get("tool_calls")
    parts = content if isinstance(content, list) else []
    if any(not isinstance(p, dict) or p.get("type") != "text" or not isinstance(p.get("text"), str) for p in parts):
        raise InvalidInput(f"{name}: 'content' has a part that is no text, {{'type': 'text', 'text': …}}")
    if not isinstance(content, str | list) and not (content is None and message["role"] == "assistant"):
        raise InvalidInput(f"{name}: 'content' must be a text")
    if calls is not None and not (isinstance(calls, list) and all(map(_is_call, calls))):
        raise InvalidInput(
            f"{name}: 'tool_calls' must be a list of {{'type': 'function', 'function': {{'name': …, 'arguments': …}}}} "
            "with a JSON object as the text of 'arguments'"
        )


def _is_call(call: Any) -> bool:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        return False
    arguments = function.get("arguments", "{}")
    try:
        return isinstance(json.loads(arguments) if isinstance(arguments, str) else arguments, dict)
    except json.JSONDecodeError:
        return False


def _text(content: str | list[dict[str, str]] | None) -> str:
    return "".join(part["text"] for part in content) if isinstance(content, list) else content or ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Corrections:
    """What people corrected, of one person's corrections of an answer the last. `held_out` conversations are for
    measuring only; `unusable` are empty, equal to the answer, about an answer that the log does not hold, under a key
    that was used, or in the place of somebody else's; `unreadable` are damaged or undecodable records."""

    demonstrations: list[Demonstration]
    held_out: int
    unusable: int
    unreadable: int


def corrections(source: Source, *, held_out: float, keys: "Keyring | None" = None) -> Corrections:
    """The corrections in the log, from its beginning to its end, but for those replaced, taken back or erased.

    `held_out` is the share of the conversations that no update ever sees; `keys` open what is sealed. Raises
    LogUnavailable, PositionLost.
    """
    with TemporaryDirectory() as folder:
        reader = _Reader(AnswerStore(Path(folder), keys=keys))
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
        self._keys = answers.keys
        self._erasures = Erasures()
        self._revisions = Revisions()
        self._known = KnownVotes()
        self._joined: dict[str, Joined] = {}
        self._gone: set[tuple[str, str]] = set()
        self._refused: set[tuple[str, str]] = set()
        self._unreadable = 0

    def take_in(self, record: Record) -> None:
        try:
            envelope = decode(record.payload, self._keys) if not record.damage else None
        except UndecodableEvent:
            envelope = None
        if envelope is None:
            self._unreadable += 1
            return
        match envelope.event:
            case Feedback() as feedback:
                if self._is_refused(envelope.event_id, feedback):
                    return
                if feedback.replaces:
                    for gone in self._revisions.replace(envelope.event_id, feedback.person, feedback.replaces):
                        self._withdraw(gone, feedback.person)
                here = envelope.event_id in self._joined or (envelope.event_id, feedback.person) in self._gone
                if here or not isinstance(feedback.kind, Correction):
                    return
            case Completion() | Shredded():
                pass
            case Erasure() as erasure:
                self._erasures.add(erasure)
                return
            case _:
                return
        for joined in self._join.add(envelope):
            self._joined[joined.event_id] = joined
        if self._join.answers.full:
            self._join.answers.seal()

    def _is_refused(self, event_id: str, feedback: Feedback) -> bool:
        """As the intake does (`training.intake`)."""
        known = self._known
        if known.is_another(event_id, feedback) or known.is_somebody_elses(feedback.replaces, feedback.person):
            if isinstance(feedback.kind, Correction):
                self._refused.add((event_id, feedback.kind.text))
            return True
        known.add(event_id, feedback)
        return False

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
        unusable = self._join.pending + len(self._join.dead_lettered) + len(self._refused)
        latest: dict[tuple[str, AnswerRef] | str, Joined] = {}
        for joined in self._joined.values():
            person, [ref] = joined.feedback.person, joined.answers
            latest[(person, ref) if person else joined.event_id] = joined
        for joined in latest.values():
            (completion, answer), correction = next(iter(joined.answers.values())), joined.feedback.kind
            assert isinstance(correction, Correction)
            if self._erasures.cover(completion) or self._erasures.cover_vote(joined.feedback):
                continue
            if is_held_out(completion.conversation_id, share):
                held_out += 1
            elif not completion.messages or not correction.text.strip() or correction.text == answer.text:
                unusable += 1
            else:
                demonstrations.append(_corrected(completion, correction))
        return Corrections(
            demonstrations=demonstrations, held_out=held_out, unusable=unusable, unreadable=self._unreadable
        )


def _corrected(completion: Completion, correction: Correction) -> Demonstration:
    return Demonstration(
        messages=[{"role": message.role, "content": message.content} for message in completion.messages],
        answer={"role": "assistant", "content": correction.text},
        served=completion.prompt_token_ids,
        place=f"the correction of {completion.completion_id}",
    )
