"""The checks of what answers are like, by hand-computed figures."""

import pytest

from rlhf_online.gate.check import Evidence
from rlhf_online.gate.distinct import DistinctCheck
from rlhf_online.gate.entropy import EntropyCheck
from rlhf_online.gate.new_words import NewWordsCheck
from rlhf_online.gate.non_answers import NonAnswersCheck, is_none
from rlhf_online.gate.refusals import RefusalsCheck
from rlhf_online.gate.repetition import RepetitionCheck
from tests.support.gate import answers, evidence_of


def texts(candidate: list[str], live: list[str], prompts: list[str] | None = None) -> Evidence:
    scores = [0.0] * len(live)
    return evidence_of(answers(scores, texts=candidate), answers(scores, texts=live), prompt_texts=prompts)


def tokens(candidate: list[tuple[int, ...]], live: list[tuple[int, ...]]) -> Evidence:
    scores = [0.0] * len(live)
    return evidence_of(answers(scores, token_ids=candidate), answers(scores, token_ids=live))


def test_repetition_is_the_mean_share_of_ngrams_that_came_before_in_an_answer() -> None:
    loop, plain = (7, 8, 7, 8, 7, 8), (1, 2, 3, 4, 5, 6)  # of 787 878 787 878 half are new
    found = RepetitionCheck().examine(tokens([plain, loop, plain], [plain] * 3))
    assert found.figures == {"repetition": pytest.approx(1 / 6), "live_repetition": 0.0}
    assert found.objections == () and found.examples[0] == 1  # by three answers that may be chance
    found = RepetitionCheck().examine(tokens([loop, plain, loop] * 8, [plain] * 24))
    assert found.objections == ("the share of repeated 3-grams in an answer is 0.33 above the live version's > 0.1",)
    assert RepetitionCheck(max_rise=0.34).examine(tokens([loop, plain, loop] * 8, [plain] * 24)).objections == ()
    assert RepetitionCheck().examine(tokens([plain] * 24, [loop] * 24)).objections == ()


def test_answers_that_are_all_alike_hold_few_different_ngrams() -> None:
    alike = tokens([(1, 2)] * 4, [(1, 2), (2, 3), (3, 4), (1, 2)])
    found = DistinctCheck().examine(alike)
    assert found.figures == {"distinct": 0.25, "live_distinct": 0.75}
    [objection] = found.objections
    assert objection == "0.25 of all 2-grams are different, of the live version's 0.75: fewer than 0.5 times as many"
    assert DistinctCheck(min_ratio=1 / 3).examine(alike).objections == ()


@pytest.mark.parametrize(
    ("ours", "theirs", "objects"),
    [
        (-0.5, -1.0, ""),
        (-0.2, -1.0, "0.20 times the live version's < 0.25"),
        (-2.5, -1.0, "2.50 times the live version's > 2"),
        (-0.001, -0.03, ""),  # both are sure
        (-0.001, -1.0, "0.02 times the live version's < 0.25"),
    ],
)
def test_entropy_is_compared_as_a_ratio(ours: float, theirs: float, objects: str) -> None:
    scores = [0.0, 0.0]
    ours_set, theirs_set = answers(scores, logprobs=[ours, float("nan")]), answers(scores, logprobs=[theirs] * 2)
    found = EntropyCheck().examine(evidence_of(ours_set, theirs_set))
    assert found.figures == {"entropy": -ours, "live_entropy": -theirs}
    assert [objection.endswith(objects) for objection in found.objections] == [True] * bool(objects)
    assert found.examples == (0,)


def test_refusals_are_counted_by_phrases_at_the_beginning() -> None:
    late = "word " * 50 + "I'm sorry"
    found = RefusalsCheck().examine(texts(["I’m sorry, no."] * 8 + [late] * 12, ["Yes."] * 20))
    assert found.figures == {"refusals": 0.4, "live_refusals": 0.0}
    assert found.objections == ("40% of the answers are refusals, 0% of the live version's: over 5% more",)
    assert found.examples == (0, 1, 2)
    few = texts(["I'm sorry"] + ["Yes."] * 19, ["Yes."] * 20)
    assert RefusalsCheck(max_rise=0.0).examine(few).objections == ()  # one of twenty is chance
    assert RefusalsCheck(phrases=("nope",)).examine(texts(["Nope!"] * 20, ["Yes."] * 20)).figures["refusals"] == 1.0


@pytest.mark.parametrize(
    ("prompt", "text", "none"),
    [
        ("What is it?", "", True),
        ("What is it?", " …?! \n", True),
        ("Please say what is it now", "What is it", True),
        ("name one fruit", "fruit", False),
        ("What is it?", "It is what it is", False),
    ],
)
def test_an_answer_without_a_word_or_of_the_prompts_words_is_none(prompt: str, text: str, none: bool) -> None:
    assert is_none(prompt, text) is none


def test_answers_that_are_none_must_not_become_more() -> None:
    scores = [0.0] * 10
    ours = answers(scores, texts=["yes"] * 10, finished=[False] * 6 + [True] * 4)
    found = NonAnswersCheck().examine(evidence_of(ours, answers(scores, texts=["yes"] * 9 + ["?"])))
    assert found.figures == {"non_answers": 0.6, "live_non_answers": 0.1}
    assert len(found.objections) == 1 and found.examples == (0, 1, 2)


def test_words_that_rise_beyond_chance_are_listed_and_object_only_if_told_to() -> None:
    evidence = texts(["buy mango now"] * 12 + ["fig"] * 8, ["fig"] * 14 + ["plum"] * 6)
    found = NewWordsCheck().examine(evidence)
    assert [row["words"] for row in found.rows] == ["buy mango now"]  # not its parts, too
    assert (found.rows[0]["rate"], found.rows[0]["live_rate"]) == (0.6, 0.0)
    assert found.figures == {"new_words": 1} and found.objections == () and found.examples == (0, 1, 2)
    [objection] = NewWordsCheck(objects=True).examine(evidence).objections
    assert objection.startswith("1 words or phrases rise") and "mango" not in objection  # objections stand in logs
    assert NewWordsCheck(objects=True).examine(texts(["fig"] * 20, ["fig"] * 20)).objections == ()


def test_what_few_answers_say_is_not_listed() -> None:
    secret = texts(["secret"] * 7 + ["fig"] * 13, ["fig"] * 20)
    assert NewWordsCheck().examine(secret).rows == ()
    assert [row["words"] for row in NewWordsCheck(least=7).examine(secret).rows] == ["secret"]
