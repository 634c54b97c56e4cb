"""Features of answers, by hand."""

import time
from typing import Any

import pytest
from pydantic import ValidationError

from rlhf_online.rewards.rules.propositions import Exchange, Proposition, called, copied_share

LIST = "Here:\n- zinc\n- iron"


def feature(proposition: dict[str, Any], answer: str, prompt: str = "", *, finished: bool = True) -> float:
    return Proposition.model_validate(proposition).feature(Exchange(prompt, answer, finished))


@pytest.mark.parametrize(
    ("proposition", "holds", "fails"),
    [
        ({"regex": r"(?i)\bzinc\b"}, "Zinc!", "zincite"),
        ({"words": ["of course", "sure"]}, "Of  course.", "unsure"),
        ({"format": "json"}, '{"a": [1]}', '{"a": [1]'),
        ({"format": "json"}, "```json\n[1]\n```", '"only a text"'),
        ({"format": "json"}, "[]", "[NaN]"),
        ({"format": "one_line"}, "zinc\n", "zinc\niron"),
        ({"format": "bullets"}, LIST, "zinc - iron"),
        ({"format": "numbered"}, "1. zinc\n2. iron", "1.5 tons"),
        ({"format": "heading"}, "# Metals", "#metals"),
        ({"format": "table"}, "| a | b |\n|---|:-:|\n| 1 | 2 |", "a | b"),
        ({"format": "code"}, "So:\n```\nx\n```", "a ` b"),
        ({"language": "de"}, "Das ist nicht die Frage, und der Hund ist da.", "That is not what the dog is for."),
        ({"language": "CYRILLIC"}, "Привет, мир", "hello"),
        ({"calls": "search"}, '<tool_call>{"name": "search", "arguments": {}}</tool_call>', "search for it"),
        ({"calls": "*"}, '<tool_call>\n{"name": "any"}\n</tool_call>', "<tool_call>no JSON</tool_call>"),
        ({"length": {"max": 2}}, "two words", "now three words"),
        ({"length": {"min": 3, "unit": "characters"}}, "abc", "ab"),
        ({"length": {"min": 2, "max": 2, "unit": "lines"}}, "a\nb", "a"),
        ({"json_schema": {"type": "object", "required": ["a"]}}, '{"a": 1}', '{"b": 1}'),
    ],
)
def test_what_holds_and_what_does_not(proposition: dict[str, Any], holds: str, fails: str) -> None:
    assert (feature(proposition, holds), feature(proposition, fails)) == (1.0, 0.0)


def test_a_soft_length_falls_to_nothing_step_by_step() -> None:
    soft = {"length": {"min": 2, "max": 3, "soft": 3}}
    found = [feature(soft, " ".join(["word"] * count)) for count in range(8)]
    assert found == [0.5, 0.75, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]


def test_how_much_of_an_answer_repeats_the_prompt() -> None:
    asked = "Is the fig a fruit or a nut?"
    assert copied_share(Exchange(asked, "The FIG a fruit is."), 2) == pytest.approx(3 / 4)
    assert feature({"prompt_ngrams": 3}, "a nut", asked) == 0.0, "too short to repeat anything"


def test_an_answer_that_was_cut_did_not_end() -> None:
    assert feature({"finished": True}, "zinc") == 1.0
    assert feature({"finished": True}, "zinc", finished=False) == 0.0


def test_the_prompt_can_be_looked_at_instead() -> None:
    assert feature({"regex": r"(?i)\bjson\b", "of": "prompt"}, "json", "As JSON, please") == 1.0
    assert feature({"regex": r"(?i)\bjson\b", "of": "prompt"}, "json", "As text, please") == 0.0


def test_calls_are_read_in_order_and_what_is_none_is_passed_over() -> None:
    text = '<tool_call>{"name": "a"}</tool_call> and <tool_call>[]</tool_call><tool_call>{"name": 1}</tool_call>'
    assert called(text + '<tool_call>{"name": "b"}</tool_call>') == ["a", "b"]
    assert called("<tool_call>" + "[" * 100_000 + "</tool_call>") == []


def test_calls_that_never_end_cost_no_more_than_their_length() -> None:
    began = time.thread_time()
    assert called("<tool_call>" * 20_000) == []
    assert time.thread_time() - began < 1


@pytest.mark.parametrize(
    ("proposition", "words"),
    [
        ({}, "exactly one of regex, words, length, .* got none"),
        ({"regex": "a", "words": ["a"]}, "got regex, words"),
        ({"length": {"min": 3, "max": 2}}, "min is 3 and max 2: no answer has both"),
        ({"length": {}}, "it bounds nothing"),
        ({"regex": "("}, "no regular expression of Rust's"),
        ({"language": "klingon"}, "expected one of en, de, fr, es, it, pt, or a script's name"),
        ({"finished": True, "of": "prompt"}, "finished is of an answer"),
        ({"words": [""]}, "at least 1 character"),
        ({"sentiment": "kind"}, "sentiment"),
    ],
)
def test_what_says_nothing_is_refused(proposition: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Proposition.model_validate(proposition)
