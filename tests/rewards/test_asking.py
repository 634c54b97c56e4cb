"""From the log to questions: which requests may be asked about, and what becomes of their pairs."""

import json
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from rlhf_online.eventlog.local import LocalLog
from rlhf_online.eventlog.tail import LocalReader
from rlhf_online.events import (
    AI,
    Answer,
    AnswerRef,
    Completion,
    Envelope,
    Erasure,
    Event,
    Feedback,
    Message,
    Sampling,
    Thumb,
    VersionSpan,
)
from rlhf_online.feedback.questions import Question
from rlhf_online.rewards import asking
from rlhf_online.rewards.asking import Group
from rlhf_online.rewards.sources import Pair, Scored
from rlhf_online.wire import encode
from services.chat.annotation.items import AddItem


def _completion(
    name: str,
    texts: Sequence[str],
    *,
    comparison: str = "",
    prompt: tuple[int, ...] = (1,),
    versions: Sequence[str] = (),
) -> Completion:
    """`versions` wrote a token of each answer, one after another."""
    spans = tuple(VersionSpan(policy_version=version, first_token=i) for i, version in enumerate(versions))
    answers = tuple(
        Answer(index=i, text=text, token_ids=(len(text), i), logprobs=(-1.0, -1.0), spans=spans, finish_reason="stop")
        for i, text in enumerate(texts)
    )
    return Completion(
        completion_id=name, conversation_id=name, person="ann", messages=(Message(role="user", content="?"),),
        prompt_token_ids=prompt, answers=answers, sampling=Sampling(), started_ms=1, finished_ms=2,
        comparison_id=comparison,
    )  # fmt: skip


def _thumb(completion: str, source: str = "api") -> Feedback:
    return Feedback(
        conversation_id=completion,
        person="bob",
        kind=Thumb(answer=AnswerRef(completion_id=completion), up=True),
        source=source,
    )


def _unvoted(folder: Path, *events: Event, before: Sequence[str] = ()) -> list[Group]:
    with LocalLog(folder) as log:
        for number, event in enumerate(events):
            log.append(encode(Envelope(event_id=f"e{number}", event=event))).result(10)
    with LocalReader(folder) as source:
        return asking.unvoted(source, before)


def _names(groups: Sequence[Group]) -> list[list[tuple[str, int]]]:
    return [[(name.completion_id, name.index) for name, _ in group.answers] for group in groups]


def test_requests_with_several_answers_and_comparisons_may_be_asked_about(tmp_path: Path) -> None:
    groups = _unvoted(
        tmp_path,
        _completion("four", ["a", "bb", "bb", "ccc"]),
        _completion("one", ["a"]),
        _completion("same", ["a", "a", " "]),
        _completion("left", ["a"], comparison="side by side"),
        _completion("right", ["bb"], comparison="side by side"),
        _completion("imported", ["a", "bb"], prompt=()),
    )
    assert _names(groups) == [[("four", 0), ("four", 2), ("four", 3)], [("left", 0), ("right", 0)]]
    assert groups[0].pairs == [((1,), (1, 0)), ((1,), (2, 2)), ((1,), (3, 3))]


def test_what_was_judged_asked_before_or_erased_is_left_out_and_a_models_label_is_no_judgement(tmp_path: Path) -> None:
    groups = _unvoted(
        tmp_path,
        *(_completion(name, ["a", "bb"]) for name in ("judged", "asked", "labelled", "erased")),
        _thumb("judged"),
        _thumb("labelled", source=AI),
        Erasure(conversation_id="erased", person="ann", erased_ms=3),
        before=["asked"],
    )
    assert [names[0][0] for names in _names(groups)] == ["labelled"]


@pytest.mark.parametrize(
    ("versions", "audience"),
    [
        ((), ""),
        (("policy-000001",), ""),
        (("policy.brief-000001",), "brief"),
        (("policy.brief-000001", "policy.brief-000002"), "brief"),
        (("policy.brief-000001", "policy.long-000002"), ""),
        (("policy.brief-000001", "policy-000001"), ""),
        (("somebody-else's",), ""),
    ],
)
def test_whose_adapter_gave_the_answers_is_told_by_the_versions_that_wrote_them(
    tmp_path: Path, versions: Sequence[str], audience: str
) -> None:
    [group] = _unvoted(tmp_path, _completion("c", ["a", "bb"], versions=versions))
    assert group.audience == audience


def test_each_audiences_answers_are_scored_by_what_counts_for_it(tmp_path: Path) -> None:
    """Of "brief" heads disagree, of everybody's they do not."""
    names = {"mine": "policy.brief-000001", "yours": "policy-000001", "also": "policy.brief-000001"}
    groups = _unvoted(tmp_path, *(_completion(name, ["a", "bb"], versions=(by,)) for name, by in names.items()))
    asked = dict[str, int]()

    def score(audience: str, pairs: Sequence[Pair]) -> list[Scored]:
        asked[audience] = len(pairs)
        return _by_length(audience, pairs) if audience == "brief" else [Scored(0.0, 0.0, {}, (0.0, 0.0)) for _ in pairs]

    found = asking.ask(groups, score, 3, 0.0, random.Random(0))
    told: dict[str, float] = {}
    for question in found:
        names_of: Any = question.pair
        told[names_of[0].completion_id] = question.information
    assert asked == {"brief": 4, "": 2}
    assert told["yours"] == 0.0 and told["mine"] == told["also"] > 0
    assert [*told][-1] == "yours", "nothing is expected of it"


def _by_length(audience: str, pairs: Sequence[Pair]) -> list[Scored]:
    """Two heads: one likes long answers, and the other one likes short ones, or all alike beyond two tokens."""
    return [Scored(0.0, 1.0, {}, (float(answer[0]), -float(min(answer[0], 2)))) for _, answer in pairs]


def test_the_pair_on_which_heads_disagree_most_is_asked_about(tmp_path: Path) -> None:
    groups = _unvoted(tmp_path, _completion("c", ["a", "bb", "ccc"]))
    found = [asking.ask(groups, _by_length, 5, 0.0, random.Random(seed)) for seed in range(40)]
    pairs = [question.pair for [question] in found]
    long_and_short = (AnswerRef(completion_id="c", index=0), AnswerRef(completion_id="c", index=2))
    assert pairs.count(long_and_short) > 20
    line = asking.item(found[0][0])
    assert len(line["answers"]) == 2 and asking.propensity(line["item_id"]) == pytest.approx(
        found[0][0].propensity, rel=1e-3
    )
    assert asking.propensity("item-1") is None


@pytest.mark.parametrize("chance", [1.0, 0.99999, 0.25, 3.14159e-4, 2e-9])
def test_a_questions_name_is_one_that_the_queue_takes_and_tells_its_propensity(chance: float) -> None:
    pair = (AnswerRef(completion_id="c", index=0), AnswerRef(completion_id="c", index=1))
    line = asking.item(Question(pair=pair, information=0.1, propensity=chance))
    assert AddItem.model_validate(line).item_id == line["item_id"]
    assert asking.propensity(line["item_id"]) == pytest.approx(chance, rel=1e-3)


def test_answers_without_a_score_are_not_asked_about(tmp_path: Path) -> None:
    groups = _unvoted(tmp_path, _completion("c", ["a", "bb", "ccc"]), _completion("d", ["a", "bb"]))

    def some(audience: str, pairs: Sequence[Pair]) -> list[Scored]:
        scores = [(1.0, 0.0), (math.nan, 0.0), (0.0, 1.0), (), (1.0, 1.0)]
        return [Scored(0.0, 0.0, {}, heads) for heads in scores]

    [question] = asking.ask(groups, some, 5, 0.1, random.Random(0))
    assert question.pair == (AnswerRef(completion_id="c", index=0), AnswerRef(completion_id="c", index=2))


def test_what_was_asked_is_kept(tmp_path: Path) -> None:
    groups = _unvoted(tmp_path / "log", _completion("c", ["a", "bb"]), _completion("d", ["a", "bb"]))
    asked, path = asking.ask(groups, _by_length, 1, 0.1, random.Random(0)), tmp_path / "questions.jsonl"
    assert asking.asked_in(path) == set()
    asking.keep(path, asked)
    [line] = map(json.loads, path.read_text().splitlines())
    assert asking.asked_in(path) == set(line["completions"]) < {"c", "d"}
    assert line["propensity"] == asked[0].propensity and line["information"] == asked[0].information
    with path.open("a") as file:
        file.write('{"item_id": "cut sh')
    assert asking.asked_in(path) == set(line["completions"])
