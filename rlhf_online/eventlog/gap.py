"""A gap in the log: records that a trainer's checkpoint still needs and the log no longer has, and leave to skip them.

    checkpoints/accept-gap.json    {"identity", "position"}: what is missing there, and nowhere else, may be skipped

A trainer that cannot read on from its checkpoint stops. `rlhf-online gap accept` writes the file; the trainer, started
again at the place that the file names, asks the log where to read on (`resume_position`), logs what is missing, and
commits. Once its position is another one the file means nothing, so that no later gap is accepted by it.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from rlhf_online.durable import write_json
from rlhf_online.errors import CheckpointError, InvalidInput
from rlhf_online.eventlog.base import Position

HINT = "`rlhf-online gap check` says what is missing, `rlhf-online gap accept` goes on without it"

_FILE = "accept-gap.json"


@dataclass(frozen=True, slots=True)
class Place:
    """A position in the log of that identity."""

    identity: str
    position: Position


def standing(checkpoints: Path) -> Place:
    """Where the newest checkpoint in the folder stands. Raises InvalidInput without one, CheckpointError."""
    manifests = [path for path in checkpoints.glob("*/manifest.json") if path.parent.name.isdigit()]
    if not manifests:
        raise InvalidInput(f"there is no checkpoint in {checkpoints}: nothing was read, so nothing can be missing")
    newest = max(manifests, key=lambda path: int(path.parent.name))
    try:
        return _place(json.loads(newest.read_text())["log"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{newest} cannot be read ({error}): start the trainer, which falls back") from error


def accept(checkpoints: Path, place: Place) -> None:
    """Let the trainer go on from `place` without what is missing. Raises OSError."""
    write_json(checkpoints / _FILE, asdict(place))


def accepted(checkpoints: Path, identity: str, position: Mapping[str, int]) -> bool:
    """Whether an operator has accepted the gap at this place."""
    try:
        return _place(json.loads((checkpoints / _FILE).read_text())) == Place(identity, dict(position))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _place(values: dict) -> Place:
    return Place(str(values["identity"]), {str(name): int(offset) for name, offset in values["position"].items()})
