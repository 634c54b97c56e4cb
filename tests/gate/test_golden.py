"""Golden prompts: the file, its mistakes, and what they say of a candidate."""

from pathlib import Path

import pytest

from rlhf_online.errors import ConfigError
from rlhf_online.gate.check import GoldenAnswer
from rlhf_online.gate.golden import GoldenCheck
from rlhf_online.gate.golden_prompts import GoldenPrompt, read_golden
from tests.support.gate import answers, evidence_of

ENTRY = '[[prompt]]\nname = "capital"\nmessages = [{ role = "user", content = "What is the capital of France?" }]\n'


def prompt(name: str = "capital", **expected: object) -> GoldenPrompt:
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    return GoldenPrompt.model_validate({"name": name, "messages": messages, **expected})


@pytest.mark.parametrize(
    ("expected", "answer", "failures"),
    [
        ({"contains": ["paris", "France"]}, "PARIS, France", []),
        ({"contains": ["Paris", "France"]}, "Paris.", ["does not contain 'France'"]),
        ({"not_contains": ["Berlin"]}, "Not berlin!", ["contains 'Berlin'"]),
        ({"regex": r"^Paris\b"}, "Paris.", []),
        ({"regex": r"^Paris\b"}, "It is Paris.", ["regex does not match"]),
        ({"not_regex": r"(?m)^- "}, "Cities:\n- Paris", ["not_regex matches"]),
        ({"max_words": 2}, "It is Paris.", ["has 3 words, more than 2"]),
        ({"min_words": 1}, " … ", ["has 0 words, fewer than 1"]),
        ({"max_words": 0, "min_words": None}, "", []),
    ],
)
def test_an_answer_fails_by_what_it_is_not(expected: dict, answer: str, failures: list[str]) -> None:
    assert list(prompt(**expected).failures(answer)) == failures


def test_a_regular_expression_takes_no_time_that_grows_without_bound() -> None:
    """By backtracking this one takes 2^5000 steps, and the test never ends."""
    hopeless = prompt(regex="^(a+)+$")
    assert list(hopeless.failures("a" * 5000 + "b")) == ["regex does not match"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (ENTRY + 'contians = ["Paris"]', "[[prompt]] 1: contians is no setting: did you mean contains?"),
        (ENTRY, "[[prompt]] 1: it expects nothing: give contains"),
        (ENTRY + "contains = []", "[[prompt]] 1: it expects nothing"),
        (ENTRY + 'contains = [""]', "[[prompt]] 1: contains.0: "),
        (ENTRY + 'contains = "Paris"', "[[prompt]] 1: contains: "),
        (
            ENTRY + 'regex = "(Paris"',
            "[[prompt]] 1: regex: Value error, it is no regular expression of Rust's: unclosed",
        ),
        (ENTRY + 'regex = "(?<=a)b"', "look-around, including look-ahead and look-behind, is not supported"),
        (ENTRY + r'regex = "(\\w{500}){500}"', "Compiled regex exceeds size limit"),
        (ENTRY + "max_words = 2\nmin_words = 3", "[[prompt]] 1: max_words is less than min_words"),
        (
            ENTRY + "max_words = 2\n" + ENTRY + "max_words = 3",
            "[[prompt]] 2: name: another prompt has the name 'capital'",
        ),
        (ENTRY.replace('"user"', '"usr"') + "max_words = 2", "[[prompt]] 1: messages.0.role: "),
        (ENTRY.replace('"user"', '"assistant"') + "max_words = 2", "the last message is the assistant's"),
        ("[[prompt]]\nmax_words = 2", "[[prompt]] 1: name is missing"),
        ("prompt = []", "expected 1 to 500 prompts, a table [[prompt]] each, got none"),
        ("", "got none"),
        ('prompts = "x"', "prompts is no key of this file"),
        ("[[prompt", "is no TOML"),
        ("prompt = [1]", "[[prompt]] 1"),
    ],
)
def test_a_mistake_in_the_file_is_told_with_file_entry_and_key(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "golden.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as told:
        read_golden(path)
    assert str(path) in str(told.value) and said in str(told.value)


def test_a_file_that_is_not_there_is_told_and_none_is_needed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gate\.golden\.file: .*golden\.toml cannot be read"):
        read_golden(tmp_path / "golden.toml")
    assert read_golden(None) == ()
    (tmp_path / "golden.toml").write_text(ENTRY + 'contains = ["Paris"]')
    assert read_golden(tmp_path / "golden.toml") == (prompt(contains=["Paris"]),)


def found(check: GoldenCheck, *pairs: tuple[str, str | None]):
    golden = [
        GoldenAnswer(prompt=prompt(f"p{i}", contains=["x"]), candidate=a, live=b) for i, (a, b) in enumerate(pairs)
    ]
    return check.examine(evidence_of(answers([0.0]), answers([0.0]), golden=golden))


def test_none_may_be_lost_that_the_live_version_passes() -> None:
    lost = found(GoldenCheck(), ("x", "x"), ("y", "x"), ("y", "y"), ("y", None), ("x", "y"))
    assert lost.figures == {"golden": 0.4, "golden_n": 5, "golden_lost": 1, "live_golden": 0.5}
    assert lost.objections == ("1 golden prompts fail that the live version passes > 0: p1",)
    assert [(row["golden"], row["live_fails"]) for row in lost.rows] == [
        ("p1", "passes"),  # what was lost comes first
        ("p2", "does not contain 'x'"),
        ("p3", "not answered"),
    ]
    assert found(GoldenCheck(max_lost=1), ("y", "x"), ("x", "x")).objections == ()


def test_a_share_of_them_must_pass_whatever_the_live_version_does() -> None:
    assert found(GoldenCheck(min_share=0.5), ("x", "y"), ("y", "y")).objections == ()
    assert found(GoldenCheck(min_share=0.51), ("x", "y"), ("y", "y")).objections == (
        "50% of the golden prompts pass, fewer than 51%",
    )
    assert found(GoldenCheck()).figures == {}
