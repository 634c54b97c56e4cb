"""What do the candidate's answers say much more often than the live version's did?

Every word, and every two and three in a row, is counted by the answers that it stands in, and tested for a rise by
Fisher's exact test; of those that are told at most 5 % are expected to be chance (Benjamini and Hochberg 1995). Only
what stands in `least` answers of both versions together is tested: that says nothing of which version they are from
(independent filtering, Bourgon et al. 2010), and what few said is nobody's to read in a report.

A right answer that was learned rises, too. So this is a list for people to read, and objects to nothing unless it is
told to; what must not rise is declared as a trait.
"""

from collections import Counter
from collections.abc import Sequence

from pydantic import Field

from rlhf_online.gate.check import Check, Evidence, Finding
from rlhf_online.gate.statistics import LEVEL, discoveries, rise_p
from rlhf_online.texts.words import ngrams, words

LONGEST = 3


class NewWordsCheck(Check):
    least: int = Field(default=8, ge=2, description="Answers of both versions that a phrase must stand in.")
    listed: int = Field(default=20, ge=1, le=100, description="Words and phrases that a report lists at most.")
    objects: bool = Field(default=False, description="Whether one that rises is an objection.")

    def examine(self, evidence: Evidence) -> Finding:
        ours, theirs = [_phrases(text) for text in evidence.candidate.texts], [_phrases(t) for t in evidence.live.texts]
        count = Counter(phrase for phrases in ours for phrase in phrases)
        before = Counter(phrase for phrases in theirs for phrase in phrases)
        often = (phrase for phrase, times in (count + before).items() if times >= self.least)
        tested = sorted(often, key=lambda phrase: (-len(phrase), phrase))  # of what rises alike the longest is told
        p_values = [rise_p(count[phrase], len(ours), before[phrase], len(theirs)) for phrase in tested]
        found: list[tuple[str, ...]] = []
        for index in discoveries(p_values):
            if not any(_within(phrase, tested[index]) or _within(tested[index], phrase) for phrase in found):
                found.append(tested[index])
        p_of = dict(zip(tested, p_values, strict=True))
        rows = [
            {
                "words": " ".join(phrase),
                "rate": count[phrase] / len(ours),
                "live_rate": before[phrase] / len(theirs),
                "p": p_of[phrase],
            }
            for phrase in found[: self.listed]
        ]
        objection = f"{len(found)} words or phrases rise beyond chance (Benjamini–Hochberg at {LEVEL:.0%})"
        return Finding(
            figures={"new_words": len(found)},
            objections=(objection,) if found and self.objects else (),
            examples=evidence.worst(lambda row: float(sum(phrase in ours[row] for phrase in found)) or float("nan")),
            rows=tuple(rows),
        )


def _phrases(text: str) -> set[tuple[str, ...]]:
    said = words(text)
    return {tuple(map(str, gram)) for n in range(1, LONGEST + 1) for gram in ngrams(said, n)}


def _within(short: Sequence[str], long: Sequence[str]) -> bool:
    return f" {' '.join(short)} " in f" {' '.join(long)} "
