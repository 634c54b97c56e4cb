"""Who calls, and whether they may: asked once an operation, by both transports alike."""

import hmac
from collections.abc import Mapping
from dataclasses import replace

from rlhf_online.errors import SecretLost
from rlhf_online.state import SHORTEST_SECRET
from services.chat.access.caller import ANYBODY, Caller, Requires
from services.chat.bodies.api_error import ApiError

OPERATOR = replace(ANYBODY, roles=frozenset({"operator"}), key_id="operator", owner="operator")


class Authorization:
    """Knows the operator's credential."""

    def __init__(self, operator_token: str) -> None:
        """Raises SecretLost for a token that could be guessed: an empty one would let everybody in."""
        if len(operator_token.strip()) < SHORTEST_SECRET:
            raise SecretLost(f"the operator's token has fewer than {SHORTEST_SECRET} characters: write more into it")
        self._token = operator_token.encode()

    def admit(self, requires: Requires, headers: Mapping[str, str]) -> Caller:
        """Who calls an operation. `headers`: HTTP's, or gRPC's metadata. Raises ApiError for those who may not."""
        scheme, _, token = headers.get("authorization", "").partition(" ")
        given = token.strip().encode("utf-8", errors="replace")
        known = scheme.lower() == "bearer" and hmac.compare_digest(given, self._token)
        caller = OPERATOR if known else ANYBODY
        if not caller.may(requires):
            raise ApiError(
                "the operator's credential is needed: Authorization: Bearer <content of operator.token in the state "
                "folder>",
                status=401,
                type="authentication_error",
                code="invalid_credential",
            )
        return caller
