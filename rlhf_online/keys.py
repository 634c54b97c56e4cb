"""API keys: who may call the chat service, as whom, and for how long. They are kept in one small file.

A key is `rlhf_<id>_<secret>`; the id finds its entry, and the entry holds the SHA-256 of the whole. The secret is 32
random bytes, so that nobody can try them all, and a slow hash, which makes guesses of passwords dear, would only make
each request dear. An entry that was revoked stays, so that whoever still uses the key is told so.

    {"keys": [{"id": "3f9a2c1e", "sha256": "…", "roles": ["chat", "feedback"], "owner": "ann", "created": "2026-…Z",
               "expires": null, "revoked": null, "signing_secret": ""}]}

`signing_secret` is what a backend signs the names of its end users with (`end_users`), and cannot be hashed: whoever
checks a signature needs it. So nobody but the owner and the group of the file may read it.
"""

import hashlib
import hmac
import os
import secrets
import stat
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from rlhf_online import locks
from rlhf_online.durable import make_folder, read_text, write_bytes
from rlhf_online.errors import FileDamaged, InvalidInput

Role = Literal["chat", "feedback", "read", "operator"]
LONGEST_NAME = 256


def _name(value: str) -> str:
    if not 1 <= len(value) <= LONGEST_NAME or not value.isprintable():
        raise PydanticCustomError("name", "expected 1 to {n} printable characters", {"n": LONGEST_NAME})
    return value


PREFIX = "rlhf_"
VARIABLE = "RLHF_KEYS"
"""Of the environment: more keys, written as in the file; they hold as long as the process."""
FOLDER_MODE, FILE_MODE = 0o700, 0o600
TOO_OPEN = 0o027
"""What nobody may do with the file: others anything, and its group write it."""
REMEDY = "bring it back from a backup, or make keys anew with `rlhf-online keys create`"


class Key(BaseModel):
    """An entry. `roles` are what it may, `owner` is who it speaks for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(pattern=r"^[0-9a-f]{8}$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", repr=False)
    roles: tuple[Role, ...] = Field(min_length=1)
    owner: Annotated[str, AfterValidator(_name)]
    created: AwareDatetime
    expires: AwareDatetime | None = None
    revoked: AwareDatetime | None = None
    signing_secret: str = Field(default="", pattern=r"^(|.{32,})$", repr=False)

    def is_of(self, token: str) -> bool:
        """Whether this is the entry of the key `token`: compared in constant time."""
        return hmac.compare_digest(self.sha256, _sha256(token))

    def expired(self, now: datetime) -> bool:
        return self.expires is not None and self.expires <= now


class KeyFile(BaseModel):
    """What the file holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    keys: tuple[Key, ...]


def in_force(path: Path) -> bool:
    """Whether a service that starts now asks for keys: whether there is the file, or the variable."""
    return path.exists() or VARIABLE in os.environ


def make(owner: str, roles: Sequence[str], *, expires: datetime | None = None, signs: bool = False) -> tuple[Key, str]:
    """A new entry and its key, which is kept nowhere. Raises InvalidInput."""
    name = secrets.token_hex(4)
    token = f"{PREFIX}{name}_{secrets.token_urlsafe(32)}"
    try:
        key = Key.model_validate(
            {
                "id": name,
                "sha256": _sha256(token),
                "roles": list(dict.fromkeys(roles)),
                "owner": owner,
                "created": datetime.now(UTC).replace(microsecond=0),
                "expires": expires,
                "signing_secret": secrets.token_urlsafe(32) if signs else "",
            }
        )
    except ValidationError as error:
        raise InvalidInput(_mistake(error)) from error
    return key, token


def id_of(token: str) -> str:
    """The id in a key; "" if it is none."""
    name, underscore, secret = token.removeprefix(PREFIX).partition("_")
    return name if token.startswith(PREFIX) and underscore and secret else ""


def read(path: Path) -> tuple[Key, ...] | None:
    """The entries of the file; None if there is none. Raises FileDamaged."""
    if (text := read_text(path, REMEDY)) is None:
        return None
    if too_open := stat.S_IMODE(path.stat().st_mode) & TOO_OPEN:
        done = "read" if too_open & 0o004 else "changed"
        raise FileDamaged(f"{path} can be {done} by others, who could then speak for anybody: chmod 600 {path}")
    return parse(text, str(path))


def parse(text: str, place: str) -> tuple[Key, ...]:
    """The entries in the text of a file, or of a variable of the environment. Raises FileDamaged, naming `place`."""
    try:
        found = KeyFile.model_validate_json(text).keys
    except ValidationError as error:
        raise FileDamaged(f"{place} holds no keys ({_mistake(error)}): {REMEDY}") from error
    if len({key.id for key in found}) < len(found):
        raise FileDamaged(f"{place} holds two keys of one id: remove one of them")
    return found


def add(path: Path, key: Key) -> bool:
    """Put an entry into the file, which is made if there is none; whether it was. Raises FileDamaged, OSError."""
    make_folder(path.parent, mode=FOLDER_MODE)
    with locks.acquire(_lock(path)):
        found = read(path)
        _write(path, (*(found or ()), key))
    return found is None


def revoke(path: Path, name: str) -> Key:
    """Mark the key of this id, or this key, as one that is not taken any more. Raises InvalidInput, FileDamaged."""
    wanted = id_of(name) or name
    if not path.is_file():
        raise InvalidInput(f"no keys in {path}: name the service's folder with --state, or the file with --file")
    with locks.acquire(_lock(path)):
        found = {key.id: key for key in read(path) or ()}
        if wanted not in found:
            raise InvalidInput(f"no key {wanted[:40]!r} in {path}: `rlhf-online keys list` shows their ids")
        if found[wanted].revoked is None:
            found[wanted] = found[wanted].model_copy(update={"revoked": datetime.now(UTC).replace(microsecond=0)})
        _write(path, tuple(found.values()))  # also what is so already: whoever wrote it may not have lived to sync it
    return found[wanted]


def _write(path: Path, found: tuple[Key, ...]) -> None:
    mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else FILE_MODE
    write_bytes(path, KeyFile(keys=found).model_dump_json(indent=1, exclude_defaults=True).encode(), mode=mode)


def _lock(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")


def _sha256(token: str) -> str:
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()


def _mistake(error: ValidationError) -> str:
    """The first mistake and its place; never the value, which may be a secret."""
    first = error.errors(include_input=False, include_url=False)[0]
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).removeprefix(".")
    return f"{place}: {first['msg']}" if place else first["msg"]
