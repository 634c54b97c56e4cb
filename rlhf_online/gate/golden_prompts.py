"""Prompts with expectations that an operator wrote down: a TOML file, `[[prompt]]` each.

    [[prompt]]
    name = "capital"
    messages = [{ role = "user", content = "What is the capital of France?" }]
    contains = ["Paris"]                # all of them, in any case
    not_contains = ["Berlin"]           # none of them
    regex = '(?i)\\bparis\\b'             # somewhere in the answer
    not_regex = '^\\s*[-*]'
    max_words = 20
    min_words = 1

Regular expressions are Rust's: their time is linear in the length of the answer, whatever they are, so that none can
keep the trainer from its work; look-around and back-references are refused with the file.
"""

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, field_validator, model_validator
from pydantic_core import PydanticCustomError

from rlhf_online.config import Section
from rlhf_online.config.explain import explained
from rlhf_online.config.given import Given
from rlhf_online.errors import ConfigError
from rlhf_online.texts.patterns import Regex, found
from rlhf_online.texts.words import words

MOST = 500
"""Prompts in a file: each is answered by both versions for every candidate."""

Words = Annotated[str, StringConstraints(min_length=1, max_length=1000)]


def _mistake(what: str) -> PydanticCustomError:
    """Of an entry as a whole."""
    return PydanticCustomError("golden", "{what}", {"what": what, "at": ""})


class GoldenMessage(Section):
    role: Literal["system", "user", "assistant"] = Field(description="Who says it.")
    content: str = Field(min_length=1, max_length=100_000, description="What.")


class GoldenPrompt(Section):
    """A prompt, and what its answer must be like: one expectation or more."""

    name: Words = Field(max_length=100, description="By which objections and reports name it.")
    messages: tuple[GoldenMessage, ...] = Field(min_length=1, description="The conversation; the last one asks.")
    contains: tuple[Words, ...] = Field(default=(), description="All of them stand in the answer, in any case.")
    not_contains: tuple[Words, ...] = Field(default=(), description="None of them does.")
    regex: Regex | None = Field(default=None, description="Matches somewhere in the answer.")
    not_regex: Regex | None = Field(default=None, description="Matches nowhere in it.")
    max_words: int | None = Field(default=None, ge=0, description="Words of the answer at most.")
    min_words: int | None = Field(default=None, ge=1, description="Words of the answer at least.")

    @field_validator("messages")
    @classmethod
    def _asks(cls, messages: tuple[GoldenMessage, ...]) -> tuple[GoldenMessage, ...]:
        if messages[-1].role == "assistant":
            raise ValueError("the last message is the assistant's: there is nothing to answer")
        return messages

    @model_validator(mode="after")
    def _expects(self) -> "GoldenPrompt":
        expected = (self.contains, self.not_contains, self.regex, self.not_regex, self.max_words, self.min_words)
        if all(value in ((), None) for value in expected):
            raise _mistake("it expects nothing: give contains, not_contains, regex, not_regex, max_words or min_words")
        if self.max_words is not None and (self.min_words or 0) > self.max_words:
            raise _mistake("max_words is less than min_words: no answer has both")
        return self

    def failures(self, answer: str) -> Iterator[str]:
        """What the answer is not, in words; nothing if it passes."""
        text, count = answer.casefold(), len(words(answer))
        for each in self.contains:
            if each.casefold() not in text:
                yield f"does not contain {each!r}"
        for each in self.not_contains:
            if each.casefold() in text:
                yield f"contains {each!r}"
        if self.regex is not None and not found(self.regex, answer):
            yield "regex does not match"
        if self.not_regex is not None and found(self.not_regex, answer):
            yield "not_regex matches"
        if self.max_words is not None and count > self.max_words:
            yield f"has {count} words, more than {self.max_words}"
        if self.min_words is not None and count < self.min_words:
            yield f"has {count} words, fewer than {self.min_words}"


def read_golden(path: Path | None) -> tuple[GoldenPrompt, ...]:
    """The prompts in the file; none without one. Raises ConfigError, which names the file, the entry and the key."""
    if path is None:
        return ()
    try:
        values = tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"gate.golden.file: {path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise ConfigError(f"gate.golden.file: {path} is no TOML: {error}") from error
    entries = values.pop("prompt", None)
    if values:
        raise ConfigError(f"{path}: {next(iter(values))} is no key of this file: it holds [[prompt]] tables alone")
    if not isinstance(entries, list) or not 0 < len(entries) <= MOST:
        count = len(entries) if isinstance(entries, list) else 0
        raise ConfigError(f"{path}: expected 1 to {MOST} prompts, a table [[prompt]] each, got {count or 'none'}")
    prompts: dict[str, GoldenPrompt] = {}
    for number, entry in enumerate(entries, 1):
        given = Given(f"{path}, [[prompt]] {number}", entry, is_file=True)
        with explained([given], GoldenPrompt):
            prompt = GoldenPrompt.model_validate(entry)
        if prompt.name in prompts:
            raise ConfigError(f"{given.place}: name: another prompt has the name {prompt.name!r}, too")
        prompts[prompt.name] = prompt
    return tuple(prompts.values())
