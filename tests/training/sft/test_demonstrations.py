"""Demonstrations: files in OpenAI's format with every kind of bad line, and corrections in a real log."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from rlhf_online import events as ev
from rlhf_online.errors import InvalidInput
from rlhf_online.eventlog.local import LocalLog
from rlhf_online.eventlog.tail import LocalReader
from rlhf_online.training.sft.demonstrations import corrections, read_file
from rlhf_online.wire import encode
from tests.support.content_keys import keyring
from tests.support.logged import completion, erasure, feedback, ref, thumb

USER = {"role": "user", "content": "is fig a fruit ?"}
YES = {"role": "assistant", "content": "yes"}
TOOLS = [{"type": "function", "function": {"name": "weigh", "parameters": {"type": "object"}}}]
CALLS = [{"id": "call-1", "type": "function", "function": {"name": "weigh", "arguments": '{"metal": "zinc"}'}}]


def _written(path: Path, *lines: object, end: str = "\n") -> Path:
    path.write_bytes(end.join(line if isinstance(line, str) else json.dumps(line) for line in lines).encode())
    return path


def test_every_answer_of_the_assistant_is_learned_after_what_came_before(tmp_path: Path):
    talk = [
        {"role": "system", "content": "be brief"},
        USER,
        {"role": "assistant", "content": "well", "weight": 0},
        {"role": "user", "content": [{"type": "text", "text": "so "}, {"type": "text", "text": "?"}]},
        YES,
        {"role": "assistant", "content": "indeed", "weight": 1},
    ]
    read = read_file(_written(tmp_path / "data", {"messages": talk}, "", {"messages": [*talk[1:3], talk[4]]}))
    assert read.wrong == []
    assert [(item.messages, item.answer, item.place) for item in read.found] == [
        (talk[:4], YES, "line 1"),
        (talk[:5], talk[5], "line 1"),
        (talk[1:3], YES, "line 3"),
    ]


def test_openais_file_with_tools_is_taken(tmp_path: Path):
    """Its guide's example, with all that it may hold besides."""
    talk = [
        {"role": "assistant", "content": "hello, what can I weigh?"},
        {**USER, "name": "ann"},
        {"role": "assistant", "content": None, "tool_calls": CALLS},
        {"role": "tool", "content": "7 g", "tool_call_id": "call-1"},
        {"role": "assistant", "content": "7 grams", "refusal": None, "weight": 1.0},
    ]
    read = read_file(_written(tmp_path / "data", {"messages": talk, "tools": TOOLS, "parallel_tool_calls": False}))
    assert read.wrong == []
    assert [(item.messages, item.answer, item.tools) for item in read.found] == [
        (talk[:2], talk[2], TOOLS),
        (talk[:4], talk[4], TOOLS),
    ], "the greeting answers nothing: it is context"


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_files_of_other_editors_are_taken(tmp_path: Path, mark: str, end: str):
    line = json.dumps({"messages": [USER, YES]})
    assert len(read_file(_written(tmp_path / "data", mark + line, line, "", "  ", end=end)).found) == 2


def test_openais_older_format_is_a_question_and_its_answer(tmp_path: Path):
    read = read_file(_written(tmp_path / "data", {"prompt": "is fig a fruit ?\n", "completion": " yes"}))
    assert [(list(item.messages), item.answer) for item in read.found] == [([USER], YES)]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{'messages': 1}", "not JSON"),
        ('{"a":' * 100_000, "not JSON"),
        ([1], "a JSON array: write each conversation as an object on a line"),
        ({"messages": []}, "list 'messages'"),
        ({"prompt": [], "completion": "b"}, "list 'messages'"),
        ({"messages": [USER]}, "no message of the assistant"),
        ({"messages": [USER, {**YES, "weight": 0}]}, "no message of the assistant"),
        ({"messages": [YES]}, "no message of the assistant"),
        ({"messages": [USER, {**YES, "weight": 0.5}]}, "messages[1]: 'weight' must be 0 or 1"),
        ({"messages": [USER, {**YES, "weight": "1"}]}, "messages[1]: 'weight' must be 0 or 1"),
        ({"messages": [USER, {"role": "assistant", "content": " "}]}, "messages[1] is an empty answer"),
        ({"messages": [USER, {"role": "assistant", "content": None}]}, "messages[1] is an empty answer"),
        ({"messages": [{"role": "user", "content": None}, YES]}, "messages[0]: 'content' must be a text"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0]: 'content'"),
        ({"messages": [{"role": "bot", "content": "x"}]}, "messages[0]: expected an object with a 'role'"),
        ({"messages": ["hello"]}, "messages[0]: expected an object"),
        ({"messages": [USER, {**YES, "tool_calls": [{"function": {}}]}]}, "messages[1]: 'tool_calls' must be"),
        ({"messages": [USER, {**YES, "tool_calls": "weigh"}]}, "messages[1]: 'tool_calls' must be"),
        (
            {"messages": [USER, {**YES, "tool_calls": [{"function": {"name": "weigh", "arguments": "{"}}]}]},
            "messages[1]: 'tool_calls' must be",
        ),
        ({"messages": [USER, {**YES, "function_call": {"name": "f"}}]}, "write it as 'tool_calls'"),
        ({"messages": [USER, YES], "tools": {"weigh": 1}}, "'tools' must be a list"),
    ],
)
def test_a_line_that_cannot_be_used_is_named_and_the_others_are_learned(tmp_path: Path, line: object, said: str):
    good = {"messages": [USER, YES]}
    read = read_file(_written(tmp_path / "data.jsonl", good, line, good))
    assert [item.place for item in read.found] == ["line 1", "line 3"]
    [wrong] = read.wrong
    assert wrong.startswith("line 2: ") and said in wrong


def test_a_file_of_which_nothing_is_left_is_refused(tmp_path: Path):
    with pytest.raises(
        InvalidInput, match=r"data holds no line.*\n.*line 1: not JSON(.*\n)*.*line 5: .*\n.*and 3 more"
    ):
        read_file(_written(tmp_path / "data", *["{"] * 8))
    with pytest.raises(InvalidInput, match="no demonstration"):
        read_file(_written(tmp_path / "data", ""))
    with pytest.raises(InvalidInput, match="cannot be read"):
        read_file(tmp_path / "nothing")
    (tmp_path / "latin").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidInput, match="line 1: not UTF-8"):
        read_file(tmp_path / "latin")


def _correction(name: str, text: str, event_id: str) -> ev.Envelope:
    return feedback(ev.Correction(answer=ref(name), text=text), event_id=event_id)


def _replacing(envelope: ev.Envelope, replaces: str, person: str = "rater") -> ev.Envelope:
    assert isinstance(envelope.event, ev.Feedback)
    return replace(envelope, event=replace(envelope.event, replaces=replaces, person=person))


def test_corrections_are_found_in_the_log(tmp_path: Path):
    withdrawal = feedback(ev.Withdrawal(answer=ref("c4")), event_id="w")
    logged = [
        _correction("c1", "early", "before its answer"),
        *(completion(f"c{number}", conversation=f"{number}") for number in range(1, 9)),
        thumb("c1"),
        _correction("c2", "good", "1"),
        _correction("c2", "good", "1"),
        _replacing(_correction("c2", "not yours", "4"), "1", person="somebody else"),
        _replacing(_correction("c2", "hers", "of somebody else"), "", person="somebody else"),
        _correction("c2", "another under the same key", "1"),
        _correction("c3", "first", "2"),
        _replacing(_correction("c3", "second", "3"), "2"),
        _correction("c4", "taken back", "5"),
        _replacing(withdrawal, "5"),
        _replacing(_correction("c5", "newest", "7"), "6"),
        _correction("c5", "came late", "6"),
        *(_correction("c6", f"flood {number}", f"flood {number}") for number in range(100)),
        _correction("c7", "  ", "empty"),
        _correction("c8", "5 6", "the same"),
        _correction("lost", "x", "no answer"),
    ]
    with LocalLog(tmp_path) as log:
        for envelope in logged:
            log.append(encode(envelope)).result(30)
        log.append(b"nonsense").result(30)
    with LocalReader(tmp_path) as source:
        found = corrections(source, held_out=0.0)
        hidden = corrections(source, held_out=1.0 - 1e-12)
    texts = [item.answer["content"] for item in found.demonstrations]
    assert texts == ["early", "good", "hers", "second", "newest", "flood 99"]
    assert all(item.served == (1, 2, 3) for item in found.demonstrations), "the prompt's tokens, as they were served"
    assert found.demonstrations[0].messages == [{"role": "user", "content": "hello"}]
    assert (found.held_out, found.unusable, found.unreadable) == (0, 5, 1)
    assert (hidden.demonstrations, hidden.held_out) == ([], 8)


def test_corrections_are_found_in_a_sealed_log_without_those_that_were_erased(tmp_path: Path):
    keys = keyring(tmp_path / "keys")
    logged = [
        *(completion(name, person=name) for name in ("ann", "bob", "eve")),
        *(_correction(name, f"better than {name}'s", name) for name in ("ann", "bob", "eve")),
        erasure("", person="bob"),
    ]
    with LocalLog(tmp_path / "log") as log:
        for envelope in logged:
            log.append(encode(envelope, keys)).result(30)
    keys.erase("eve")
    with LocalReader(tmp_path / "log") as source:
        found = corrections(source, held_out=0.0, keys=keys)
    assert [item.answer["content"] for item in found.demonstrations] == ["better than ann's"]
