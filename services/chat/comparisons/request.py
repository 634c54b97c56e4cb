"""What a comparison asks for: answers to one prompt, by the live version or by several that are named."""

from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from services.chat.bodies.validation import Array, AtMost, Expected, Integer, Mistake, Model, Within
from services.chat.completions.chat_request import Message
from services.chat.completions.sampling_request import INT64, TokenLimit
from services.chat.completions.tools import Name

FEWEST, MOST = 2, 6
SAMPLED = ("messages", "max_tokens", "temperature", "top_p", "top_k", "min_p", "profile", "user", "conversation_id")
"""Fields that each answer's own request has."""


def _at_least_one(messages: list[Message]) -> list[Message]:
    if not messages:
        raise Mistake("expected at least one message, got none", code="empty_array")
    return messages


def _at_least_two(versions: list[str]) -> list[str]:
    if len(versions) == 1:
        raise Mistake(f"expected at least {FEWEST} names, got 1")
    return versions


class CompareRequest(Model):
    """Answers to one prompt, to be shown side by side without a word on who wrote which."""

    messages: Annotated[
        Array[Message], Expected("an array of messages"), AfterValidator(_at_least_one), Field(min_length=1)
    ] = Field(description="The conversation so far, at least one message.")
    n: Annotated[Integer, Within(FEWEST, MOST)] = Field(
        default=FEWEST, description="How many answers of the live version. Not with `versions`."
    )
    versions: Annotated[
        Array[Name], Expected("an array of names"), AtMost(MOST, "names"), AfterValidator(_at_least_two)
    ] = Field(
        default=[],
        description="Names that `/v1/models` lists, one answer each; by default the live version's are, and of two one "
        "is the canary's while there is one.",
    )
    stream: bool = Field(default=False, description="Send the answers as server-sent events, as they are written.")
    max_tokens: TokenLimit = Field(default=None, description="Token limit of an answer; -1 is the service's own.")
    temperature: Annotated[float, Within(0.0, 2.0)] = Field(default=1.0, description="0 is greedy.")
    top_p: Annotated[float, Within(0.0, 1.0)] = Field(default=1.0, description="Nucleus mass, more than 0.")
    top_k: Annotated[Integer, Within(-1, 2**31 - 1)] = Field(
        default=0, description="Largest number of candidates; 0 and -1 keep all."
    )
    min_p: Annotated[float, Within(0.0, 1.0)] = Field(
        default=0.0, description="Smallest probability relative to the best candidate."
    )
    seed: Annotated[Integer, Within(-INT64, INT64 - 1 - MOST)] | None = Field(
        default=None, description="For repeatable sampling: the answer of the i-th writer has the seed `seed` + i."
    )
    profile: Name = Field(
        default="",
        description="The audience whose adapter writes all answers; by default nobody's in particular. Not with "
        "`versions`.",
    )
    user: Name = Field(default="", description="The person; only a keyed hash of it is kept.")
    conversation_id: Name = Field(default="", description="The conversation; by default a new one.")

    @model_validator(mode="after")
    def _different(self) -> "CompareRequest":
        if self.versions and "n" in self.model_fields_set:
            raise Mistake("n is for answers of the live version, each of `versions` writes one: send one of the two")
        if self.versions and self.profile:
            message = "profile names whose adapter answers, and versions who else: send one of the two"
            raise Mistake(message, param="profile")
        if self.temperature == 0 and len(set(self.writers)) < len(self.writers):
            message = "expected more than 0: at temperature 0 all answers of one version are the same"
            raise Mistake(message, param="temperature")
        return self

    @property
    def writers(self) -> list[str]:
        """The model that each answer asks for; "" is the live version."""
        return self.versions or [""] * self.n
