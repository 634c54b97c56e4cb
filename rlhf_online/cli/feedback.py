"""`rlhf-online feedback …`: thumbs, rankings, pairs and corrections for answers named by their completion's id.

Each is printed with its event id, by which it can be looked up (`show`), changed (`--replaces`, `edit`) or taken back
(`withdraw`). `import` sends a file of them.
"""

import hashlib
import json
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote, urlencode

import typer

from rlhf_online.cli.client import DEFAULT_STATE, StateOption, UrlOption, connect
from rlhf_online.errors import InvalidInput

IMPORT_LINES, IMPORT_BYTES = 500, 8 << 20
"""Of one request."""

app = typer.Typer(help="Say what you think of answers.", no_args_is_help=True)

Completion = Annotated[str, typer.Argument(help="Id of the completion, 'chatcmpl-…'; `chat` prints it.")]
Event = Annotated[str, typer.Argument(help="Event id of your vote; it was printed as `noted as event …`.")]
Index = Annotated[int, typer.Option(min=0, help="Which of the completion's answers, from 0.")]
User = Annotated[str, typer.Option(help="Your name; only a keyed hash of it is kept.")]
Reason = Annotated[str, typer.Option(help="Why, in your own words.")]
Key = Annotated[str, typer.Option(help="Idempotency key: the same key is the same vote, however often it is sent.")]
Objective = Annotated[str, typer.Option(help="What it is judged by, if the operator named several objectives.")]
Replaces = Annotated[
    str, typer.Option(metavar="EVENT", help="Your earlier vote that this one replaces; name the same --user.")
]


@app.command("thumb")
def thumb(
    completion: Completion,
    direction: Annotated[Literal["up", "down"], typer.Argument(help="Good or bad.")],
    index: Index = 0,
    objective: Objective = "",
    user: User = "",
    reason: Reason = "",
    key: Key = "",
    replaces: Replaces = "",
    url: UrlOption = "",
    state: StateOption = DEFAULT_STATE,
) -> None:
    """One answer is good, or bad."""
    kind = {"thumb": {"answer": _ref(completion, index), "up": direction == "up"}}
    _send(kind, objective=objective, user=user, reason=reason, key=key, replaces=replaces, url=url, state=state)


@app.command("rank")
def rank(
    completion: Completion,
    tiers: Annotated[list[str], typer.Argument(help="Answers best first, ties with commas: `rank ID 2 0,3 1`.")],
    objective: Objective = "",
    user: User = "",
    reason: Reason = "",
    key: Key = "",
    replaces: Replaces = "",
    url: UrlOption = "",
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Several answers of one completion, best first."""
    kind = {"ranking": {"tiers": [[_ref(completion, index) for index in _indexes(tier)] for tier in tiers]}}
    _send(kind, objective=objective, user=user, reason=reason, key=key, replaces=replaces, url=url, state=state)


@app.command("pair")
def pair(
    chosen: Annotated[str, typer.Argument(help="The better answer: ID or ID:INDEX.")],
    rejected: Annotated[str, typer.Argument(help="The other: ID or ID:INDEX.")],
    tie: Annotated[bool, typer.Option("--tie", help="They are about the same.")] = False,
    unsure: Annotated[bool, typer.Option("--unsure", help="You cannot tell which is better.")] = False,
    strength: Annotated[int, typer.Option(min=0, max=3, help="1 slightly, 2 better, 3 much better.")] = 0,
    objective: Objective = "",
    user: User = "",
    reason: Reason = "",
    key: Key = "",
    replaces: Replaces = "",
    url: UrlOption = "",
    state: StateOption = DEFAULT_STATE,
) -> None:
    """One answer is better than another."""
    judged = {"tie": tie, "unsure": unsure, "strength": strength}
    kind = {"pairwise": {"chosen": _named(chosen), "rejected": _named(rejected), **judged}}
    _send(kind, objective=objective, user=user, reason=reason, key=key, replaces=replaces, url=url, state=state)


@app.command("correct")
def correct(
    completion: Completion,
    text: Annotated[str, typer.Argument(help="What would have been better.")],
    index: Index = 0,
    objective: Objective = "",
    user: User = "",
    reason: Reason = "",
    key: Key = "",
    replaces: Replaces = "",
    url: UrlOption = "",
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Another text would have been better."""
    kind = {"correction": {"answer": _ref(completion, index), "text": text}}
    _send(kind, objective=objective, user=user, reason=reason, key=key, replaces=replaces, url=url, state=state)


@app.command("implicit")
def implicit(
    completion: Completion,
    signal: Annotated[Literal["regenerate", "rephrase", "stop"], typer.Argument(help="What was done instead.")],
    index: Index = 0,
    objective: Objective = "",
    user: User = "",
    reason: Reason = "",
    key: Key = "",
    replaces: Replaces = "",
    url: UrlOption = "",
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Somebody turned from an answer without a vote: a weak sign that it was not good."""
    kind = {"implicit": {"answer": _ref(completion, index), "signal": signal}}
    _send(kind, objective=objective, user=user, reason=reason, key=key, replaces=replaces, url=url, state=state)


@app.command("withdraw")
def withdraw(
    event: Event,
    completion: Annotated[
        str, typer.Argument(help="Completion that it judged; needed only where another service took the vote.")
    ] = "",
    index: Index = 0,
    user: User = "",
    reason: Reason = "",
    key: Key = "",
    url: UrlOption = "",
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Take a vote back: name it, and the same --user."""
    if completion:
        kind = {"withdrawal": {"answer": _ref(completion, index)}}
        _send(kind, user=user, reason=reason, key=key, replaces=event, url=url, state=state)
        return
    with connect(url, state) as service:
        print(f"noted as event {service.delete(_own(event, user))['event_id']}")


@app.command("show")
def show(event: Event, user: User = "", url: UrlOption = "", state: StateOption = DEFAULT_STATE) -> None:
    """What became of your vote: name the same --user."""
    with connect(url, state) as service:
        print(service.get(_own(event, user))["message"])


@app.command("edit")
def edit(
    event: Event,
    vote: Annotated[str, typer.Argument(help="The new vote, JSON as POST /v1/feedback takes it.")],
    user: User = "",
    url: UrlOption = "",
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Put another vote in the place of yours; the commands above do it with --replaces."""
    try:
        body = json.loads(vote)
    except ValueError as error:
        raise InvalidInput(f"the vote is no JSON ({error}): write '{{\"thumb\": …}}'") from error
    if not isinstance(body, dict):
        raise InvalidInput("the vote is no JSON object: write '{\"thumb\": …}'")
    if user:
        body["user"] = user
    with connect(url, state) as service:
        print(f"noted as event {service.put(_own(event, ''), body)['event_id']}")


@app.command("import")
def import_votes(
    file: Annotated[Path, typer.Argument(help="One vote a line, JSON as POST /v1/feedback takes it.")],
    url: UrlOption = "",
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Send a file of votes. The same file sent again is the same votes; ends with 1 if any is refused."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise InvalidInput(f"{file} cannot be read: {error.strerror}") from error
    lines = [(number, line) for number, line in enumerate(data.split(b"\n"), 1) if line.strip()]
    digest, refused = hashlib.sha256(data).hexdigest(), 0
    with connect(url, state) as service:
        for part, votes in enumerate(_parts(lines)):
            body = b"\n".join(line for _, line in votes)
            results = service.post_lines("/v1/feedback/batch", body, f"{digest}/{part}")["results"]
            for (number, _), result in zip(votes, results, strict=True):
                if "error" in result:
                    refused += 1
                    print(f"{file}:{number}: {result['error']['message']}", file=sys.stderr)
    print(f"{len(lines) - refused} votes taken, {refused} refused")
    if refused:
        raise typer.Exit(1)


def _parts(lines: list[tuple[int, bytes]]) -> Iterator[list[tuple[int, bytes]]]:
    """As many lines as one request takes, or as few as one."""
    part: list[tuple[int, bytes]] = []
    size = 0
    for line in lines:
        if part and (len(part) == IMPORT_LINES or size + len(line[1]) > IMPORT_BYTES):
            yield part
            part, size = [], 0
        part.append(line)
        size += len(line[1]) + 1
    if part:
        yield part


def _own(event: str, user: str) -> str:
    """Path of one's own vote."""
    return f"/v1/feedback/{quote(event, safe='')}" + (f"?{urlencode({'user': user})}" if user else "")


def _send(
    kind: dict[str, Any],
    *,
    user: str,
    reason: str,
    key: str,
    replaces: str,
    url: str,
    state: Path,
    objective: str = "",
) -> None:
    optional = {"user": user, "reason": reason, "replaces": replaces, "objective": objective}
    said = {name: value for name, value in optional.items() if value}
    body = {**kind, **said, "source": "cli", "idempotency_key": key or uuid.uuid4().hex}
    with connect(url, state) as service:
        print(f"noted as event {service.post('/v1/feedback', body)['event_id']}")


def _ref(completion: str, index: int) -> dict[str, Any]:
    return {"completion_id": completion, "index": index}


def _named(name: str) -> dict[str, Any]:
    completion, colon, index = name.rpartition(":")
    if not colon:
        return _ref(name, 0)
    return _ref(completion, _index(index, name))


def _indexes(tier: str) -> list[int]:
    return [_index(part, tier) for part in tier.split(",")]


def _index(text: str, within: str) -> int:
    if not text.isdecimal():
        raise InvalidInput(f"{within!r}: {text!r} is no answer's index, which is a number from 0")
    return int(text)
