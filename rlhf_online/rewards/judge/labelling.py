"""Pairs of answers in the log → labels, as ordinary votes.

A pair is what people could have compared: two answers of one request, or those of a comparison. What was erased before
the log's end is not asked about. A label's idempotency key is made of its pair and the judge, so that a run that is
repeated gives no vote twice.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rlhf_online.errors import UndecodableEvent
from rlhf_online.eventlog.base import Record, Source, has_reached
from rlhf_online.events import AI, Completion, Envelope, Erasure
from rlhf_online.feedback.erasures import Erasures
from rlhf_online.rewards.judge.settings import JudgeSettings
from rlhf_online.rewards.judge.verdicts import Ask, Doubt, Verdict, verdict
from rlhf_online.wire import decode

if TYPE_CHECKING:
    from rlhf_online.keystore.keyring import Keyring

MOST_PAIRS = 20_000
"""Kept of a log: the newest."""
READ = 1000
MOST_REFUSED = 5


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers to one prompt: (completion id, index) and text of each; `completions` says whose they are and when
    they were asked, without what was said."""

    prompt: str
    names: tuple[tuple[str, int], tuple[str, int]]
    texts: tuple[str, str]
    completions: tuple[Completion, ...]


def pairs_in(source: Source, keys: "Keyring | None" = None) -> list[Pair]:
    """Those of the log up to its end now, the oldest first. `keys` open what is sealed.

    Raises PositionLost, LogUnavailable, KeysUnavailable.
    """
    found: dict[str, Pair] = {}
    waiting: dict[str, Completion] = {}
    erasures = Erasures()
    for envelope in envelopes(source, keys):
        match envelope.event:
            case Completion() as completion:
                if (pair := _pair(completion, waiting)) is not None:
                    found[pair.names[0][0]] = pair
            case Erasure() as erasure:
                erasures.add(erasure)
            case _:
                pass
        if len(found) > MOST_PAIRS:
            del found[next(iter(found))]
        if len(waiting) > MOST_PAIRS:
            del waiting[next(iter(waiting))]
    return [pair for pair in found.values() if not any(map(erasures.cover, pair.completions))]


def envelopes(source: Source, keys: "Keyring | None") -> Iterator[Envelope]:
    """What the log holds up to its end now and can be read. Raises PositionLost, LogUnavailable, KeysUnavailable."""
    position, end = {}, source.end()
    while not has_reached(position, end):
        records, position = source.read(position, READ)
        if not records:
            return
        for record in records:
            if (envelope := _decoded(record, keys)) is not None:
                yield envelope


def _decoded(record: Record, keys: "Keyring | None") -> Envelope | None:
    """None for what nobody can read: the trainer tells of it."""
    try:
        return None if record.damage else decode(record.payload, keys)
    except UndecodableEvent:
        return None


def _pair(completion: Completion, waiting: dict[str, Completion]) -> Pair | None:
    """The first two answers of a request, or the first ones of a comparison's two requests; None for anything else."""
    others = [completion]
    if len(completion.answers) < 2:
        if not completion.comparison_id:
            return None
        before = waiting.pop(completion.comparison_id, None)
        if before is None:
            waiting[completion.comparison_id] = completion
            return None
        others = [before, completion]
    answers = [(each, answer) for each in others for answer in each.answers][:2]
    if len(answers) < 2 or any(answer.tool_calls or not answer.text.strip() for _, answer in answers):
        return None
    (one, first), (other, second) = answers
    if first.text == second.text or not completion.messages or one.messages != other.messages:
        return None
    return Pair(
        prompt=said_before(completion),
        names=((one.completion_id, first.index), (other.completion_id, second.index)),
        texts=(first.text, second.text),
        completions=tuple(replace(each, messages=(), answers=(), prompt_token_ids=(), asked="") for each in others),
    )


def said_before(completion: Completion) -> str:
    """The conversation that was answered, for a judge to read."""
    return "\n".join(f"{message.role}: {message.content}" for message in completion.messages)


def key(pair: Pair, settings: JudgeSettings) -> str:
    """Names the judge's vote on the pair."""
    about = json.dumps([settings.url, settings.model, settings.objective, pair.names])
    return f"judge-{hashlib.sha256(about.encode()).hexdigest()[:32]}"


def vote(pair: Pair, found: Verdict, settings: JudgeSettings) -> dict[str, Any]:
    """The body of POST /v1/feedback."""
    names = [{"completion_id": name, "index": index} for name, index in pair.names]
    return {
        "pairwise": {"chosen": names[found.preferred], "rejected": names[1 - found.preferred]},
        "user": f"judge {settings.model}"[:64],
        "source": AI,
        "idempotency_key": key(pair, settings),
        **({"objective": settings.objective} if settings.objective else {}),
    }


def label(
    pairs: Iterable[Pair],
    ask: Ask,
    send: Callable[[dict[str, Any]], bool],
    settings: JudgeSettings,
) -> Counter[str]:
    """Ask about each pair, and vote where there is a verdict.

    `send` says whether the vote was taken. Returns how many `labels` were given, and how many were not, by reason, or
    `refused`; a used-up budget ends it, and MOST_REFUSED in a row do.
    """
    counts: Counter[str] = Counter()
    refused = 0
    for pair in pairs:
        found = verdict(ask, pair.prompt, pair.texts, settings.principles, settings.least_confidence)
        if isinstance(found, Doubt):
            counts[found.reason] += 1
            if found.reason == "budget":
                break
            continue
        taken = send(vote(pair, found, settings))
        counts["labels" if taken else "refused"] += 1
        refused = 0 if taken else refused + 1
        if refused == MOST_REFUSED:
            break
    return counts
