"""Answers in the log → what people are asked next, as items of the annotators' queue.

    log ── requests with several answers, unvoted ──▶ scores by each head ──▶ `feedback.questions` ──▶ items

A request, or the requests of one comparison, is asked about once, by two of its answers, and not at all once a person
has judged one of them, or whoever asked has erased it. Answers that an audience's adapter gave are scored by what
counts for that audience: heads may agree about them by everybody's weights, and not by its own. An item's name holds
its propensity, so that each vote's event in the log has it (`annotation_item`).

What was asked is kept in a file of JSON lines beside the log, so that nothing is asked twice:

    {"item_id": "question-0.012-…", "completions": ["c1", "c2"], "information": 0.31, "propensity": 0.012}
"""

import hashlib
import json
import math
import random
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf_online.eventlog.base import Source
from rlhf_online.events import AnswerRef, Completion, Erasure, Feedback
from rlhf_online.feedback import questions
from rlhf_online.feedback.erasures import Erasures
from rlhf_online.feedback.questions import Candidate, Question
from rlhf_online.rewards.judge.labelling import envelopes
from rlhf_online.rewards.sources import Pair, Scored
from rlhf_online.versions.manifest import NAME, audience_of

if TYPE_CHECKING:
    from rlhf_online.keystore.keyring import Keyring

ASKED = "questions.jsonl"
MOST_GROUPS = 2000
"""Requests that are scored: the newest."""
PREFIX = "question-"


@dataclass(frozen=True, slots=True)
class Group:
    """Answers to one prompt, each with its name. `audience`: whose adapter gave all of them, "" for nobody's in
    particular."""

    prompt: tuple[int, ...]
    answers: tuple[tuple[AnswerRef, tuple[int, ...]], ...]
    audience: str = ""

    @property
    def pairs(self) -> list[Pair]:
        return [(self.prompt, tokens) for _, tokens in self.answers]


def unvoted(source: Source, asked_before: Collection[str], keys: "Keyring | None" = None) -> list[Group]:
    """The newest MOST_GROUPS of the log up to its end now, the oldest first, without completions that were asked about
    before. `keys` open what is sealed.

    Raises PositionLost, LogUnavailable, KeysUnavailable.
    """
    found: dict[str, list[Completion]] = defaultdict(list)
    voted = set(asked_before)
    erasures = Erasures()
    for envelope in envelopes(source, keys):
        match envelope.event:
            case Completion() as completion:
                found[completion.comparison_id or completion.completion_id].append(completion)
            case Feedback() as vote if not vote.by_ai:
                voted.update(ref.completion_id for ref in vote.answers())
            case Erasure() as erasure:
                erasures.add(erasure)
            case _:
                pass
    groups = [
        group
        for asked in found.values()
        if not any(each.completion_id in voted or erasures.cover(each) for each in asked)
        and (group := _group(asked)) is not None
    ]
    return groups[-MOST_GROUPS:]


def _group(asked: Sequence[Completion]) -> Group | None:
    """None where there are no two different answers that can be scored and shown."""
    prompt = asked[0].prompt_token_ids
    if not prompt or any(each.prompt_token_ids != prompt for each in asked):
        return None
    different = {
        answer.text: (AnswerRef(completion_id=each.completion_id, index=answer.index), answer.token_ids)
        for each in asked
        for answer in each.answers
        if answer.token_ids and answer.text.strip() and not answer.tool_calls
    }
    return Group(prompt, tuple(different.values()), _audience(asked)) if len(different) > 1 else None


def _audience(asked: Sequence[Completion]) -> str:
    versions = {span.policy_version for each in asked for answer in each.answers for span in answer.spans}
    audiences = {audience_of(match[1]) if (match := NAME.fullmatch(version)) else "" for version in versions}
    return audiences.pop() if len(audiences) == 1 else ""


def ask(
    groups: Sequence[Group],
    score: Callable[[str, Sequence[Pair]], Sequence[Scored]],
    count: int,
    explore: float,
    rng: random.Random,
) -> list[Question]:
    """Of each question's `pair` the two answers' names. `score` gives scores by what counts for that audience, "" for
    everybody. A difference of one standard deviation of scores is taken as a log-odds of 1. Answers that have no score
    are not asked about. Raises what `score` raises."""
    pairs: dict[str, list[Pair]] = defaultdict(list)
    for group in groups:
        pairs[group.audience] += group.pairs
    scored = {audience: iter(score(audience, of)) for audience, of in pairs.items()}
    candidates: list[Candidate] = []
    for number, group in enumerate(groups):
        heads = [(name, next(scored[group.audience]).by_head) for name, _ in group.answers]
        known = [(name, each) for name, each in heads if each and all(map(math.isfinite, each))]
        candidates += [
            Candidate(pair=(one, other), group=number, probabilities=questions.probabilities(first, second))
            for (one, first), (other, second) in combinations(known, 2)
        ]
    return questions.choose(candidates, count, explore, rng)


def item(question: Question) -> dict[str, Any]:
    """The line of POST /v1/annotation/items."""
    names: Any = question.pair
    answers = [{"completion_id": name.completion_id, "index": name.index} for name in names]
    digest = hashlib.sha256(json.dumps(answers).encode()).hexdigest()[:16]
    return {"item_id": f"{PREFIX}{question.propensity:.4g}-{digest}", "answers": answers}


def asked_in(path: Path) -> set[str]:
    """The completions that were asked about, by the file of what was asked. A last line that is cut short was not."""
    found: set[str] = set()
    if path.is_file():
        for line in path.read_text().splitlines():
            with suppress(ValueError):
                found.update(json.loads(line)["completions"])
    return found


def keep(path: Path, asked: Sequence[Question]) -> None:
    """Add what was asked to the file."""
    with path.open("a", encoding="utf-8") as file:
        for question in asked:
            line = item(question)
            values = {
                "item_id": line["item_id"],
                "completions": sorted({answer["completion_id"] for answer in line["answers"]}),
                "information": question.information,
                "propensity": question.propensity,
            }
            file.write(json.dumps(values) + "\n")


def propensity(item_id: str) -> float | None:
    """With which probability the item was drawn; None for one that was not."""
    if not item_id.startswith(PREFIX):
        return None
    return float(item_id.removeprefix(PREFIX).rpartition("-")[0])
