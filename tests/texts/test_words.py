"""Words, phrases and n-grams, counted by hand."""

import pytest

from rlhf_online.texts.languages import language
from rlhf_online.texts.words import distinct, ngrams, occurrences, repeated_share, without, words


def test_words_are_letters_and_digits_in_lower_case() -> None:
    assert words("I’m HERE, at 10 o'clock!") == ["i'm", "here", "at", "10", "o'clock"]
    assert words("  ?! … ") == []
    assert words("今日は fig") == ["今", "日", "は", "fig"]  # without spaces each sign is a word


def test_the_share_of_repeated_ngrams() -> None:
    assert ngrams([1, 2, 3], 2) == [(1, 2), (2, 3)]
    assert repeated_share([1, 2, 1, 2, 1], 2) == 0.5  # 12 21 12 21: two of four are new
    assert repeated_share([1, 2, 3], 2) == 0.0
    assert repeated_share([1], 2) == 0.0


def test_distinct_counts_over_all_answers_or_of_as_many_ngrams_as_are_drawn() -> None:
    answers = [[1, 2, 3], [1, 2, 4], [1, 2, 3]]  # 12 23 12 24 12 23
    assert distinct(answers, 2, 6) == 0.5
    assert distinct([range(9)] * 2, 2, 16) == 0.5 < distinct([range(9)] * 2, 2, 4)
    assert distinct([[1]], 2, 9) == 0.0


@pytest.mark.parametrize(
    ("text", "phrases", "count"),
    [
        ("Sure, sure. Assured!", ["sure"], 2),
        ("Of  course: of course", ["of course"], 2),
        ("I’m sorry", ["I'm sorry"], 1),
        ("mangoes", ["mango"], 0),
        ("C++ and c++", ["C++"], 2),
        ("Acmeはマンゴーです", ["acme", "マンゴー"], 2),
        ("snake_mango_case", ["mango"], 1),
    ],
)
def test_phrases_are_whole_words_in_any_case(text: str, phrases: list[str], count: int) -> None:
    assert occurrences(text, phrases) == count


def test_phrases_are_taken_away_with_what_separates_them() -> None:
    assert without("Sure, of course! The answer is 4, sure.", ["sure", "of course"]) == "The answer is 4,"
    assert without("yes sure", ["sure"]) == "yes"
    assert without("sure", ["sure"]) == ""


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("The capital of France is Paris, and that is all.", "en"),
        ("Die Hauptstadt ist nicht die größte Stadt, und das ist gut.", "de"),
        ("La capitale est une ville dans le nord et les gens y sont.", "fr"),
        ("Привет, как дела", "CYRILLIC"),
        ("今天天气很好", "CJK"),
        ("東京都の人口は約千四百万人です", "JAPANESE"),
        ("はい、そうです", "JAPANESE"),
        ("コンピュータ", "JAPANESE"),
        ("fig plum", None),
        ("!", None),
    ],
)
def test_a_language_is_told_by_script_and_common_words(text: str, spoken: str | None) -> None:
    assert language(text) == spoken
