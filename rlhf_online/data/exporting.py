"""Votes of a log → rows of a file, in the shapes that others read, and that `data import` reads back.

trl-preference       {"prompt": [message, …], "chosen": [message], "rejected": [message], …circumstances}
trl-unpaired         {"prompt": [message, …], "completion": [message], "label": true, …circumstances}
openai-preference    {"input": {"messages": […], "tools": […]}, "preferred_output": […], "non_preferred_output": […]}
votes                {"prompt": [message, …], "answers": ["…", …], "tiers": [[0], [1, 2]], …circumstances}: every kind

The circumstances (`fields.CIRCUMSTANCES`) are who judged (as a hash), when, why, by what, and which versions or models
answered; OpenAI's rows have none, since its validator takes no other fields. Nothing is written that would teach what
nobody said: ties and doubts are pairs in `votes` alone, and what a format cannot say is counted.
"""

import gzip
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from itertools import combinations
from pathlib import Path
from typing import Any

import orjson

from rlhf_online.data.formats import FORMATS
from rlhf_online.data.votes import LoggedVote
from rlhf_online.durable import fsync_file, fsync_folder, make_folder
from rlhf_online.errors import InvalidInput, RowRefused
from rlhf_online.events import AnswerRef, Completion, Correction, Implicit, Message, Pairwise, Ranking, Thumb

ROWS_AT_ONCE = 1000
Values = dict[str, Any]


def export(votes: Iterable[LoggedVote], name: str, out: Path) -> tuple[int, Counter[str]]:
    """Write the rows to the new file `out`; how many they are, and how many votes were left out, by reason.

    Raises InvalidInput for a format that is none, a file that is there, and Parquet without pyarrow.
    """
    shape = shape_named(name)
    if out.exists():
        raise InvalidInput(f"{out} exists: name a new file")
    left_out: Counter[str] = Counter()
    count = 0
    make_folder(out.parent)
    aside = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        with _writer(aside, out.name, name) as write:
            for vote in votes:
                try:
                    _check(vote)
                    for row in shape(vote):
                        write(row)
                        count += 1
                except RowRefused as error:
                    left_out[error.reason] += 1
        fsync_file(aside)
        aside.rename(out)
        fsync_folder(out.parent)
    finally:
        aside.unlink(missing_ok=True)
    return count, left_out


def shape_named(name: str) -> Callable[[LoggedVote], Iterator[Values]]:
    """A vote's rows. Raises InvalidInput for a format that is not written."""
    match name:
        case "trl-preference":
            return _trl_preference
        case "trl-unpaired":
            return _trl_unpaired
        case "openai-preference":
            return _openai
        case "votes":
            return _votes
        case _:
            raise InvalidInput(f"no file is written as {name!r}: {', '.join(EXPORTED)}")


def _check(vote: LoggedVote) -> None:
    """Raises RowRefused for answers that are more than a text: without their calls they would be other answers."""
    if any(answer.tool_calls for _, answer in vote.joined.answers.values()):
        raise RowRefused("tool_calls", "an answer called tools")


EXPORTED = ("trl-preference", "trl-unpaired", "openai-preference", "votes")


# Rows


def _trl_preference(vote: LoggedVote) -> Iterator[Values]:
    exchange, whole = _exchange(vote), isinstance(vote.joined.feedback.kind, Pairwise)
    for better, worse, versions in _pairs(vote):
        yield {
            "prompt": _messages(exchange),
            "chosen": [_said(better)],
            "rejected": [_said(worse)],
            **_tools(exchange),
            **_circumstances(vote, versions, whole=whole),
        }


def _trl_unpaired(vote: LoggedVote) -> Iterator[Values]:
    kind = vote.joined.feedback.kind
    if not isinstance(kind, Thumb):
        raise RowRefused(vote.joined.feedback.kind_name, "not a thumb")
    exchange, answer = vote.joined.answers[kind.answer]
    yield {
        "prompt": _messages(exchange),
        "completion": [_said(answer.text)],
        "label": kind.up,
        **_tools(exchange),
        **_circumstances(vote, _versions(vote, [kind.answer])),
    }


def _openai(vote: LoggedVote) -> Iterator[Values]:
    exchange = _exchange(vote)
    for better, worse, _ in _pairs(vote):
        yield {
            "input": {"messages": _messages(exchange), **_tools(exchange)},
            "preferred_output": [_said(better)],
            "non_preferred_output": [_said(worse)],
        }


def _votes(vote: LoggedVote) -> Iterator[Values]:
    feedback, exchange = vote.joined.feedback, _exchange(vote)
    refs = list(dict.fromkeys(feedback.answers()))
    verdict: Values
    match feedback.kind:
        case Thumb(up=up):
            verdict = {"up": up}
        case Correction(text=text):
            verdict = {"correction": text}
        case Pairwise(tie=tie, unsure=unsure):
            verdict = {"tiers": [[0, 1]] if tie or unsure else [[0], [1]]} | ({"unsure": True} if unsure else {})
        case Ranking(tiers=tiers):
            verdict = {"tiers": [[refs.index(ref) for ref in tier] for tier in tiers]}
        case kind:
            raise RowRefused(feedback.kind_name, f"{type(kind).__name__} is no judgement")
    yield {
        "prompt": _messages(exchange),
        "answers": [vote.joined.answers[ref][1].text for ref in refs],
        **verdict,
        **_tools(exchange),
        **_circumstances(vote, _versions(vote, refs)),
    }


# What rows are made of


def _pairs(vote: LoggedVote) -> Iterator[tuple[str, str, list[str]]]:
    """(better answer, worse answer, who wrote both) of each two that the vote orders. Raises RowRefused."""
    feedback = vote.joined.feedback
    match feedback.kind:
        case Correction(answer=ref, text=text):
            yield text, vote.joined.answers[ref][1].text, ["", *_versions(vote, [ref])]
            return
        case Pairwise() | Ranking():
            ranks = feedback.kind.ranks()
        case Thumb() | Implicit() | _:
            raise RowRefused(feedback.kind_name, "not a comparison")
    ordered = [(one, other) for one, other in combinations(ranks, 2) if ranks[one] != ranks[other]]
    if not ordered:
        raise RowRefused("tie", "no answer is better than another")
    for one, other in ordered:
        better, worse = (one, other) if ranks[one] < ranks[other] else (other, one)
        texts = [vote.joined.answers[ref][1].text for ref in (better, worse)]
        yield texts[0], texts[1], _versions(vote, [better, worse])


def _exchange(vote: LoggedVote) -> Completion:
    """The (first) exchange that the vote judges."""
    return next(iter(vote.joined.answers.values()))[0]


def _messages(exchange: Completion) -> list[Values]:
    if not exchange.messages:
        raise RowRefused("no_prompt", "the exchange was logged without its messages")
    return [_message(message) for message in exchange.messages]


def _message(message: Message) -> Values:
    other = json.loads(message.other) if message.other else {}
    return {"role": message.role, "content": message.content} | other


def _said(text: str) -> Values:
    return {"role": "assistant", "content": text}


def _tools(exchange: Completion) -> Values:
    tools = json.loads(exchange.asked).get("tools") if exchange.asked else None
    return {"tools": tools} if tools else {}


def _versions(vote: LoggedVote, refs: list[AnswerRef]) -> list[str]:
    """Which version wrote each answer, or which model by the file's word; "" where nobody knows."""
    logged = [vote.joined.answers[ref][1].sole_version for ref in refs]
    if any(logged) or vote.imported is None or not vote.imported.other:
        return logged
    other = json.loads(vote.imported.other)
    models = other.get("versions") or other.get("models") or []
    return [str(models[ref.index] or "") if ref.index < len(models) else "" for ref in refs]


def _name(vote: LoggedVote, *, whole: bool) -> str:
    """What an import of the row where it comes from knows the vote by, "" where its content says it; `whole` unless the
    row is one of the pairs that the vote orders."""
    if vote.imported is None:
        return vote.joined.event_id
    name, form = vote.imported.id, FORMATS.get(vote.imported.format)
    if form is None or form.names_exchanges:
        return vote.joined.event_id
    return name if whole or (name and form.takes_circumstances) else vote.joined.event_id


def _circumstances(vote: LoggedVote, versions: list[str], *, whole: bool = True) -> Values:
    """Those that are known."""
    feedback, imported = vote.joined.feedback, vote.imported
    strength = feedback.kind.strength if isinstance(feedback.kind, Pairwise) else 0
    found = {
        "id": _name(vote, whole=whole),
        "conversation_id": _exchange(vote).conversation_id,
        "asked_by_hash": _exchange(vote).person,
        "person_hash": feedback.person,
        "created_ms": (imported.at_ms if imported else 0) or feedback.created_ms,
        "objective": feedback.objective,
        "reason": feedback.reason,
        "reasons": list(feedback.reasons),
        "strength": strength,
        "source": feedback.source,
        "versions": versions if any(versions) else [],
    }
    return {name: value for name, value in found.items() if value}


# Files


@contextmanager
def _writer(path: Path, name: str, form: str) -> Iterator[Callable[[Values], None]]:
    """By the ending of the file's name: Parquet, or lines of JSON, compressed where it ends with .gz."""
    if name.endswith(".parquet"):
        with _parquet(path, form) as take:
            yield take
    elif name.endswith((".jsonl", ".jsonl.gz")):
        with gzip.open(path, "wb") if name.endswith(".gz") else path.open("wb") as file:

            def write(row: Values) -> None:
                file.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))

            yield write
    else:
        raise InvalidInput(f"{name}: expected a name that ends with .jsonl, .jsonl.gz or .parquet")


@contextmanager
def _parquet(path: Path, form: str) -> Iterator[Callable[[Values], None]]:
    """Columns are those of the format, the same in every file; messages have role and content."""
    try:
        arrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError as error:
        raise InvalidInput(
            "Parquet needs pyarrow, which is not installed: install rlhf-online[parquet], or name a .jsonl"
        ) from error
    messages = arrow.list_(arrow.struct([("role", arrow.string()), ("content", arrow.string())]))
    strings = arrow.list_(arrow.string())
    own: dict[str, Any] = {
        "trl-preference": {"prompt": messages, "chosen": messages, "rejected": messages},
        "trl-unpaired": {"prompt": messages, "completion": messages, "label": arrow.bool_()},
        "votes": {
            "prompt": messages, "answers": strings, "tiers": arrow.list_(arrow.list_(arrow.int64())),
            "up": arrow.bool_(), "correction": arrow.string(), "unsure": arrow.bool_(),
        },
    }  # fmt: skip
    if form not in own:
        raise InvalidInput(f"{form} is JSONL, and no Parquet: name a .jsonl")
    texts = dict.fromkeys(
        ("id", "conversation_id", "asked_by_hash", "person_hash", "objective", "reason", "source"), arrow.string()
    )
    numbers = {"created_ms": arrow.int64(), "strength": arrow.int64()}
    schema = arrow.schema({**own[form], **texts, **numbers, "reasons": strings, "versions": strings})
    waiting: list[Values] = []

    def take(row: Values) -> None:
        if "tools" in row or any(message.keys() - {"role", "content"} for message in row["prompt"]):
            raise RowRefused("tools", "tools do not fit into columns")
        waiting.append(row)
        if len(waiting) == ROWS_AT_ONCE:
            flush()

    def flush() -> None:
        file.write_table(arrow.Table.from_pylist(waiting, schema=schema))
        waiting.clear()

    with parquet.ParquetWriter(path, schema) as file:
        yield take
        flush()
