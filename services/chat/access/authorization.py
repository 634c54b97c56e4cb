"""Who may call what: an operation that changes weights, or writes answers for the trainer, is the operator's."""

import hmac
from typing import Literal

from rlhf_online.errors import SecretLost
from rlhf_online.state import SHORTEST_SECRET
from services.chat.bodies.api_error import ApiError

Requires = Literal["operator"] | None


class Authorization:
    """Knows the operator's credential."""

    def __init__(self, operator_token: str) -> None:
        """Raises SecretLost for a token that could be guessed: an empty one would let everybody in."""
        if len(operator_token.strip()) < SHORTEST_SECRET:
            raise SecretLost(f"the operator's token has fewer than {SHORTEST_SECRET} characters: write more into it")
        self._token = operator_token.encode()

    def check(self, requires: Requires, header: str | None) -> None:
        """Raises ApiError unless `header` ("Authorization") holds what an operation requires."""
        if requires is None:
            return
        scheme, _, token = (header or "").partition(" ")
        given = token.strip().encode("utf-8", errors="replace")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given, self._token):
            raise ApiError(
                "the operator's credential is needed: Authorization: Bearer <content of operator.token in the state "
                "folder>",
                status=401,
                type="authentication_error",
                code="invalid_credential",
            )
