"""Records that cannot be used, kept in a file for people: a line of JSON each, the payload as base64."""

import base64
import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from rlhf_online.durable import append_lines
from rlhf_online.errors import LogUnavailable
from rlhf_online.eventlog.base import DeadLetter


def append(path: Path, dead_letters: Iterable[DeadLetter]) -> None:
    """Add them to the file, durably. Raises LogUnavailable."""
    lines = [_line(dead_letter) for dead_letter in dead_letters]
    try:
        if lines:
            append_lines(path, "".join(lines).encode())
    except OSError as error:
        raise LogUnavailable(f"{path} cannot be written: {error.strerror or error}") from error


def count(path: Path) -> int:
    """How many the file holds. Raises LogUnavailable."""
    try:
        with path.open("rb") as file:
            return sum(1 for _ in file)
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise LogUnavailable(f"{path} cannot be read: {error.strerror or error}") from error


def _line(dead_letter: DeadLetter) -> str:
    values = asdict(dead_letter) | {"payload": base64.b64encode(dead_letter.payload).decode()}
    del values["orphan"]
    return json.dumps(values) + "\n"
