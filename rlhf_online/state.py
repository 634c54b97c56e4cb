"""The state folder: where everything that outlives a process stands, and the two secrets in it.

operator.token        the operator's credential (mode 0600), made on first use
person.salt           key of the hash that replaces people's names (mode 0600)
reward-weights.json   how much each objective counts, if the operator has chosen (`rewards.weights`)
log/                  the local event log
versions/             immutable versions and which of them is live (`rlhf_online.versions`)
checkpoints/          the trainer's checkpoints and ledger
status/               what each service last said about itself, JSON, for people
run/                  sockets, ready files, settings of the children
logs/                 what the children wrote
"""

import hashlib
import hmac
import json
import os
import secrets
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlhf_online.errors import SecretLost

OPERATOR_TOKEN = "operator.token"
PERSON_SALT = "person.salt"
SHORTEST_SECRET = 16


@dataclass(frozen=True, slots=True)
class PersonHash:
    """What replaces people's names in the log: a keyed hash (HMAC-SHA-256, 32 hexadecimal digits)."""

    salt: bytes = field(repr=False)

    def __call__(self, name: str) -> str:
        """The name's hash; "" for no name."""
        return hmac.new(self.salt, name.encode(), hashlib.sha256).hexdigest()[:32] if name else ""


@dataclass(frozen=True, slots=True)
class StateDir:
    """Paths below `root`."""

    root: Path

    @property
    def log(self) -> Path:
        return self.root / "log"

    @property
    def versions(self) -> Path:
        return self.root / "versions"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def reward_weights(self) -> Path:
        return self.root / "reward-weights.json"

    @property
    def run(self) -> Path:
        return self.root / "run"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    def operator_token(self) -> str:
        """The operator's credential, made with mode 0600 if there is none. Raises SecretLost."""
        return self._secret(OPERATOR_TOKEN)

    def person_hash(self) -> "PersonHash":
        """The hash under the folder's salt, which is made with mode 0600 if there is none. Raises SecretLost."""
        return PersonHash(self._secret(PERSON_SALT).encode())

    def write_status(self, service: str, values: dict[str, Any]) -> None:
        """Replace the service's status atomically."""
        write_json(self.root / "status" / f"{service}.json", values)

    def read_status(self, service: str) -> dict[str, Any]:
        """The service's last status; {} if it never wrote one."""
        try:
            return json.loads((self.root / "status" / f"{service}.json").read_text())
        except FileNotFoundError:
            return {}

    def _secret(self, name: str) -> str:
        path = self.root / name
        try:
            secret = path.read_text().strip()
        except FileNotFoundError:
            self.root.mkdir(parents=True, exist_ok=True)
            secret = write_once(path, secrets.token_urlsafe(32), mode=0o600)
        if len(secret) < SHORTEST_SECRET:
            raise SecretLost(
                f"{path} holds {len(secret)} characters, and a secret has at least {SHORTEST_SECRET}: bring the file "
                "back from a backup, or write as many random characters there"
            )
        return secret


def write_json(path: Path, values: Any) -> None:
    """Replace `path` atomically and durably: write aside, fsync, rename, fsync the folder."""
    write_bytes(path, json.dumps(values).encode())


def write_bytes(path: Path, data: bytes) -> None:
    """The same for bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    with aside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    aside.rename(path)
    fsync_dir(path.parent)


def content_name(stem: str, data: bytes, suffix: str) -> str:
    """The name of a sealed file: one that holds `data` for good, and says so by the first digits of its SHA-256."""
    return f"{stem}-{hashlib.sha256(data).hexdigest()[:16]}{suffix}"


def file_sha256(path: Path) -> str:
    """Of a file's content, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_once(path: Path, text: str, *, mode: int) -> str:
    """Make `path` hold `text` durably unless it is there already; returns what it holds. Its folder must exist.

    Written aside and linked into place: of two that write at the same time one wins, and both read the same.
    """
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.link(aside, path)
    except FileExistsError:
        pass
    finally:
        aside.unlink(missing_ok=True)
    fsync_dir(path.parent)
    return path.read_text().strip()


def fsync_file(path: Path) -> None:
    """Make a file's content durable, whoever wrote it."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def fsync_dir(path: Path) -> None:
    """Make the names in the folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def append_durably(path: Path, data: bytes) -> None:
    """Append to a file that nobody else appends to, and fsync it. Raises OSError."""
    new = not path.exists()
    with path.open("ab") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    if new:
        fsync_dir(path.parent)
