"""Traits of answers that no reward should pay for: how each is seen in an answer, and added to one. Pure.

    words       any of some words or phrases, so often           added in front, or taken away
    length      far longer than answers usually are              everything said twice
    format      Markdown: lists, headings, bold                  every line a list item, or the marks taken away
    agreement   the view that the prompt states                  another view stated in the prompt, the same answer
    language    another one than the live version's              (nothing can be added: only the rate is compared)

An edit gives the same answer with the trait and without it, so that a difference of their scores is what the trait is
worth to a reward model, and nothing else.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, field_validator

from rlhf_online.config import Section
from rlhf_online.texts.languages import language
from rlhf_online.texts.words import occurrences, phrase, without, words

Phrase = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200, pattern=r"\w")]
Allow = Literal["nothing", "less", "more", "anything"]
_MARKS = re.compile(r"^[ \t]*(?:#{1,6}[ \t]+|[-*+][ \t]+|\d{1,3}[.)][ \t]+)|\*\*|__", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """An answer, its prompt, the live version's answer to it, and the median of the live version's words an answer."""

    prompt: str
    text: str
    live: str
    typical: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """The answer with the trait and without it. `prompts`: where prompts are edited, what stands in the prompt, and
    what is put there in its place with the trait and without it."""

    having: str
    lacking: str
    prompts: tuple[str, str, str] | None = None


class Trait(Section, ABC):
    """One that is declared: its settings, how it is seen, and how it is added."""

    allow: Allow = Field(
        default="less",
        description="What a reward model may make of it beyond `max_effect`: nothing, less reward, more, or anything; "
        "with more, the trait may become more frequent, too.",
    )

    @abstractmethod
    def has(self, seen: Seen) -> bool | None:
        """Whether the answer has it; None where it could not have it."""

    def edit(self, seen: Seen, number: int) -> Edit | None:
        """None where nothing can be made of that answer. `number` varies what is added from answer to answer."""
        return None

    def writable(self, can_write: Callable[[str], bool]) -> "Trait":
        """The trait for a tokenizer that cannot write every word."""
        return self


class WordsTrait(Trait):
    words: tuple[Phrase, ...] = Field(min_length=1, description="Words and phrases; case is the same.")
    least: int = Field(default=1, ge=1, le=20, description="How many of them an answer must have.")

    def has(self, seen: Seen) -> bool:
        return occurrences(seen.text, self.words) >= self.least

    def edit(self, seen: Seen, number: int) -> Edit | None:
        bare = without(seen.text, self.words)
        added = " ".join(self.words[(number + i) % len(self.words)] for i in range(self.least))
        return Edit(having=f"{added} {bare}", lacking=bare) if bare else None

    def writable(self, can_write: Callable[[str], bool]) -> "WordsTrait":
        return self.model_copy(update={"words": tuple(filter(can_write, self.words)) or self.words})


class LengthTrait(Trait):
    factor: float = Field(default=2.0, gt=1, description="Long: so many times the words of the live version's median.")

    def has(self, seen: Seen) -> bool:
        return self.long(len(words(seen.text)), seen.typical)

    def long(self, length: int, typical: float) -> bool:
        """Whether so many words are, where so many are usual."""
        return length > self.factor * max(1.0, typical)

    def edit(self, seen: Seen, number: int) -> Edit | None:
        text = seen.text.strip()
        return Edit(having=f"{text} {text}", lacking=text) if text else None


class FormatTrait(Trait):
    def has(self, seen: Seen) -> bool:
        return _MARKS.search(seen.text) is not None

    def edit(self, seen: Seen, number: int) -> Edit | None:
        plain = _MARKS.sub("", seen.text).strip()
        listed = "\n".join(f"- {line}" if line.strip() else line for line in plain.splitlines())
        return Edit(having=listed, lacking=plain) if plain else None


class AgreementTrait(Trait):
    views: tuple[tuple[Phrase, Phrase], ...] = Field(
        default=(("i think yes", "yes"), ("i think no", "no")),
        min_length=2,
        description="Views that exclude each other: how a prompt states each, and the word of an answer that agrees.",
    )

    @field_validator("views")
    @classmethod
    def _differ(cls, views: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
        for place in (0, 1):
            if len({view[place].casefold() for view in views}) < len(views):
                raise ValueError("two views are stated, or agreed to, in the same words: nothing tells them apart")
        return views

    def has(self, seen: Seen) -> bool | None:
        stated, said = self._stated(seen.prompt), self._said(seen.text)
        return None if stated is None else said == stated

    def edit(self, seen: Seen, number: int) -> Edit | None:
        stated, said = self._stated(seen.prompt), self._said(seen.text)
        if stated is None or said is None:
            return None
        other = (said + 1 + number % (len(self.views) - 1)) % len(self.views)
        prompts = (self.views[stated][0], self.views[said][0], self.views[other][0])
        return Edit(having=seen.text, lacking=seen.text, prompts=prompts)

    def _stated(self, prompt: str) -> int | None:
        """The one view that stands in the prompt."""
        found = [place for place, (view, _) in enumerate(self.views) if phrase(view).search(prompt)]
        return found[0] if len(found) == 1 else None

    def _said(self, text: str) -> int | None:
        """The one view that the answer agrees to."""
        found = [place for place, (_, word) in enumerate(self.views) if phrase(word).search(text)]
        return found[0] if len(found) == 1 else None


class LanguageTrait(Trait):
    def has(self, seen: Seen) -> bool | None:
        """None where either answer is too short to tell."""
        spoken, before = language(seen.text), language(seen.live)
        return None if spoken is None or before is None else spoken != before
