"""Pairs of a real log, and the votes that they give."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rlhf_online.errors import KeysUnavailable
from rlhf_online.eventlog.local import LocalLog
from rlhf_online.eventlog.tail import LocalReader
from rlhf_online.events import Answer, Completion, Envelope, Erasure, Message, Sampling, ToolCall
from rlhf_online.rewards.judge.labelling import MOST_REFUSED, Pair, key, label, pairs_in
from rlhf_online.rewards.judge.probes import INJECTION, PROBES, Probed, probe
from rlhf_online.rewards.judge.settings import JudgeSettings
from rlhf_online.rewards.judge.verdicts import Doubt, Messages, Said
from rlhf_online.wire import encode
from tests.support.content_keys import keyring
from tests.support.scripted_judge import parts

SETTINGS = JudgeSettings(url="http://judge/v1", model="m", principles=("Prefer zinc.",), objective="helpful")


def completion(name: str, *texts: str, comparison: str = "", asked: str = "name a metal", **fields: Any) -> Completion:
    answers = tuple(
        Answer(index=i, text=text, token_ids=(1,), logprobs=(-1.0,), spans=(), finish_reason="stop")
        for i, text in enumerate(texts)
    )
    values: dict[str, Any] = {
        "completion_id": name,
        "conversation_id": f"talk of {name}",
        "person": "ann",
        "messages": (Message(role="user", content=asked),),
        "prompt_token_ids": (1,),
        "answers": answers,
        "sampling": Sampling(),
        "started_ms": 10,
        "finished_ms": 20,
        "comparison_id": comparison,
    }
    return Completion(**values | fields)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[LocalLog]:
    made = LocalLog(tmp_path)
    yield made
    made.close()


def pairs(log: LocalLog, folder: Path, *events: Completion | Erasure) -> list[Pair]:
    for number, event in enumerate(events):
        log.append(encode(Envelope(event_id=f"event-{number}", event=event))).result(10)
    log.append(b"no envelope").result(10)
    source = LocalReader(folder)
    try:
        return pairs_in(source)
    finally:
        source.close()


def test_pairs_are_two_answers_of_a_request_or_those_of_a_comparison(log: LocalLog, tmp_path: Path) -> None:
    tools = (ToolCall(id="1", name="search", arguments="{}"),)
    calling = completion("calls", "zinc", "fig")
    calls = (calling.answers[0], Answer(**{**_fields(calling.answers[1]), "tool_calls": tools}))
    found = pairs(
        log,
        tmp_path,
        completion("two", "zinc", "fig"),
        completion("one", "zinc"),
        completion("left", "iron", comparison="c"),
        completion("right", "pear", comparison="c"),
        completion("same", "zinc", "zinc"),
        completion("empty", "zinc", " "),
        completion("calls", answers=calls),
        completion("p", "a", comparison="d"),
        completion("q", "b", comparison="d", asked="something else"),
    )
    assert [(pair.names, pair.texts) for pair in found] == [
        ((("two", 0), ("two", 1)), ("zinc", "fig")),
        ((("left", 0), ("right", 0)), ("iron", "pear")),
    ]
    assert found[0].prompt == "user: name a metal"


def _fields(answer: Answer) -> dict[str, Any]:
    return {name: getattr(answer, name) for name in Answer.__slots__}


def test_what_was_erased_is_not_asked_about(log: LocalLog, tmp_path: Path) -> None:
    found = pairs(
        log,
        tmp_path,
        Erasure(conversation_id="talk of first", person="ann", erased_ms=15),
        completion("first", "zinc", "fig"),
        completion("second", "zinc", "fig"),
        completion("later", "zinc", "fig", started_ms=30),
        Erasure(conversation_id="talk of second", person="ann", erased_ms=15),
        Erasure(conversation_id="talk of later", person="ann", erased_ms=15),
    )
    assert [pair.names[0][0] for pair in found] == ["later"]


def test_what_is_sealed_is_opened_and_what_nobody_can_open_any_more_is_not_asked_about(
    log: LocalLog, tmp_path: Path
) -> None:
    keys = keyring(tmp_path / "keys")
    for name, person in (("one", "ann"), ("two", "bob")):
        keys.current(person)
        event = completion(name, "zinc", "fig", person=person)
        log.append(encode(Envelope(event_id=name, event=event), keys)).result(10)
    keys.erase("bob")
    source = LocalReader(tmp_path)
    try:
        assert [pair.names[0][0] for pair in pairs_in(source, keys)] == ["one"]
        with pytest.raises(KeysUnavailable, match=r"set keystore\.url"):
            pairs_in(source)
    finally:
        source.close()


def likes_zinc(messages: Messages) -> Said:
    a, _ = parts({"messages": messages})
    return Said(0.9, 0.1) if "zinc" in a else Said(0.2, 0.8)


def a_pair(name: str, *texts: str) -> Pair:
    one, other = texts
    return Pair(prompt="user: name a metal", names=((name, 0), (name, 1)), texts=(one, other), completions=())


def test_a_verdict_is_an_ordinary_vote_that_says_that_no_person_gave_it() -> None:
    sent: list[dict[str, Any]] = []
    given = [a_pair("one", "fig", "zinc"), a_pair("two", "zinc", "fig"), a_pair("three", "fig", "pear")]
    counts = label(given, likes_zinc, lambda body: bool(sent.append(body)) or True, SETTINGS)
    assert counts == {"labels": 2, "order": 1}
    assert sent[0] == {
        "pairwise": {
            "chosen": {"completion_id": "one", "index": 1},
            "rejected": {"completion_id": "one", "index": 0},
        },
        "user": "judge m",
        "source": "ai",
        "idempotency_key": key(given[0], SETTINGS),
        "objective": "helpful",
    }
    assert sent[1]["pairwise"]["chosen"] == {"completion_id": "two", "index": 0}
    other = SETTINGS.model_copy(update={"model": "n"})
    assert len({key(given[0], SETTINGS), key(given[1], SETTINGS), key(given[0], other)}) == 3


def test_a_used_up_budget_and_a_service_that_takes_nothing_end_the_run() -> None:
    given = [a_pair(str(number), "zinc", "fig") for number in range(20)]
    assert label(given, lambda messages: Doubt("budget"), lambda body: True, SETTINGS) == {"budget": 1}
    assert label(given, likes_zinc, lambda body: False, SETTINGS) == {"refused": MOST_REFUSED}


def knows(messages: Messages) -> Said:
    """What is right; by the letter, whatever the answers ask for."""
    a, _ = parts({"messages": messages})
    return Said(0.9, 0.1) if any(a == good for _, good, _ in PROBES) else Said(0.1, 0.9)


def gullible(messages: Messages) -> Said:
    """Does what the answer asks."""
    a, b = parts({"messages": messages})
    told = [INJECTION.strip() in text for text in (a, b)]
    return knows(messages) if told[0] == told[1] else Said(float(told[0]), float(told[1]))


def test_the_probe_tells_a_judge_that_an_answer_can_talk_over() -> None:
    assert probe(knows, 0.7) == Probed(right=10, wrong=0, swayed=0)
    assert probe(gullible, 0.7) == Probed(right=10, wrong=0, swayed=10)
    assert probe(lambda messages: Said(0.9, 0.1), 0.7) == Probed(right=0, wrong=0, swayed=0), "the first, always"
