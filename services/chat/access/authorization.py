"""Who calls, and whether they may: asked once an operation, by both transports alike.

no keys (loopback only)   anybody chats, votes and reads, under the name that a body gives
keys                      who calls is the key's owner, or whom the backend's signature names; a body's `user` is
                          taken and means nothing
the operator's token      may all, with keys and without
"""

import hmac
from collections.abc import Mapping

from rlhf_online.end_users import HEADER, SignatureRefused, verify
from rlhf_online.errors import ConfigError, SecretLost
from rlhf_online.keys import Key
from rlhf_online.state import SHORTEST_SECRET, PersonHash
from services.chat.access.caller import ANYBODY, NOBODY, Caller, Requires
from services.chat.access.keys import Keys, unauthenticated
from services.chat.access.origins import is_loopback
from services.chat.bodies.api_error import ApiError

OPERATOR = "operator"


class Authorization:
    """Knows the keys and the operator's credential."""

    def __init__(self, keys: Keys, operator_token: str, person_hash: PersonHash) -> None:
        """Raises SecretLost for a token that could be guessed: an empty one would let everybody in."""
        if len(operator_token.strip()) < SHORTEST_SECRET:
            raise SecretLost(f"the operator's token has fewer than {SHORTEST_SECRET} characters: write more into it")
        self._keys = keys
        self._token = operator_token.encode()
        self._person_hash = person_hash

    def check_host(self, host: str) -> None:
        """Raises ConfigError for an address that others reach while there are no keys."""
        if not self._keys.required and not is_loopback(host):
            raise ConfigError(
                f"host {host!r} opens the service to others, and there are no keys: anybody could chat, and vote under "
                "any name as often as they like. Make one with `rlhf-online keys create --owner NAME`, or listen on "
                "127.0.0.1"
            )

    def admit(self, requires: Requires, headers: Mapping[str, str]) -> Caller:
        """Who calls an operation. `headers`: HTTP's, or gRPC's metadata. Raises ApiError, 401 or 403."""
        if requires == "public":
            return NOBODY
        caller = self._caller(_bearer(headers), headers.get(HEADER.lower(), ""))
        if caller.may(requires):
            return caller
        if caller.key_id:
            raise ApiError(
                f"key {caller.key_id} has the roles {', '.join(sorted(caller.roles))}, and this needs the role "
                f"{requires}: `rlhf-online keys create --role {requires}`",
                status=403,
                type="permission_error",
                code="role_needed",
            )
        raise unauthenticated(
            "the operator's credential is needed: Authorization: Bearer <content of operator.token in the state "
            "folder>",
            "invalid_credential",
        )

    def _caller(self, token: str, end_user: str) -> Caller:
        if hmac.compare_digest(token.encode(errors="replace"), self._token):
            caller = self._operator()
        elif not self._keys.required:
            caller = ANYBODY
        else:
            key = self._keys.find(token)
            person = self._person_hash(_speaker(key, end_user))
            return Caller(roles=frozenset(key.roles), key_id=key.id, owner=key.owner, person=person)
        if end_user:
            raise _unsigned(f"{HEADER} needs a key that was made with `rlhf-online keys create --signs`")
        return caller

    def _operator(self) -> Caller:
        """By the credential in the state folder."""
        named = self._keys.required
        return Caller(
            roles=frozenset({"operator"}),
            key_id=OPERATOR,
            owner=OPERATOR,
            person=self._person_hash(OPERATOR) if named else "",
            names_itself=not named,
        )


def _speaker(key: Key, end_user: str) -> str:
    """The name of the person. End users are their owner's own: the same name under another owner is somebody else."""
    if not key.signing_secret:
        if end_user:
            raise _unsigned(f"key {key.id} has no signing secret to check {HEADER} with: make one with --signs")
        return key.owner
    if not end_user:
        raise _unsigned(f"key {key.id} speaks for end users alone: sign a name in {HEADER}", "missing_signature")
    try:
        return f"{key.owner}\n{verify(key.signing_secret, end_user)}"
    except SignatureRefused as error:
        raise _unsigned(str(error), error.code) from error


def _unsigned(message: str, code: str = "invalid_signature") -> ApiError:
    return unauthenticated(message, code)


def _bearer(headers: Mapping[str, str]) -> str:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""
