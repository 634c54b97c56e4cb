"""Regular expressions in linear time."""

import time

import pytest

from rlhf_online.texts import patterns


def test_a_pattern_is_found_anywhere_in_a_text() -> None:
    assert patterns.found(patterns.check(r"(?i)\bfig\b"), "a FIG, please") is True
    assert patterns.found(r"^fig$", "a\nfig") is False, "^ and $ are the ends of the text, unless (?m) says lines"
    assert patterns.found(r"(?m)^fig$", "a\nfig") is True


@pytest.mark.parametrize(
    "pattern", [r"(a+)+$", r"(a|aa)+$", r"(.*a){25}", r"(\w+\s?)*!", r"^(([a-z])+.)+[A-Z]([a-z])+$"]
)
def test_what_is_catastrophic_elsewhere_takes_a_moment(pattern: str) -> None:
    """Python's own `re` needs 2ⁿ steps for these. The time is the processor's: a busy machine changes nothing."""
    began = time.thread_time()
    patterns.found(patterns.check(pattern), "a" * 20_000 + "!?")
    assert time.thread_time() - began < 1.0


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("(", "unclosed group"),
        (r"(?=a)", "look-around"),
        (r"(a)\1", "backreference"),
        (r"((a{1000}){1000}){1000}", "exceeds size limit"),
    ],
)
def test_what_is_none_is_refused_with_the_reason(pattern: str, why: str) -> None:
    with pytest.raises(ValueError, match=f"no regular expression of Rust's: .*{why}"):
        patterns.check(pattern)


@pytest.mark.parametrize(
    ("pattern", "size"),
    [
        ("abc", 3),
        (r"\d{4}-[0-9\]]{2}", 7),
        ("(a{3}b){2}", 8),
        ("(?:a|b{2,5})*c+", 8),
        (r"\(a{1,}", 2),
        ("((a{2}){3}b?){10}", 70),
        ("(?:a{9}[])]){10}", 110),
        ("(?i:a{9}[^])]){10}", 110),
        ("(?P<x>a{9}[[])]]){2}", 26),
        (r"(a{9}[\])]){10}", 100),
    ],
)
def test_repetitions_count_as_often_as_they_may_repeat(pattern: str, size: int) -> None:
    assert patterns.size(pattern) == size


@pytest.mark.parametrize("pattern", [r"(a{1,25}b?){1,18}c", r"(\w+\s?){0,100}\d\d\d"])
def test_a_bounded_one_takes_a_moment_for_any_text(pattern: str) -> None:
    patterns.found(patterns.check_bounded(pattern), "")
    began = time.thread_time()
    patterns.found(pattern, "a" * 1000)
    assert time.thread_time() - began < 0.5


@pytest.mark.parametrize("pattern", ["(?x)(?:a{ 1, 500 }b?){ 1, 20 }", "a(?ix:b { 500 })"])
def test_blanks_hide_no_repetition(pattern: str) -> None:
    patterns.check(pattern)
    with pytest.raises(ValueError, match=r"^\(\?x\) is not supported"):
        patterns.check_bounded(pattern)


def test_one_that_is_linear_but_long_for_every_text_is_refused_where_every_answer_is_asked() -> None:
    with pytest.raises(ValueError, match="its repetitions make it 10021 characters long, and 500 may be"):
        patterns.check_bounded("(a{1,500}b?){1,20}c")
