"""Tools that a model may call, and the calls in a conversation, as OpenAI's API has them.

Their shape is checked here; what else they hold (a schema's details, other makers' fields) goes to the engine as it is.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field

from services.chat.bodies.api_error import ApiError
from services.chat.bodies.validation import Array, AtMost, Expected, Mistake, Model

MAX_NAME = 512
MAX_TOOLS = 1024
CHOICES = ("none", "auto", "required")
CONSTRAINING_PARSERS = ("cohere_command3", "cohere_command4", "glm45", "glm47", "hf", "mistral")
"""Parsers of vLLM 0.32 that put a grammar over answers though the model may choose whether it calls, or that may do so.

Found by running each of them. Log-probs are then those of fewer tokens, and the policy cannot learn from them.
"""

Name = Annotated[str, Field(max_length=MAX_NAME)]


class Function(Model):
    """A function that may be called."""

    model_config = ConfigDict(extra="allow")

    name: Name = Field(description="Its name.")
    description: str | None = Field(default=None, description="What it does, for the model.")
    parameters: dict[str, Any] | None = Field(default=None, description="JSON schema of its arguments.")
    strict: bool | None = Field(default=None, description="Whether arguments must follow the schema.")


class Tool(Model):
    """A tool."""

    model_config = ConfigDict(extra="allow")

    type: Literal["function"] = Field(description="Functions are the only kind.")
    function: Function = Field(description="The function.")


class FunctionCall(Model):
    """A function with arguments."""

    model_config = ConfigDict(extra="allow")

    name: Name = Field(description="The function's name.")
    arguments: str = Field(description="The arguments: JSON, as the model wrote it.")


class ToolCall(Model):
    """A call that the assistant made."""

    model_config = ConfigDict(extra="allow")

    id: str = Field(description="What the tool's answer names.")
    type: Literal["function"] = Field(description="Functions are the only kind.")
    function: FunctionCall = Field(description="What was called.")


def _choice(value: str | dict[str, Any]) -> str | dict[str, Any]:
    match value:
        case str() if value in CHOICES:
            return value
        case {"type": "function", "function": {"name": str()}}:
            return value
        case _:
            raise Mistake('expected none, auto, required or {"type": "function", "function": {"name": …}}')


Tools = Annotated[Array[Tool], Expected("an array of objects"), AtMost(MAX_TOOLS, "items")]
ToolCalls = Annotated[Array[ToolCall], Expected("an array of objects")]
ToolChoice = Annotated[str | dict[str, Any], Expected("a string or an object", whole=True), AfterValidator(_choice)]


def check_tools(choice: str | dict[str, Any] | None, tools: list[Tool], parser: str) -> None:
    """Raises ApiError for a choice of none of the tools, and where the engine could not find the calls."""
    if choice == "none" or (choice is None and not tools):
        return
    named = choice["function"]["name"] if isinstance(choice, dict) else None
    names = {tool.function.name for tool in tools}
    if not tools or not (named is None or named in names):
        raise ApiError("tool_choice: expected the name of one of tools", param="tool_choice", code="invalid_value")
    if not parser:
        raise ApiError(
            "tools: this service was started without the setting engine.tool_call_parser, which says how its model "
            "writes calls; leave tools out, or send tool_choice: none",
            param="tools",
            code="tools_unavailable",
        )


def constrained(choice: str | dict[str, Any] | None, tools: list[Tool], parallel: bool | None, parser: str) -> bool:
    """Whether the engine lets an answer hold only some of the tokens, for the sake of its calls."""
    if not tools or choice == "none":
        return False
    strict = any(tool.function.strict for tool in tools)
    return choice not in (None, "auto") or strict or parallel is False or parser in CONSTRAINING_PARSERS
