"""The secrets of the installation: whether they are kept as they must be, and that none is in what is said of it."""

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from rlhf_online.config import ChatSettings, ServiceSettings
from rlhf_online.doctor.finding import Finding, ok, refuse
from rlhf_online.state import FINGERPRINT, OPERATOR_TOKEN, OTHERS, PERSON_SALT, SHORTEST_SECRET, PersonHash, StateDir
from rlhf_online.state import VARIABLES as STATE_VARIABLES
from rlhf_online.training.settings import TrainerSettings

VARIABLES = (
    "RLHF_KAFKA_PASSWORD",
    *STATE_VARIABLES.values(),
    "RLHF_KEYSTORE_KEK",
    "RLHF_API_KEY",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "GOOGLE_SERVICE_ACCOUNT_KEY",
    "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_SAS_KEY",
    "AZURE_STORAGE_CLIENT_SECRET",
)
SHORTEST_HIDDEN = 8
"""Characters: a shorter one is a part of ordinary words."""


def kept(state: StateDir) -> list[Finding]:
    """The two secrets, of the environment or the state folder: there, long enough, closed to others, and the salt the
    one that the log was made with."""
    found = [*_kept(state, OPERATOR_TOKEN), *_kept(state, PERSON_SALT)]
    return found or [ok("secrets", f"those of {state.root} are kept")]


def _kept(state: StateDir, name: str) -> Iterator[Finding]:
    variable, path = STATE_VARIABLES[name], state.root / name
    named = _fingerprint(state) if name == PERSON_SALT else ""
    place, secret = variable, os.environ.get(variable, "").strip()
    if not secret:
        place = str(path)
        try:
            secret, mode = path.read_text().strip(), path.stat().st_mode
        except FileNotFoundError:
            if named:
                what = f"{path} is gone, and the log names people by it"
                yield refuse("secrets", what, f"bring it back from the backup, or set {variable}")
            return
        except (OSError, UnicodeDecodeError) as error:
            yield refuse("secrets", f"{path} cannot be read ({type(error).__name__})", "let this user read it")
            return
        if mode & OTHERS:
            yield refuse("secrets", f"{path} may be read by others", f"chmod 600 {path}")
    if len(secret) < SHORTEST_SECRET:
        what = f"{place} holds {len(secret)} characters, and a secret has at least {SHORTEST_SECRET}"
        yield refuse("secrets", what, "bring it back from the backup")
    elif named and named != PersonHash(secret.encode()).fingerprint:
        what = f"{place} is another one than that by which the log names people"
        yield refuse("secrets", what, "bring the right one back from the backup")


def hider(services: Iterable[ServiceSettings]) -> Callable[[str], str]:
    """What takes every secret of these services out of a text."""
    known = {secret for each in services for secret in _secrets(each)} | {
        os.environ.get(name, "") for name in VARIABLES
    }
    hidden = sorted((secret for secret in known if len(secret) >= SHORTEST_HIDDEN), key=len, reverse=True)

    def hide(text: str) -> str:
        for secret in hidden:
            text = text.replace(secret, "…")
        return text

    return hide


def _secrets(service: ServiceSettings) -> Iterable[str]:
    state = StateDir(service.state_dir)
    files: list[Path | None] = [state.root / OPERATOR_TOKEN, state.root / PERSON_SALT]
    if isinstance(service, ChatSettings | TrainerSettings):
        files += [service.log.kafka.password_file, service.log.kafka.token_file]
    for path in files:
        try:
            yield path.read_text().strip() if path else ""
        except (OSError, UnicodeDecodeError):
            continue


def _fingerprint(state: StateDir) -> str:
    try:
        return (state.log / FINGERPRINT).read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""
