"""A judge's TOML file.

url = "http://127.0.0.1:9000/v1"
model = "judge"
principles = ["Prefer the answer that is correct.", "Prefer the answer that does no harm."]
"""

import tomllib
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import Field, StringConstraints, model_validator

from rlhf_online.config.base import Objective, Positive, Section
from rlhf_online.config.explain import explained
from rlhf_online.config.given import Given
from rlhf_online.errors import ConfigError, InvalidInput

Principle = Annotated[str, StringConstraints(min_length=1, max_length=2000)]


class JudgeSettings(Section):
    """Who is asked, by what, and how much."""

    url: str = Field(
        pattern=r"^(https?://|unix:/)",
        description="An OpenAI-compatible endpoint, up to /v1; 'unix:/path' of the engine's own socket.",
    )
    model: str = Field(min_length=1, description="The model's name there.")
    key_file: Path | None = Field(default=None, description="A file that holds the endpoint's API key.")
    principles: tuple[Principle, ...] = Field(min_length=1, description="For each pair one of them is drawn.")
    objective: Objective | None = Field(default=None, description="What is judged; by default the first objective.")
    least_confidence: float = Field(default=0.7, ge=0.5, lt=1, description="A label must be so probable.")
    labels_per_minute: float = Field(default=60.0, gt=0, description="Pairs asked about a minute, at most.")
    max_tokens: Positive = Field(default=1_000_000, description="Tokens of a run, prompts and answers, at most.")
    prompt_price: float = Field(default=0.0, ge=0, description="Of a million tokens of prompts, in any currency.")
    answer_price: float = Field(default=0.0, ge=0, description="Of a million tokens of answers.")
    max_cost: float = Field(
        default=0.0, ge=0, description="What a day (UTC) may cost, over all runs on a state folder; 0: no bound."
    )
    timeout_s: float = Field(default=30.0, gt=0, description="How long a reply may take.")
    tries: Positive = Field(default=3, description="How often a question is asked that was not answered.")

    @model_validator(mode="after")
    def _prices(self) -> "JudgeSettings":
        if self.max_cost and not (self.prompt_price or self.answer_price):
            raise ValueError("max_cost needs prompt_price and answer_price: without prices nothing costs anything")
        return self

    def cost(self, prompt_tokens: int, answer_tokens: int) -> float:
        return (self.prompt_price * prompt_tokens + self.answer_price * answer_tokens) / 1e6

    def key(self) -> str:
        """The endpoint's, "" without. Raises InvalidInput."""
        if self.key_file is None:
            return ""
        try:
            key = self.key_file.read_text().strip()
        except (OSError, ValueError) as error:
            raise InvalidInput(f"key_file: {self.key_file} cannot be read: {_why(error)}") from error
        if not (key.isascii() and key.isprintable()):
            raise InvalidInput(f"key_file: {self.key_file} holds more than one line of printable ASCII: that is no key")
        return key


Kind = TypeVar("Kind", bound=JudgeSettings)


def read(path: Path, kind: type[Kind]) -> Kind:
    """Raises ConfigError, naming the file and the setting."""
    try:
        values = tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {_why(error)}") from error
    except ValueError as error:
        raise ConfigError(f"{path}: it is no TOML: {error}") from error
    with explained([Given(str(path), values, is_file=True)], kind):
        return kind.model_validate(values)


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
