"""Which language a text is in, roughly: by its script, and where that is Latin by the commonest words of six languages.

Enough to see that answers came in another language than before; not to name a language that is not listed.
"""

import re
import unicodedata
from collections import Counter

from rlhf_online.texts.words import words

COMMON = {
    "en": "the of and to in is that it for was on are with this you be have not but what",
    "de": "der die das und ist nicht ein eine zu den mit von sie ich auf für sich auch im es",
    "fr": "le la les des est et une pas que dans pour vous qui sur du je au plus avec ce",
    "es": "el los las es una que en por con para no se del su como más lo al pero está",
    "it": "il gli che è una non per con sono del della si di le ma come anche questo nel più",
    "pt": "os as que é uma não para com do da em no na se por mais como dos você ao",
}
_BY_WORD = {name: frozenset(text.split()) for name, text in COMMON.items()}
_LEAST = 3
"""Common words, or letters of a script, that tell."""


def language(text: str) -> str | None:
    """ "en", "de", …, or the script's name ("CYRILLIC", "CJK", …); None where it cannot be told.

    "JAPANESE" are its three scripts together, since the commonest of them changes from answer to answer.
    """
    letters = Counter(unicodedata.name(sign, "?").split()[0] for sign in re.findall(r"[^\W\d_]", text[:2000]))
    kana = letters["HIRAGANA"] + letters["KATAKANA"]
    if kana > letters["CJK"] / 10:
        letters["JAPANESE"] = sum(letters.pop(script, 0) for script in ("HIRAGANA", "KATAKANA", "CJK"))
    script, count = letters.most_common(1)[0] if letters else ("", 0)
    if script != "LATIN":
        return script if count >= _LEAST else None
    said = words(text[:2000])
    hits = sorted(((sum(word in common for word in said), name) for name, common in _BY_WORD.items()), reverse=True)
    (most, name), (next_most, _) = hits[:2]
    return name if most >= _LEAST and most > next_most else None
