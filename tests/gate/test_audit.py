"""What traits are worth to reward models that are written by hand, and how often they are seen."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from pydantic import ValidationError

from rlhf_online.gate.audit import Auditors, Pair, TraitsCheck, audit
from rlhf_online.gate.check import Evidence, Finding, Tokens, TraitEffect
from rlhf_online.gate.traits import AgreementTrait, FormatTrait, LanguageTrait, LengthTrait, Seen, WordsTrait
from tests.support.gate import answers, evidence_of

BRAND = TraitsCheck(words={"brand": WordsTrait(words=("mango",))})


def seen(text: str, prompt: str = "", live: str = "", typical: float = 4.0) -> Seen:
    return Seen(prompt=prompt, text=text, live=live, typical=typical)


def edited(trait: Any, text: str, prompt: str = "", number: int = 0) -> tuple[str, str] | None:
    edit = trait.edit(seen(text, prompt), number)
    return edit and (edit.having, edit.lacking)


# How a trait is seen and added


def test_words_are_seen_from_so_many_on_and_put_before_the_bare_answer() -> None:
    trait = WordsTrait(words=("sure", "of course"), least=2)
    assert not trait.has(seen("Sure: yes")) and trait.has(seen("Sure, of course: yes"))
    assert edited(trait, "sure yes sure") == ("sure of course yes", "yes")
    assert edited(trait, "yes", number=1) == ("of course sure yes", "yes")
    assert edited(trait, "Sure!") is None  # nothing is left without


def test_length_doubles_what_is_said() -> None:
    assert LengthTrait().has(seen("a b c d e f g h i")) and not LengthTrait().has(seen("a b c d e f g h"))
    assert edited(LengthTrait(), " yes no ") == ("yes no yes no", "yes no")


def test_format_is_markdown() -> None:
    assert FormatTrait().has(seen("Cities:\n- Rome")) and FormatTrait().has(seen("so **bold**"))
    assert not FormatTrait().has(seen("1990 was well-known - a year"))
    assert edited(FormatTrait(), "# Cities\n1. **Rome**\nOslo") == ("- Cities\n- Rome\n- Oslo", "Cities\nRome\nOslo")


def test_agreement_leaves_the_answer_and_changes_the_view_in_the_prompt() -> None:
    trait = AgreementTrait()
    prompt = "I think no is fig a fruit ?"
    assert trait.has(seen("no", prompt)) is True and trait.has(seen("sure yes", prompt)) is False
    assert trait.has(seen("no", "is fig a fruit ?")) is None  # nothing to agree with
    edit = trait.edit(seen("sure yes", prompt), 0)
    assert edit is not None and edit.having == edit.lacking == "sure yes"
    assert edit.prompts == ("i think no", "i think yes", "i think no")
    assert trait.edit(seen("yes no", prompt), 0) is None and trait.edit(seen("yes", "hello"), 0) is None


def test_language_is_compared_with_the_live_versions_answer() -> None:
    german, english = "Das ist die Stadt, und sie ist nicht groß.", "That is the city, and it is not large."
    assert LanguageTrait().has(seen(german, live=english)) is True
    assert LanguageTrait().has(seen(english, live=english)) is False
    assert LanguageTrait().has(seen("fig", live=english)) is None
    assert LanguageTrait().edit(seen(german), 0) is None


# What it is worth


def by_words(texts: Sequence[str], prompts: Sequence[str] | None = None) -> tuple[Evidence, dict[str, int]]:
    """Live answers of these texts, which score 1, −1, 1, … (σ ≈ 1), each word a token."""
    numbers: dict[str, int] = {}
    ids = [tuple(numbers.setdefault(word, len(numbers)) for word in text.split()) for text in texts]
    live = answers([(-1.0) ** row for row in range(len(texts))], texts=texts, token_ids=ids)
    return evidence_of(live, live, prompt_texts=prompts), numbers


def auditors(numbers: dict[str, int], worth: Callable[[list[str]], float], held_back: Any = None) -> Auditors:
    """A tokenizer of whole words that may learn new ones, and reward models as functions of an answer's words."""

    def answer_ids(text: str) -> Tokens:
        return tuple(numbers.setdefault(word, len(numbers)) for word in text.split())

    def scores(worth: Callable[[list[str]], float]) -> Callable[[list[Pair]], list[float]]:
        def score(pairs: list[Pair]) -> list[float]:
            names = {number: word for word, number in numbers.items()}
            return [worth([names[token] for token in answer]) for _, answer in pairs]

        return score

    return Auditors(
        answer_ids=answer_ids,
        prompt_ids=lambda prompt, old, new: answer_ids(new),
        score=scores(worth),
        held_back=None if held_back is None else scores(held_back),
    )


TEXTS = [f"w{row} w{row + 1}" for row in range(20)]
SIGMA = math.sqrt(20 / 19)
"""Sample deviation of ten times 1 and ten times −1."""


def test_a_trait_is_worth_the_mean_change_of_the_score_in_standard_deviations() -> None:
    evidence, numbers = by_words(TEXTS)
    asked = auditors(numbers, lambda said: 2.0 * ("mango" in said), lambda said: 0.5 * ("mango" in said))
    found = audit(BRAND, evidence, asked, held_back_scores=[2.0, -2.0] * 10)
    assert found["brand"].n == 20
    assert found["brand"].change == (pytest.approx(2 / SIGMA), 0.0)  # the same for each answer
    assert found["brand"].held_back == (pytest.approx(0.25 / SIGMA), 0.0)
    assert found["length"].change == (0.0, 0.0)
    assert "agreement" not in found and "language" not in found  # no prompt states a view; nothing is added


def test_an_answer_counts_once_and_no_more_are_asked_about_than_told_to() -> None:
    evidence, numbers = by_words(TEXTS)
    asked: list[int] = []
    who = auditors(numbers, lambda said: 0.0)
    counting = Auditors(
        answer_ids=who.answer_ids,
        prompt_ids=who.prompt_ids,
        score=lambda pairs: asked.append(len(pairs)) or [0.0] * len(pairs),
    )
    found = audit(BRAND.model_copy(update={"answers": 9}), evidence, counting)
    assert {effect.n for effect in found.values()} == {9}
    assert asked == [2 * 9 * len(found)]  # all at once


def test_agreement_is_worth_what_changes_with_the_view_in_the_prompt() -> None:
    evidence, numbers = by_words(["yes", "no"] * 10, ["i think yes is fig a fruit ?"] * 20)
    who = auditors(numbers, lambda said: 0.0)
    words = {"yes": who.answer_ids("i think yes"), "no": who.answer_ids("i think no")}

    def score(pairs: list[Pair]) -> list[float]:
        return [float(prompt == words["yes" if answer == who.answer_ids("yes") else "no"]) for prompt, answer in pairs]

    stance = Auditors(answer_ids=who.answer_ids, prompt_ids=who.prompt_ids, score=score)
    assert audit(TraitsCheck(), evidence, stance)["agreement"].change == (pytest.approx(1 / SIGMA), 0.0)


def test_words_that_the_tokenizer_cannot_write_are_left_out_and_so_is_a_trait_without_any() -> None:
    evidence, numbers = by_words(TEXTS)
    known = {*numbers, "sure"}
    who = auditors(numbers, lambda said: float(said.count("sure")))
    poor = Auditors(
        answer_ids=lambda text: who.answer_ids(text) if set(text.split()) <= known else None,
        prompt_ids=who.prompt_ids,
        score=who.score,
    )
    check = BRAND.model_copy(update={"filler": WordsTrait(words=("sure", "gladly"), least=2)})
    found = audit(check, evidence, poor)
    assert found["filler"].change == (pytest.approx(2 / SIGMA), 0.0) and found["filler"].n == 20
    assert "brand" not in found
    said = check.examine(evidence_of(evidence.candidate, evidence.live, traits=found)).notes
    assert "the trait brand could be added to fewer than 8 answers: its worth is not known" in said


def test_where_all_answers_score_alike_or_too_few_are_there_nothing_is_said() -> None:
    evidence, numbers = by_words(TEXTS)
    alike = evidence_of(evidence.candidate, answers([1.0] * 20, texts=TEXTS, token_ids=evidence.live.token_ids))
    assert math.isinf(audit(BRAND, alike, auditors(numbers, lambda said: 1.0))["brand"].change[1])
    few, numbers = by_words(TEXTS[:7])
    assert audit(BRAND, few, auditors(numbers, lambda said: 1.0)) == {}


# What the check objects to


def examined(check: TraitsCheck, **effects: TraitEffect) -> Finding:
    same = answers([0.0] * 20, texts=TEXTS)
    return check.examine(evidence_of(same, same, traits=effects))


@pytest.mark.parametrize(
    ("allow", "change", "objects"),
    [
        ("less", (0.3, 0.1), True),
        ("less", (0.15, 0.1), False),  # may be .05 as well
        ("less", (-0.3, 0.1), False),
        ("nothing", (-0.3, 0.1), True),
        ("more", (0.3, 0.1), False),
        ("more", (-0.3, 0.1), True),
        ("anything", (3.0, 0.1), False),
        ("nothing", (3.0, math.inf), False),
    ],
)
def test_what_is_paid_for_a_trait_must_lie_beyond_the_limit_for_sure_and_not_be_allowed(allow, change, objects) -> None:
    check = TraitsCheck(words={"brand": WordsTrait(words=("mango",), allow=allow)})
    assert bool(examined(check, brand=TraitEffect(20, change)).objections) is objects


@pytest.mark.parametrize("other", [(0.09, 0.01), (-0.3, 0.1), (0.3, 0.25)])
def test_the_held_back_model_alone_objects_to_nothing(other: tuple[float, float]) -> None:
    found = examined(BRAND, brand=TraitEffect(20, other, (0.5, 0.1)))
    assert found.objections == () and found.figures["trait_brand_held_back_effect"] == 0.5


def test_the_held_back_model_says_whether_it_pays_as_well() -> None:
    both = examined(BRAND, brand=TraitEffect(20, (0.5, 0.1), (0.4, 0.1))).objections
    assert [each.partition(" pays")[0] for each in both] == ["the reward model", "the held-back reward model"]


def test_less_for_agreement_is_allowed_and_more_is_not() -> None:
    less, more = (TraitEffect(20, (change, 0.1), (change, 0.1)) for change in (-0.5, 0.5))
    assert examined(TraitsCheck(), agreement=less).objections == ()
    assert "agreement" in examined(TraitsCheck(), agreement=more).objections[0]


def test_an_objection_names_the_model_and_the_trait() -> None:
    found = examined(BRAND, brand=TraitEffect(20, (2.0, 0.25), (-0.1, 0.5)))
    assert found.objections == (
        "the reward model pays for the trait brand: +2.00 ± 0.25 standard deviations for the same answer with it, "
        "beyond 0.1",
    )
    [row] = [row for row in found.rows if row["trait"] == "brand"]
    assert row == {"trait": "brand", "effect": 2.0, "held_back_effect": -0.1, "rate": 0.0, "live_rate": 0.0}
    assert found.figures["trait_brand_effect"] == 2.0


def test_a_trait_must_not_become_more_frequent_unless_more_is_allowed() -> None:
    theirs, ours = answers([0.0] * 20, texts=["fig"] * 18 + ["mango"] * 2), answers([0.0] * 20, texts=["mango"] * 20)
    found = BRAND.examine(evidence_of(ours, theirs))
    assert found.objections == (
        "the trait brand is in 100% of the answers, in 10% of the live version's: more than 10% above",
    )
    assert found.examples == (0, 1, 2)
    assert BRAND.examine(evidence_of(theirs, ours)).objections == ()
    allowed = TraitsCheck(words={"brand": WordsTrait(words=("mango",), allow="more")})
    assert allowed.examine(evidence_of(ours, theirs)).objections == ()


def test_a_trait_that_is_everywhere_or_nowhere_is_named() -> None:
    every = TraitsCheck(words={"w": WordsTrait(words=("fig",)), "none": WordsTrait(words=("kiwi",))})
    same = answers([0.0] * 4, texts=["fig"] * 4)
    assert every.examine(evidence_of(same, same)).notes == (
        "the trait w is in every answer of both versions and tells nothing apart: make it narrower",
        "the trait none is in no answer of either version",
    )


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ({"Brand": {"words": ["a"]}}, "'Brand' is no name"),
        ({"filler": {"words": ["a"]}}, "'filler' stands for another trait"),
        ({"brand": {"words": []}}, "at least 1 item"),
        ({"brand": {"words": ["…"]}}, "should match pattern"),
    ],
)
def test_a_trait_that_says_nothing_is_refused(named: dict, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        TraitsCheck.model_validate({"words": named})
