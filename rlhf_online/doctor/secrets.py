"""The secrets of the installation: whether they are kept as they must be, and that none is in what is said of it."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from rlhf_online.config import ChatSettings, ServiceSettings
from rlhf_online.doctor.finding import Finding, ok, refuse
from rlhf_online.state import FINGERPRINT, OPERATOR_TOKEN, OTHERS, PERSON_SALT, SHORTEST_SECRET, PersonHash, StateDir
from rlhf_online.training.settings import TrainerSettings

VARIABLES = (
    "RLHF_KAFKA_PASSWORD",
    "RLHF_OPERATOR_TOKEN",
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
    """The two secrets of a state folder: there, long enough, closed to others, the salt the one that the log was made
    with."""
    found: list[Finding] = []
    for name in (OPERATOR_TOKEN, PERSON_SALT):
        path = state.root / name
        try:
            secret, mode = path.read_text().strip(), path.stat().st_mode
        except FileNotFoundError:
            if name == PERSON_SALT and (state.log / FINGERPRINT).is_file():
                what = f"{path} is gone, and the log names people by it"
                found.append(refuse("secrets", what, "bring it back from the backup"))
            continue
        except (OSError, UnicodeDecodeError) as error:
            found.append(refuse("secrets", f"{path} cannot be read ({type(error).__name__})", "let this user read it"))
            continue
        if len(secret) < SHORTEST_SECRET:
            what = f"{path} holds {len(secret)} characters, and a secret has at least {SHORTEST_SECRET}"
            found.append(refuse("secrets", what, "bring it back from the backup"))
        elif name == PERSON_SALT and (told := _fingerprint(state)) and told != PersonHash(secret.encode()).fingerprint:
            what = f"{path} is another one than that by which the log names people"
            found.append(refuse("secrets", what, "bring the right one back from the backup"))
        if mode & OTHERS:
            found.append(refuse("secrets", f"{path} may be read by others", f"chmod 600 {path}"))
    return found or [ok("secrets", f"those of {state.root} are kept")]


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
