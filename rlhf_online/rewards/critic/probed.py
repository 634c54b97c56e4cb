"""What became of a critic's probe: kept in the state folder, as annotators see notes of a critic that passed it alone.

A file for each critic as it was asked: another address, model, principle or wording is another critic, and so is the
same one after LASTS_S, since what answers under a name changes unseen.
"""

import hashlib
import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from rlhf_online.durable import read_json, write_json
from rlhf_online.errors import FileDamaged, InvalidInput
from rlhf_online.rewards.critic.notes import question
from rlhf_online.rewards.critic.planted import PLANTED, PRINCIPLES, Found
from rlhf_online.rewards.critic.settings import CriticSettings

FOLDER = "critic-probes"
LASTS_S = 7 * 24 * 3600.0
REMEDY = "`rlhf-online critic probe FILE` asks it about planted faults and keeps what it found"


def keep(state: Path, settings: CriticSettings, found: Found, at_s: float) -> None:
    """Instead of what this critic's earlier probe found. Raises OSError."""
    write_json(_path(state, settings), {"at_s": at_s, "model": settings.model, "found": asdict(found)})


def require(state: Path, settings: CriticSettings, now_s: float) -> None:
    """Raises InvalidInput, with what to do, for a critic that has not passed its probe; FileDamaged."""
    critic = f"the critic {settings.model} may not write notes for annotators: "
    values = read_json(path := _path(state, settings), REMEDY)
    if values is None:
        raise InvalidInput(f"{critic}it was not probed with this address, model and these principles; {REMEDY}")
    try:
        at_s, found = float(values["at_s"]), TypeAdapter(Found).validate_python(values["found"])
    except (LookupError, TypeError, ValueError, ValidationError) as error:
        raise FileDamaged(f"{path} holds no probe of a critic: {REMEDY}") from error
    day = datetime.fromtimestamp(at_s, UTC).date()
    if now_s - at_s > LASTS_S:
        raise InvalidInput(f"{critic}its probe, of {day}, is more than {LASTS_S / 86400:g} days old; {REMEDY}")
    if short := found.shortcomings(settings.least_recall, settings.least_precision):
        raise InvalidInput(
            f"{critic}its probe of {day} found {'; '.join(short)}. Name a better model or clearer principles and probe "
            "it again, or set least_recall and least_precision in the file to what you will let pass"
        )


def _path(state: Path, settings: CriticSettings) -> Path:
    """Named by whom is asked what."""
    asked = [
        [*question(f"user: {asked}", answer, (*PRINCIPLES, *settings.principles)), words, wrong]
        for asked, answer, words, wrong in PLANTED
    ]
    digest = hashlib.sha256(json.dumps([settings.url, settings.model, asked]).encode()).hexdigest()
    return state / FOLDER / f"{digest[:32]}.json"
