"""`rlhf-online learning …`: pause what is learned from votes, and go on."""

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from rlhf_online import learning
from rlhf_online.cli.client import DEFAULT_STATE, InsteadUrlOption, StateOption, connect
from rlhf_online.cli.versions import existing, registry_of

app = typer.Typer(help="Whether the models learn from votes.", no_args_is_help=True)


@app.command("pause")
def pause(
    reason: Annotated[str, typer.Option(help="Shown as long as it is paused.")] = "",
    url: InsteadUrlOption = "",
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Neither model learns from now on, whatever is restarted; people chat and vote, and their votes wait."""
    if url:
        with connect(url, state, operator=True) as service:
            _show(service.post("/v1/learning/pause", {"reason": reason}))
    else:
        _show(learning.pause(registry_of(existing(state)).store, reason).to_json())


@app.command("resume")
def resume(url: InsteadUrlOption = "", state: StateOption = DEFAULT_STATE) -> None:
    """Both models learn again, first of all from the votes that waited."""
    if url:
        with connect(url, state, operator=True) as service:
            _show(service.post("/v1/learning/resume", {}))
    else:
        _show(learning.resume(registry_of(existing(state)).store).to_json())


@app.command("status")
def status(url: InsteadUrlOption = "", state: StateOption = DEFAULT_STATE) -> None:
    """Whether learning is paused, since when, and why."""
    if url:
        with connect(url, state) as service:
            _show(service.get("/v1/learning"))
    else:
        _show(learning.read(registry_of(existing(state)).store).to_json())


def _show(told: dict[str, Any]) -> None:
    print(sentence(told))


def sentence(told: dict[str, Any]) -> str:
    """For people."""
    since = told["changed_ms"]
    when = f" since {datetime.fromtimestamp(since / 1000, UTC):%Y-%m-%d %H:%M UTC}" if since else ""
    why = f": {told['reason']}" if told["reason"] else ""
    return f"paused{when}{why}" if told["paused"] else f"the models learn{when}"
