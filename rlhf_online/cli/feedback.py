"""`rlhf-online feedback …`: thumbs, rankings, pairs and corrections for answers named by their completion's id.

Each is printed with its event id, by which it can be changed (`--replaces`) or taken back (`withdraw`).
"""

import uuid
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from rlhf_online.cli.client import DEFAULT_STATE, StateOption, UrlOption, connect
from rlhf_online.errors import InvalidInput

app = typer.Typer(help="Say what you think of answers.", no_args_is_help=True)

Completion = Annotated[str, typer.Argument(help="Id of the completion, 'chatcmpl-…'; `chat` prints it.")]
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
    event: Annotated[str, typer.Argument(help="Event id of your vote; it was printed as `noted as event …`.")],
    completion: Completion,
    index: Index = 0,
    user: User = "",
    reason: Reason = "",
    key: Key = "",
    url: UrlOption = "",
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Take a vote back: name it, the answer that it judged (any of several), and the same --user."""
    kind = {"withdrawal": {"answer": _ref(completion, index)}}
    _send(kind, user=user, reason=reason, key=key, replaces=event, url=url, state=state)


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
