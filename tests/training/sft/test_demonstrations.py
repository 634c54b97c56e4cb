"""Demonstrations: files in OpenAI's format with every kind of bad line, and corrections in a real log."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from rlhf_online import events as ev
from rlhf_online.errors import InvalidInput
from rlhf_online.eventlog.local import LocalLog
from rlhf_online.eventlog.tail import LocalReader
from rlhf_online.events import Message
from rlhf_online.training.sft.demonstrations import corrections, read_file
from rlhf_online.wire import encode
from tests.support.logged import completion, feedback, ref, thumb

USER = {"role": "user", "content": "is fig a fruit ?"}


def _written(path: Path, *lines: object) -> Path:
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return path


def test_every_answer_of_the_assistant_is_learned_after_what_came_before(tmp_path: Path):
    talk = [
        {"role": "system", "content": "be brief"},
        USER,
        {"role": "assistant", "content": "well", "weight": 0},
        {"role": "user", "content": [{"type": "text", "text": "so "}, {"type": "text", "text": "?"}]},
        {"role": "assistant", "content": "yes"},
        {"role": "assistant", "content": "indeed", "weight": 1},
    ]
    found = read_file(_written(tmp_path / "data", {"messages": talk}, "", {"messages": [*talk[1:3], talk[4]]}))
    before = tuple(
        Message(role=role, content=content)
        for role, content in (
            ("system", "be brief"), ("user", "is fig a fruit ?"), ("assistant", "well"), ("user", "so ?"),
        )
    )  # fmt: skip
    assert found == [
        (before, "yes"),
        ((*before, Message(role="assistant", content="yes")), "indeed"),
        (before[1:3], "yes"),
    ]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{'messages': 1}", "not JSON"),
        ([1], "list 'messages'"),
        ({"messages": []}, "list 'messages'"),
        ({"prompt": "a", "completion": "b"}, "list 'messages'"),
        ({"messages": [USER]}, "no message of the assistant"),
        ({"messages": [USER, {"role": "assistant", "content": "a", "weight": 0}]}, "no message of the assistant"),
        ({"messages": [{"role": "assistant", "content": "hi"}]}, "nothing that it answers"),
        ({"messages": [USER, {"role": "assistant", "content": " "}]}, "messages[1] is an empty answer"),
        ({"messages": [USER, {"role": "assistant", "content": None}]}, "messages[1]: 'content' must be a text"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0]: 'content'"),
        ({"messages": [{"role": "bot", "content": "x"}]}, "messages[0]: expected an object with a 'role'"),
        ({"messages": ["hello"]}, "messages[0]: expected an object"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: object, said: str):
    good = {"messages": [USER, {"role": "assistant", "content": "yes"}]}
    with pytest.raises(InvalidInput) as raised:
        read_file(_written(tmp_path / "data.jsonl", good, line))
    assert f"line 2: {said}" in str(raised.value) or ("line 2: " in str(raised.value) and said in str(raised.value))
    assert "data.jsonl" in str(raised.value)


def test_many_bad_lines_are_counted_and_no_file_or_line_is_an_error(tmp_path: Path):
    with pytest.raises(InvalidInput, match=r"line 5: not JSON.*\n.*and 3 more"):
        read_file(_written(tmp_path / "data", *["{"] * 8))
    with pytest.raises(InvalidInput, match="no demonstration"):
        read_file(_written(tmp_path / "data", ""))
    with pytest.raises(InvalidInput, match="cannot be read"):
        read_file(tmp_path / "nothing")
    (tmp_path / "latin").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidInput, match="cannot be read"):
        read_file(tmp_path / "latin")


def _correction(name: str, text: str, event_id: str) -> ev.Envelope:
    return feedback(ev.Correction(answer=ref(name), text=text), event_id=event_id)


def _replacing(envelope: ev.Envelope, replaces: str, person: str = "rater") -> ev.Envelope:
    assert isinstance(envelope.event, ev.Feedback)
    return replace(envelope, event=replace(envelope.event, replaces=replaces, person=person))


def test_corrections_are_found_in_the_log(tmp_path: Path):
    withdrawal = feedback(ev.Withdrawal(answer=ref("c1")), event_id="w")
    logged = [
        _correction("c1", "early", "before its answer"),
        completion("c1", conversation="a"),
        thumb("c1"),
        _correction("c1", "good", "1"),
        _correction("c1", "good", "1"),
        _correction("c1", "first", "2"),
        _replacing(_correction("c1", "second", "3"), "2"),
        _replacing(_correction("c1", "not yours", "4"), "1", person="somebody else"),
        _correction("c1", "taken back", "5"),
        _replacing(withdrawal, "5"),
        _replacing(_correction("c1", "newest", "7"), "6"),
        _correction("c1", "came late", "6"),
        _correction("c1", "  ", "empty"),
        _correction("c1", "5 6", "the same"),
        _correction("lost", "x", "no answer"),
    ]
    with LocalLog(tmp_path) as log:
        for envelope in logged:
            log.append(encode(envelope)).result(30)
        log.append(b"nonsense").result(30)
    with LocalReader(tmp_path) as source:
        found = corrections(source, held_out=0.0)
        hidden = corrections(source, held_out=1.0 - 1e-12)
    hello = (Message(role="user", content="hello"),)
    assert found.demonstrations == [(hello, text) for text in ("early", "good", "second", "not yours", "newest")]
    assert (found.held_out, found.unusable, found.unreadable) == (0, 3, 1)
    assert (hidden.demonstrations, hidden.held_out) == ([], 7)
