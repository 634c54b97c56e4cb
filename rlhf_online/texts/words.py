"""What is counted of answers: words, phrases, n-grams of tokens. Pure.

Words are runs of letters and digits, in lower case; in writing without spaces (Chinese, Japanese) each sign is one.
"""

import random
import re
from collections.abc import Hashable, Iterable, Sequence
from functools import lru_cache
from itertools import islice

_SIGNS = "\u3040-\u30ff\u3400-\u9fff"
_LETTER = rf"[^\W_{_SIGNS}]"
"""Of a word that has a beginning and an end: signs stand beside each other without."""
_WORD = re.compile(rf"[{_SIGNS}]|{_LETTER}+(?:['’]{_LETTER}+)*")


def words(text: str) -> list[str]:
    """ "I’m here!" → ["i'm", "here"]."""
    return [word.replace("’", "'") for word in _WORD.findall(text.casefold())]


def ngrams(items: Sequence[Hashable], n: int) -> list[tuple[Hashable, ...]]:
    """All runs of `n` items, in order."""
    return list(zip(*(islice(items, start, None) for start in range(n)), strict=False))


def repeated_share(items: Sequence[Hashable], n: int) -> float:
    """1 − different n-grams / n-grams of one answer: seq-rep-n of Welleck et al. (2020, arXiv 1908.04319, eq. 7).

    0 for an answer that is too short to repeat one.
    """
    found = ngrams(items, n)
    return 1 - len(set(found)) / len(found) if found else 0.0


def distinct(answers: Iterable[Sequence[Hashable]], n: int, most: int) -> float:
    """Different n-grams / n-grams over all answers, distinct-n of Li et al. (2016, arXiv 1510.03055).

    The share falls as the number of n-grams grows: so that two sets can be compared at one number, `most` are drawn.
    """
    found = [gram for items in answers for gram in ngrams(items, n)]
    if len(found) > most:
        found = random.Random(0).sample(found, most)
    return len(set(found)) / len(found) if found else 0.0


@lru_cache(maxsize=512)
def phrase(text: str) -> re.Pattern[str]:
    """Finds the words of `text` in a row, whatever case, space and kind of apostrophe, never in the middle of a word.

    Its time is linear in the text's length: nothing in it repeats what may match in two ways.
    """
    parts = [re.escape(part).replace("'", "['’]") for part in text.replace("’", "'").split()]
    body = r"\s+".join(parts)
    before = rf"(?<!{_LETTER})" if re.match(_LETTER, text) else ""
    after = rf"(?!{_LETTER})" if re.search(_LETTER + r"\Z", text) else ""
    return re.compile(before + body + after, re.IGNORECASE)


def occurrences(text: str, phrases: Iterable[str]) -> int:
    """How often any of the phrases stands in the text."""
    return sum(len(phrase(item).findall(text)) for item in phrases)


def without(text: str, phrases: Iterable[str]) -> str:
    """The text without the phrases and the punctuation that follows each."""
    for item in phrases:
        text = re.sub(phrase(item).pattern + r"[,.!:;]?\s*", " ", text, flags=re.IGNORECASE)
    return re.sub(r"[ \t]{2,}", " ", text).strip()
