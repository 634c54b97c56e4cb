"""Does the candidate give answers that are none: empty, without a word, cut, or the prompt once more?"""

from pydantic import Field

from rlhf_online.gate.check import AnswerSet, Check, Evidence, Finding
from rlhf_online.gate.rates import share_finding
from rlhf_online.texts.words import words

COPIED_WORDS = 3
"""Fewer words of the prompt in a row may be an answer."""


class NonAnswersCheck(Check):
    max_rise: float = Field(default=0.05, ge=0, le=1, description="Largest rise of the share of such answers.")

    def examine(self, evidence: Evidence) -> Finding:
        ours, theirs = (_none(evidence, version) for version in (evidence.candidate, evidence.live))
        what = "none: empty, without a word, cut, or the prompt once more"
        return share_finding("non_answers", what, ours, theirs, self.max_rise, evidence)


def _none(evidence: Evidence, version: AnswerSet) -> list[bool]:
    return [
        not finished or is_none(prompt, text)
        for prompt, text, finished in zip(evidence.prompt_texts, version.texts, version.finished, strict=True)
    ]


def is_none(prompt: str, text: str) -> bool:
    """Whether there is no word in the answer, or no other than the prompt's in its order."""
    said = words(text)
    if not said:
        return True
    return len(said) >= COPIED_WORDS and f" {' '.join(said)} " in f" {' '.join(words(prompt))} "
