"""Who makes a call: what each handler of both transports is told, and what votes, conversations and limits belong to.

A transport sets `CALLER` before it runs a handler, and nothing below the handlers reads it: they hand the caller on as
an argument. It is a context variable for both transports, since the signature of a gRPC method has no room for more.
"""

from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Literal

from pydantic import Field
from typing_extensions import TypedDict

from rlhf_online.keys import Role
from rlhf_online.state import PersonHash
from services.chat.bodies.documented import documented
from services.chat.bodies.validation import Model

Requires = Role | Literal["public"]


class PersonQuery(Model):
    """Who asks, where the service has no keys."""

    user: str = Field(default="", max_length=512, description="The person; only a keyed hash of it is kept.")


@documented
class CallerTold(TypedDict):
    """Who calls, by the key that was sent."""

    roles: list[Role]
    """What it may; "operator" may all."""
    key_id: str
    """The key's id; "operator" for the credential in the state folder, empty without keys."""
    owner: str
    """Whose key it is; empty without keys."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who calls, as far as it was proven.

    `roles`: what it may. `key_id`, `owner`: of its key, "" without. `person`: the keyed hash of its name, as events
    carry it, "" for nobody. `names_itself`: the service has no keys, so a body says who speaks, and is believed.
    """

    roles: frozenset[Role]
    key_id: str = ""
    owner: str = ""
    person: str = ""
    names_itself: bool = False

    @property
    def acting(self) -> str:
        """As an operator, for what stands with what it changed: "operator KEY", or who has the state folder's token."""
        return "operator" if self.key_id in ("", "operator") else f"operator {self.key_id}"

    def may(self, requires: Requires) -> bool:
        """Whether the operation is open to it; an operator may all."""
        return requires == "public" or requires in self.roles or "operator" in self.roles

    def told(self) -> CallerTold:
        """To itself."""
        return {"roles": sorted(self.roles), "key_id": self.key_id, "owner": self.owner}

    def named(self, name: str, person_hash: PersonHash) -> "Caller":
        """The caller of a request whose body gives this name: somebody only where names in bodies are believed."""
        return replace(self, person=person_hash(name)) if self.names_itself else self


ANYBODY = Caller(roles=frozenset({"chat", "feedback", "read"}), names_itself=True)
"""Who calls a service that has no keys."""
NOBODY = Caller(roles=frozenset())
"""Who calls what is public: nobody asks."""

CALLER: ContextVar[Caller] = ContextVar("caller")
