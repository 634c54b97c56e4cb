"""What a check found."""

from dataclasses import dataclass
from typing import Literal

Severity = Literal["ok", "warn", "refuse"]


@dataclass(frozen=True, slots=True)
class Finding:
    """`refuse`: it cannot work; `warn`: it works, otherwise than one may think; `todo` says what helps."""

    severity: Severity
    about: str
    what: str
    todo: str = ""


def ok(about: str, what: str) -> Finding:
    return Finding("ok", about, what)


def warn(about: str, what: str, todo: str) -> Finding:
    return Finding("warn", about, what, todo)


def refuse(about: str, what: str, todo: str) -> Finding:
    return Finding("refuse", about, what, todo)
