"""The state folder: where everything that outlives a process stands, and the two secrets in it.

It holds what people wrote, so other users of the machine may read nothing of it: mode 0700 from the root down, whatever
the umask, also for what an earlier start left open (`close_to_others`, before anything else is done).

operator.token        the operator's credential (mode 0600), made on first use
keys.json             who may call the chat service (mode 0600), if there are keys (`rlhf_online.keys`)
person.salt           key of the hash that replaces people's names (mode 0600)
questions.jsonl       what annotators were asked, and with which probability (`rewards.asking`)
critic-probes/        what critics found of planted faults (`rewards.critic`)
judge.sqlite          what judges replied, by digests (`rewards.judge`)
reward-weights.json   of an earlier release: the weights of the objectives, until they are changed (`rewards.weights`)
log/                  the local event log
conversations/        people's conversations and votes, as the chat service reads them from the log
annotation/           what annotators are asked, and who was given what
versions/             immutable versions and which of them is live, or copies of a bucket's (`rlhf_online.versions`)
checkpoints/          the trainer's checkpoints and ledger
keystore/             people's content keys, if `keystore.url` says so (`rlhf_online.keystore`)
status/               what each service last said about itself, JSON, for people
run/                  sockets, ready files, settings of the children
logs/                 what the children wrote

The credential and the salt are those of `VARIABLES` where these are set: services that share no folder, and several
chat services, must have the same.
"""

import errno
import hashlib
import hmac
import os
import secrets
import stat
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlhf_online.durable import fsync_folder, make_folder, read_json, write_bytes, write_json, write_once
from rlhf_online.errors import FileDamaged, SecretLost, StartRefused

OPERATOR_TOKEN = "operator.token"
PERSON_SALT = "person.salt"
KEYS = "keys.json"
SHORTEST_SECRET = 16
VARIABLES = {OPERATOR_TOKEN: "RLHF_OPERATOR_TOKEN", PERSON_SALT: "RLHF_PERSON_SALT"}
"""Of the environment: secrets that count instead of the files, which are then not made."""
FINGERPRINT = "person.salt.fingerprint"
FOLDERS = ("log", "conversations", "annotation", "versions", "checkpoints", "keystore", "status", "run", "logs")
SERVICES_STATUS = "services"
"""The status of the supervisor: {"trainer": {"state": "running", "restarts": 0, "last_end": ""}, …}."""


CONTENTS = (OPERATOR_TOKEN, PERSON_SALT, KEYS, "reward-weights.json", *FOLDERS)
OTHERS = 0o077
"""What others could do with a file or folder. Those of the state folder let them do nothing."""


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
        return hmac.digest(self.salt, name.encode(), "sha256").hex()[:32] if name else ""

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
    def conversations(self) -> Path:
        return self.root / "conversations"

    @property
    def annotation(self) -> Path:
        return self.root / "annotation"

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
    def keys(self) -> Path:
        return self.root / KEYS

    @property
    def run(self) -> Path:
        return self.root / "run"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    def close_to_others(self) -> None:
        """Make the folder if there is none, and let other users read nothing in it: neither what is there nor what this
        process and its children will make. Raises StartRefused.
        """
        os.umask(OTHERS)
        try:
            make_folder(self.root)
            _close(self.root)
            if os.statvfs(self.root).f_flag & os.ST_RDONLY:
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self.root))
            if self.root.stat().st_mode & OTHERS or not os.access(self.root, os.R_OK | os.W_OK | os.X_OK):
                raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(self.root))
            for name in CONTENTS:
                _close(self.root / name)
                for folder, folders, files in os.walk(self.root / name):
                    for below in (*folders, *files):
                        _close(Path(folder, below))
        except OSError as error:
            if error.errno == errno.EROFS:
                raise StartRefused(
                    f"{error.filename or self.root} is on a read-only file system: mount it for reading and writing; "
                    "after an error of the disk Linux remounts it (see dmesg)"
                ) from error
            raise StartRefused(
                f"{error.filename} cannot be closed to other users, who could read conversations there "
                f"({error.strerror}; this process runs as user {os.geteuid()}, and user {_owner(self.root)} owns "
                f"{self.root}): make it the same user (chown -R), or on a mounted volume name a new folder below it"
            ) from error

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
        if given := os.environ.get(variable := VARIABLES[name], "").strip():
            if len(given) < SHORTEST_SECRET:
                raise SecretLost(
                    f"{variable} holds {len(given)} characters, and a secret has at least {SHORTEST_SECRET}: write as "
                    "many random characters there, the same for every service of this installation"
                )
            return given
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


def _close(path: Path) -> None:
    """Take from others what they may do with it. A file that also lies elsewhere (a hard link) is reached from there.

    Raises OSError, but not for what another process renames or removes just now.
    """
    with suppress(FileNotFoundError):
        found = path.lstat()
        folder = stat.S_ISDIR(found.st_mode)
        if found.st_mode & OTHERS and (folder or (stat.S_ISREG(found.st_mode) and found.st_nlink == 1)):
            path.chmod(stat.S_IMODE(found.st_mode) & ~OTHERS)


def _owner(path: Path) -> int:
    return next(each.stat().st_uid for each in (path, *path.parents) if each.exists())
