"""People's comparisons as the watch on voters is shown them: each is read once, and not again after every update."""

import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rlhf_online.feedback.votes import Comparison
from rlhf_online.gate.traits import LanguageTrait, LengthTrait, Seen, Trait
from rlhf_online.texts.languages import language
from rlhf_online.texts.words import words
from rlhf_online.watch.drift import Surprise
from rlhf_online.watch.segments import Foretold
from rlhf_online.watch.voters import Judged

MOST = 5000
"""Comparisons that are looked at, the newest."""
LENGTHS = (64, 256, 1024)
"""Tokens of what was said before the answers, at which a length class ends."""


@dataclass(frozen=True, slots=True)
class _Read:
    """What a vote says of words; how many words each answer has, and which traits that does not tell; where it belongs,
    and whether it was foretold rightly, None where it was not foretold while this process ran."""

    words: Judged
    ranks: tuple[int, ...]
    lengths: tuple[int, ...]
    traits: tuple[frozenset[str], ...]
    segments: Mapping[str, str]
    right: bool | None


class WatchedVotes:
    """`traits` are those that are declared. What is remembered is of the votes that were last shown, no others."""

    def __init__(self, decode: Callable[[Sequence[int]], str], traits: Mapping[str, Trait]) -> None:
        self._decode = decode
        self._lengths = {name: trait for name, trait in traits.items() if isinstance(trait, LengthTrait)}
        # Another language than the live version's is nothing that a vote on answers of one version tells.
        self._others = {
            name: trait for name, trait in traits.items() if not isinstance(trait, LengthTrait | LanguageTrait)
        }
        self._read: dict[str, _Read] = {}

    def show(self, votes: Sequence[Comparison], foretold: Mapping[str, Surprise]) -> None:
        """Of these the newest MOST: in a replay that is full they lie in no order. `foretold` are the new ones."""
        newest = sorted(votes, key=lambda vote: vote.created_ms)[-MOST:]
        self._read = {
            vote.event_id: self._read.get(vote.event_id) or self._look(vote, foretold.get(vote.event_id))
            for vote in newest
        }

    def by_word(self) -> list[Judged]:
        """By the words that stand in each answer."""
        return [read.words for read in self._read.values()]

    def by_trait(self) -> list[Judged]:
        """By the declared traits that each answer has. An answer is long by the median of all of them."""
        typical = statistics.median([length for read in self._read.values() for length in read.lengths] or [0])
        return [self._judged(read, typical) for read in self._read.values()]

    def by_segment(self) -> list[Foretold]:
        """By where each vote belongs, of those that were foretold."""
        read = self._read.values()
        return [Foretold(segments=vote.segments, right=vote.right) for vote in read if vote.right is not None]

    def _look(self, vote: Comparison, surprise: Surprise | None) -> _Read:
        prompt = self._decode(vote.prompt_token_ids)
        texts = [self._decode(candidate.token_ids) for candidate in vote.candidates]
        said = [[*map(sys.intern, words(text))] for text in texts]
        shown = [Seen(prompt=prompt, text=text, live=text, typical=0.0) for text in texts]
        return _Read(
            Judged.of(vote.person, said, vote.ranks),
            vote.ranks,
            tuple(map(len, said)),
            tuple(frozenset(name for name, trait in self._others.items() if trait.has(seen)) for seen in shown),
            _segments(vote, prompt, texts),
            None if surprise is None else surprise.right,
        )

    def _judged(self, read: _Read, typical: float) -> Judged:
        long = [[n for n, trait in self._lengths.items() if trait.long(length, typical)] for length in read.lengths]
        traits = [[*others, *lengths] for others, lengths in zip(read.traits, long, strict=True)]
        return Judged.of(read.words.person, traits, read.ranks)


def _segments(vote: Comparison, prompt: str, texts: Sequence[str]) -> dict[str, str]:
    """No division has more than some tens of names but `key`, whose names are the ids of API keys."""
    upto = next((f"up to {most} tokens" for most in LENGTHS if len(vote.prompt_token_ids) <= most), "more tokens")
    return {
        # What an operator has every prompt begin with is in a language of its own.
        "language": language(" ".join(texts)) or language(prompt) or "unknown",
        "conversation": upto,
        "asked": "correction" if vote.correction else f"{len(texts)} answers",
        "notes": "with" if vote.assisted else "without",
        "objective": vote.objective or "first",
        "key": vote.key_id or "none",
    }
