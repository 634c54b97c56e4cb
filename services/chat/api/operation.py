"""A row of the table of operations (`operations`)."""

from dataclasses import dataclass
from typing import Any, Literal

from services.chat.access.caller import Requires
from services.chat.bodies.validation import Model


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """`name` is the HTTP handler's; `rpcs` are the gRPC methods that do the same.

    A request has a `body`, or many, one of `lines` a line, or neither. `response` is a typed dictionary, `stream` that
    of a server-sent event, or a media type. `errors` are the HTTP statuses with OpenAI's error as their body, but for
    500, which is always possible, and those that follow from `requires`; a status of `also` has the response as its
    body.
    """

    name: str
    summary: str
    method: Literal["GET", "POST", "PUT", "DELETE"]
    path: str
    requires: Requires
    response: Any
    body: type[Model] | None = None
    lines: type[Model] | None = None
    query: type[Model] | None = None
    rpcs: tuple[str, ...] = ()
    stream: Any = None
    errors: tuple[int, ...] = ()
    also: tuple[int, ...] = ()

    @property
    def statuses(self) -> tuple[int, ...]:
        """All errors but 500."""
        refused = () if self.requires == "public" else (401, 403)
        return tuple(sorted({*self.errors, *refused}))
