"""What the watch is shown: of voters the comparisons that are kept for replay, as words and declared traits; of a line
of versions what the gate measured of each."""

import statistics
from collections.abc import Callable, Mapping, Sequence

from rlhf_online.feedback.votes import Comparison
from rlhf_online.gate.traits import Seen, Trait
from rlhf_online.texts.words import words
from rlhf_online.training.parts import TrainerParts
from rlhf_online.training.progress import JudgedVersion, Progress
from rlhf_online.watch import sycophancy, voters
from rlhf_online.watch.line import Line
from rlhf_online.watch.voters import Judged

MOST = 5000
"""Comparisons that are looked at, the newest."""


def watch_voters(parts: TrainerParts) -> None:
    """Tell who votes for which trait, and for which word, as nobody else does."""
    votes = newest(parts.learners.reward.comparisons)
    decode, traits = parts.learners.tokenizer.decode, parts.settings.gate.traits.traits
    parts.reporter.watch("tampering", voters.reading(by_trait(votes, decode, traits), "declared traits"))
    parts.reporter.watch("poison", voters.reading(by_word(votes, decode), "words"))


def watch_line(parts: TrainerParts, progress: Progress, judged: JudgedVersion) -> None:
    """Add a version that passed to its line, and tell what that has come to."""
    line = Line.from_json(progress.line).after(
        judged.version, judged.parent, judged.reference, judged.kl, judged.figures
    )
    progress.line = line.to_json()
    for monitor, reading in line.readings(parts.settings.gate.proxy_gap.max).items():
        parts.reporter.watch(monitor, reading)


def watch_sycophancy(parts: TrainerParts) -> None:
    """Tell whether the version in memory yields to what askers think."""
    learners = parts.learners
    asked = sycophancy.Asked(
        decode=learners.tokenizer.decode,
        edited=learners.tokenizer.edited,
        begins=lambda word: learners.tokenizer.answer_ids(word)[:-1],
        logprobs=lambda pairs: learners.logprobs(pairs)[0],
    )
    views = parts.settings.gate.traits.agreement.views
    probes = sycophancy.probe(parts.intake.policy_inputs.prompts, views, asked)
    parts.reporter.watch("sycophancy", sycophancy.reading(probes))


Decode = Callable[[Sequence[int]], str]


def newest(votes: Sequence[Comparison]) -> list[Comparison]:
    """MOST of them at most: in a replay that is full they lie in no order."""
    return sorted(votes, key=lambda vote: vote.created_ms)[-MOST:]


def by_word(votes: Sequence[Comparison], decode: Decode) -> list[Judged]:
    """The words that stand in each answer."""
    return [
        Judged(
            person=vote.person,
            traits=tuple(frozenset(words(decode(candidate.token_ids))) for candidate in vote.candidates),
            ranks=vote.ranks,
        )
        for vote in votes
    ]


def by_trait(votes: Sequence[Comparison], decode: Decode, traits: Mapping[str, Trait]) -> list[Judged]:
    """The names of the declared traits that each answer has. An answer is long by the median of all of them."""
    texts = [[decode(candidate.token_ids) for candidate in vote.candidates] for vote in votes]
    typical = statistics.median([len(words(text)) for row in texts for text in row] or [0])

    def has(prompt: str, text: str) -> frozenset[str]:
        seen = Seen(prompt=prompt, text=text, live=text, typical=typical)
        return frozenset(name for name, trait in traits.items() if trait.has(seen))

    return [
        Judged(
            person=vote.person,
            traits=tuple(has(decode(vote.prompt_token_ids), text) for text in row),
            ranks=vote.ranks,
        )
        for vote, row in zip(votes, texts, strict=True)
    ]
