"""Of which kind of version a request speaks."""

import re
from typing import Any, Literal

from pydantic import Field

from rlhf_online.versions.manifest import AUDIENCE
from services.chat.bodies.validation import Mistake


class Kinds:
    """Some of everybody's, and the policies of audiences."""

    def __init__(self, *everybodys: Literal["policy", "reward"]) -> None:
        self._pattern = re.compile("|".join((*everybodys, rf"policy\.{AUDIENCE.pattern}")))
        self._expected = ", ".join((*everybodys, "or policy.NAME of an audience"))

    def check(self, value: str) -> str:
        """Raises Mistake for another kind."""
        if not self._pattern.fullmatch(value):
            raise Mistake(f"expected {self._expected}")
        return value

    def field(self, description: str) -> Any:
        """A request's field, which is everybody's policy by default."""
        schema: dict[str, Any] = {"pattern": f"^({self._pattern.pattern})$"}
        return Field(default="policy", description=description, json_schema_extra=schema)
