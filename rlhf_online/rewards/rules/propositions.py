"""What can be said of an answer: features in [0, 1], the same for the same text on every machine. Pure.

[propositions.short]
length = { unit = "words", max = 60, soft = 20 }
"""

import json
import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, field_validator, model_validator
from pydantic_core import PydanticCustomError

from rlhf_online.config.base import Section
from rlhf_online.rewards.rules import schemas
from rlhf_online.texts.languages import COMMON, language
from rlhf_online.texts.patterns import BoundedRegex, found
from rlhf_online.texts.words import ngrams, occurrences, words

Phrase = Annotated[str, StringConstraints(min_length=1, max_length=1000)]
Side = Literal["answer", "prompt"]
Format = Literal["json", "one_line", "bullets", "numbered", "heading", "table", "code"]
CALL, END_OF_CALL = "<tool_call>", "</tool_call>"
MOST_LENGTH = 1_000_000_000
LINES: dict[Format, re.Pattern[str]] = {
    "bullets": re.compile(r"^[ \t]*[-*•][ \t]+\S", re.MULTILINE),
    "numbered": re.compile(r"^[ \t]*\d+[.)][ \t]+\S", re.MULTILINE),
    "heading": re.compile(r"^#{1,6}[ \t]+\S", re.MULTILINE),
    "table": re.compile(r"^\|?(?:[ \t]*:?-+:?[ \t]*\|)+[ \t]*(?::?-+:?[ \t]*)?$", re.MULTILINE),
    "code": re.compile(r"^[ \t]*```", re.MULTILINE),
}
ANY_TOOL = "*"


@dataclass(frozen=True, slots=True)
class Exchange:
    """A prompt as the model reads it, without special tokens, and its answer; `finished`: it ended by itself."""

    prompt: str
    answer: str
    finished: bool = True


class Length(Section):
    """1 between `min` and `max`; outside it falls to 0 over `soft` units, at once where that is 0."""

    unit: Literal["words", "characters", "lines"] = Field(default="words", description="What is counted.")
    min: int = Field(default=0, ge=0, le=MOST_LENGTH, description="At least so many.")
    max: int | None = Field(default=None, ge=0, le=MOST_LENGTH, description="At most so many.")
    soft: int = Field(default=0, ge=0, le=MOST_LENGTH, description="How far outside it falls to 0.")

    @model_validator(mode="after")
    def _can_hold(self) -> "Length":
        if self.max is not None and self.min > self.max:
            raise mistake(f"min is {self.min} and max {self.max}: no answer has both")
        if not self.min and self.max is None:
            raise mistake("it bounds nothing: give min, max or both")
        return self

    def feature(self, text: str) -> float:
        match self.unit:
            case "words":
                count = len(words(text))
            case "characters":
                count = len(text)
            case "lines":
                count = len(text.splitlines())
        outside = max(self.min - count, 0 if self.max is None else count - self.max, 0)
        return max(0.0, 1 - outside / (self.soft + 1)) if outside else 1.0


class Proposition(Section):
    """One of its keys says what; `of` which text is looked at."""

    regex: BoundedRegex | None = Field(default=None, description="A regular expression of Rust's matches somewhere.")
    words: tuple[Phrase, ...] = Field(default=(), description="Any of these words or phrases stands in it.")
    length: Length | None = Field(default=None, description="It is so long: { unit, min, max, soft }.")
    format: Format | None = Field(default=None, description="It is JSON, one line, or has bullets, a table, ….")
    json_schema: dict[str, Any] | None = Field(default=None, description="It is JSON that this schema allows.")
    language: str | None = Field(default=None, description="It is in this language: en, de, …, or a script's name.")
    prompt_ngrams: int | None = Field(
        default=None, ge=1, le=20, description="The share of its runs of so many words that stand in the prompt."
    )
    calls: str | None = Field(default=None, min_length=1, description="It calls the tool of this name; any: '*'.")
    finished: Literal[True] | None = Field(default=None, description="It ended by itself.")
    of: Side = Field(default="answer", description="The answer, or the prompt: for a rule that holds only `when`.")

    @field_validator("json_schema", mode="before")
    @classmethod
    def _schema(cls, value: Any) -> Any:
        return schemas.checked(value)

    @field_validator("language")
    @classmethod
    def _language(cls, value: str | None) -> str | None:
        if value is not None and value not in COMMON and not value.isupper():
            known = ", ".join(COMMON)
            raise ValueError(f"expected one of {known}, or a script's name as Unicode has it, such as CYRILLIC")
        return value

    @model_validator(mode="after")
    def _says_one_thing(self) -> "Proposition":
        said = self.model_fields_set - {"of"}
        if len(said) != 1:
            known = ", ".join(name for name in type(self).model_fields if name != "of")
            got = ", ".join(sorted(said)) or "none"
            raise mistake(f"expected exactly one of {known}, got {got}")
        if self.of == "prompt" and said & {"prompt_ngrams", "calls", "finished"}:
            raise mistake(f"{said.pop()} is of an answer: leave out of = 'prompt'")
        return self

    def feature(self, exchange: Exchange) -> float:
        """In [0, 1]."""
        text = exchange.answer if self.of == "answer" else exchange.prompt
        if self.length is not None:
            return self.length.feature(text)
        if self.prompt_ngrams is not None:
            return copied_share(exchange, self.prompt_ngrams)
        return float(self._holds(text, exchange.finished))

    def _holds(self, text: str, finished: bool) -> bool:
        if self.regex is not None:
            return found(self.regex, text)
        if self.words:
            return occurrences(text, self.words) > 0
        if self.format is not None:
            return has_format(text, self.format)
        if self.json_schema is not None:
            return schemas.allows(self.json_schema, text)
        if self.language is not None:
            return language(text) == self.language
        if self.calls is not None:
            return any(self.calls in (ANY_TOOL, name) for name in called(text))
        return finished


def mistake(what: str, at: str = "") -> PydanticCustomError:
    """Of a table as a whole; `at` is its dotted name where the message gives it itself."""
    return PydanticCustomError("rules", "{what}", {"what": what} | ({"at": at} if at else {}))


def has_format(text: str, form: Format) -> bool:
    """JSON: the whole answer is an object or a list, alone or in one code fence. The others: somewhere in it."""
    match form:
        case "json":
            try:
                return isinstance(schemas.json_of(text), dict | list)
            except schemas.NoJson:
                return False
        case "one_line":
            return bool(text.strip()) and "\n" not in text.strip()
        case _:
            return bool(LINES[form].search(text))


def copied_share(exchange: Exchange, n: int) -> float:
    """The share of the answer's n-grams of words that stand in the prompt; 0 for an answer of fewer than n words."""
    said = ngrams(words(exchange.answer), n)
    asked = set(ngrams(words(exchange.prompt), n))
    return sum(gram in asked for gram in said) / len(said) if said else 0.0


def called(text: str) -> list[str]:
    """The names of the tools that the answer calls as Hermes' and Qwen's templates write it:
    <tool_call>{"name": …, "arguments": …}</tool_call>."""
    names = []
    at = 0
    while (begins := text.find(CALL, at)) >= 0 and (ends := text.find(END_OF_CALL, begins)) >= 0:
        body, at = text[begins + len(CALL) : ends], ends + len(END_OF_CALL)
        try:
            call = json.loads(body)
        except (ValueError, RecursionError):
            continue
        if isinstance(call, dict) and isinstance(call.get("name"), str):
            names.append(call["name"])
    return names
