"""`rlhf-online keys …`: who may call the chat service. A change holds within a second, without a restart."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, get_args

import typer

from rlhf_online import keys
from rlhf_online.cli.client import DEFAULT_STATE, StateOption
from rlhf_online.errors import InvalidInput
from rlhf_online.keys import Role
from rlhf_online.state import StateDir

app = typer.Typer(help="API keys: who may call the chat service.", no_args_is_help=True)

FileOption = Annotated[
    Path | None, typer.Option("--file", help="The file of keys, if it is not keys.json in the state folder.")
]
ROW = "{:<10} {:<24} {:<24} {:<17} {:<17} {}"
UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1)}


@app.command("create")
def create(
    owner: Annotated[str, typer.Option(help="Whom the key speaks for: a person's or a program's name.")],
    role: Annotated[
        list[str] | None, typer.Option(help=f"What it may: {', '.join(get_args(Role))}; chat and feedback by default.")
    ] = None,
    expires: Annotated[str, typer.Option(help="When it ends: 90d, 12h or 2027-01-31; by default never.")] = "",
    signs: Annotated[
        bool, typer.Option("--signs", help="For a backend: it speaks for end users, whose names it signs.")
    ] = False,
    state: StateOption = DEFAULT_STATE,
    file: FileOption = None,
) -> None:
    """Make a key. It is printed, and kept nowhere; with --signs its signing secret follows on a line of its own."""
    path = _path(state, file)
    key, token = keys.make(owner, role or ("chat", "feedback"), expires=_when(expires), signs=signs)
    with _writing(path):
        first = keys.add(path, key)
    ends = f"until {_day(key.expires)}" if key.expires else "for good"
    _say(f"key {key.id} of {key.owner} may {', '.join(key.roles)}, {ends}; it is shown this once:")
    print(token)
    if signs:
        _say("its signing secret, which stays with the backend:")
        print(key.signing_secret)
    if first:
        _say(f"{path} is new: from now on every call needs a key")


@app.command("list")
def list_(state: StateOption = DEFAULT_STATE, file: FileOption = None) -> None:
    """All keys, and which of them hold."""
    path = _path(state, file)
    found = keys.read(path)
    if found is None:
        _say(f"no keys in {path}: only this machine is served, and asks for none")
        return
    now = datetime.now(UTC)
    print(ROW.format("ID", "OWNER", "ROLES", "CREATED", "EXPIRES", "STATE"))
    for key in found:
        holds = f"revoked {_day(key.revoked)}" if key.revoked else "expired" if key.expired(now) else "valid"
        if key.signing_secret:
            holds += ", for end users"
        cells = key.owner, ",".join(key.roles), _day(key.created), _day(key.expires) if key.expires else "never"
        print(ROW.format(key.id, *cells, holds))


@app.command("revoke")
def revoke(
    key: Annotated[str, typer.Argument(help="Its id, or the key itself.")],
    state: StateOption = DEFAULT_STATE,
    file: FileOption = None,
) -> None:
    """Take a key back, for good."""
    path = _path(state, file)
    with _writing(path):
        revoked = keys.revoke(path, key)
    print(f"key {revoked.id} of {revoked.owner} is revoked")


def _path(state: Path, file: Path | None) -> Path:
    return file or StateDir(state).keys


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InvalidInput(f"{path} cannot be written ({error.strerror}): run this as the service's user") from error


def _when(text: str) -> datetime | None:
    """In UTC; a day means its end. Raises InvalidInput."""
    if not text:
        return None
    now = datetime.now(UTC).replace(microsecond=0)
    try:
        if lasts := re.fullmatch(r"(\d{1,6})([hd])", text):
            when = now + int(lasts[1]) * UNITS[lasts[2]]
        else:
            when = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC) + timedelta(days=1)
    except (ValueError, OverflowError):
        raise InvalidInput(f"--expires {text}: expected 90d, 12h or a day such as 2027-01-31") from None
    if when <= now:
        raise InvalidInput(f"--expires {text} is over: name a time to come")
    return when


def _day(when: datetime) -> str:
    return f"{when.astimezone(UTC):%Y-%m-%d %H:%MZ}"


def _say(line: str) -> None:
    """Beside the key, which a script reads from the standard output."""
    print(line, file=sys.stderr)
