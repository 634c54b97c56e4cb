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
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlhf_online.durable import fsync_folder, make_folder, read_json, write_bytes, write_json, write_once
from rlhf_online.errors import FileDamaged, SecretLost

OPERATOR_TOKEN = "operator.token"
PERSON_SALT = "person.salt"
SHORTEST_SECRET = 16
FINGERPRINT = "person.salt.fingerprint"
SERVICES_STATUS = "services"
"""The status of the supervisor: {"trainer": {"state": "running", "restarts": 0, "last_end": ""}, …}."""


@dataclass(frozen=True, slots=True)
class PersonHash:
    """What replaces people's names in the log: a keyed hash (HMAC-SHA-256, 32 hexadecimal digits)."""

    salt: bytes = field(repr=False)

    @property
    def fingerprint(self) -> str:
        """By which the salt is known again; it tells nothing about the salt, or about anybody."""
        return hashlib.sha256(b"rlhf-online person.salt " + self.salt).hexdigest()[:16]

    def __call__(self, name: str) -> str:
        """The name's hash; "" for no name."""
        return hmac.new(self.salt, name.encode(), hashlib.sha256).hexdigest()[:32] if name else ""

    def sign(self, log: Path) -> None:
        """Write the fingerprint into the folder of the log that names people by this hash."""
        write_bytes(log / FINGERPRINT, self.fingerprint.encode())


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
        """The service's last status; {} if it never wrote one, or none that is whole: the next one comes soon."""
        try:
            values = read_json(self.root / "status" / f"{service}.json", "it is written anew within seconds")
        except FileDamaged:
            return {}
        return values if isinstance(values, dict) else {}

    def _secret(self, name: str) -> str:
        path = self.root / name
        try:
            secret = path.read_text().strip()
        except (IsADirectoryError, PermissionError, UnicodeDecodeError) as error:
            raise SecretLost(f"{path} cannot be read ({error}): bring the file back from a backup") from error
        except FileNotFoundError:
            make_folder(self.root)
            secret = write_once(path, secrets.token_urlsafe(32), mode=0o600)
        else:
            fsync_folder(self.root)  # whoever made it may not have lived to do this
        if len(secret) < SHORTEST_SECRET:
            raise SecretLost(
                f"{path} holds {len(secret)} characters, and a secret has at least {SHORTEST_SECRET}: bring the file "
                "back from a backup, or write as many random characters there"
            )
        return secret
