"""Who calls the service that is fuzzed: people and keys that may, and every kind of those that may not.

What a caller may is known here, and not asked of the service: an operation's role is the table's, and whoever has
another must be refused.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from rlhf_online.end_users import HEADER, LONGEST_S, SKEW_S, sign
from services.chat.api.operation import Operation
from tests.support.api_keys import SECRETS, TOKENS

Headers = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """`roles`: what it may; none at all for one that is not known. `person`: whose votes and conversations it sees.

    `headers` is called for each request, since a signature holds for a while.
    """

    name: str
    headers: Callable[[], Headers]
    roles: frozenset[str] = frozenset()
    person: str = ""

    def refusal(self, operation: Operation) -> int | None:
        """The status by which the operation must refuse it."""
        if operation.requires == "public" or "operator" in self.roles or operation.requires in self.roles:
            return None
        return 403 if self.roles else 401


def credentials(operator_token: str) -> list[Credential]:
    """The first two are people who chat and vote; of the rest each is another kind."""
    both = frozenset({"chat", "feedback"})
    later = LONGEST_S + SKEW_S
    return [
        *(_signed(name, lambda name=name: sign(SECRETS["backend"], name), both, name) for name in ("ann", "bob")),
        Credential(
            name="operator.token",
            headers=lambda: _bearer(operator_token),
            roles=frozenset({"operator"}),
            person="operator.token",
        ),
        *(
            Credential(name=role, headers=lambda role=role: _bearer(TOKENS[role]), roles=frozenset({role}), person=role)
            for role in ("chat", "feedback", "read", "operator")
        ),
        _signed("a clock behind", lambda: sign(SECRETS["backend"], "ann", lifetime_s=-SKEW_S / 2), both, "ann"),
        _signed("a clock ahead", lambda: sign(SECRETS["backend"], "ann", lifetime_s=later - SKEW_S / 2), both, "ann"),
        _signed("a clock far behind", lambda: sign(SECRETS["backend"], "ann", lifetime_s=-2 * SKEW_S)),
        _signed("a clock far ahead", lambda: sign(SECRETS["backend"], "ann", lifetime_s=later + SKEW_S)),
        _signed("another backend's signature", lambda: sign(SECRETS["another shop"], "ann")),
        _signed("another name under the signature", lambda: "Ym9i" + sign(SECRETS["backend"], "ann")[4:]),
        _signed("no signature", lambda: ""),
        _signed("half a signature", lambda: sign(SECRETS["backend"], "ann")[:-9]),
        _signed("a signature of nothing", lambda: ".."),
        Credential(name="a name unasked", headers=lambda: {**_bearer(TOKENS["chat"]), HEADER: "ann"}),
        *(
            Credential(name=kind, headers=lambda kind=kind: _bearer(TOKENS[kind]))
            for kind in ("none", "unknown", "expired", "revoked")
        ),
        Credential(name="no bearer", headers=lambda: {"Authorization": f"Basic {TOKENS['operator']}"}),
        Credential(name="a long key", headers=lambda: _bearer(TOKENS["chat"] + "A" * 4096)),
    ]


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} if token else {}


def _signed(name: str, value: Callable[[], str], roles: frozenset[str] = frozenset(), person: str = "") -> Credential:
    return Credential(
        name=name, headers=lambda: {**_bearer(TOKENS["backend"]), HEADER: value()}, roles=roles, person=person
    )
