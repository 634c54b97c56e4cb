"""`rlhf-online audiences …`: named sets of weights, each answered by an adapter of its own."""

from collections.abc import Mapping
from typing import Annotated

import typer

from rlhf_online.cli.client import DEFAULT_STATE, StateOption
from rlhf_online.cli.versions import existing, registry_of
from rlhf_online.cli.weights import change
from rlhf_online.errors import InvalidInput
from rlhf_online.rewards import audiences, weights
from rlhf_online.rewards.rules import record
from rlhf_online.rewards.weights import Weights
from rlhf_online.state import StateDir
from rlhf_online.versions.registry import Registry

app = typer.Typer(
    help="Audiences: sets of weights beside those that hold for everybody. A request with a profile is answered by the "
    "adapter that learns by that audience's weights.",
    no_args_is_help=True,
)

ROW = "{:<20} {:<24} {:>8}  {}"
NameArgument = Annotated[str, typer.Argument(help="The audience, which requests name as their profile.")]


@app.command("set")
def set_(
    name: NameArgument,
    changes: Annotated[list[str], typer.Argument(metavar="NAME=VALUE...", help="'harmless=2', 'rule:terse=1'")],
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Define an audience, or change its weights; an objective or rule that it does not name counts as for everybody.

    The trainer follows with its next cycle, the chat service within seconds, where chat.engine.audiences has a place
    for it. Until its first version has passed the gate the common adapter answers.
    """
    folder = existing(state)
    registry = registry_of(folder)
    live = registry.live("policy")
    if live is not None and registry.manifest(live).tuning != "lora":
        raise InvalidInput(
            "audiences are adapters, and the versions here hold all weights, of which an engine has one set: begin a "
            "state folder with tuning = 'lora'"
        )
    objectives, rules, common = _counted(registry, folder)
    chosen = audiences.define(registry.store, name, dict(map(change, changes)), common, objectives, rules)
    _show({name: chosen}, registry)


@app.command("list")
def list_(state: StateOption = DEFAULT_STATE) -> None:
    """Each audience, what objectives and rules count for it, and the version that answers."""
    folder = existing(state)
    registry = registry_of(folder)
    known = audiences.read(registry.store)
    objectives, rules, common = _counted(registry, folder) if known else ([], [], {})
    _show({name: audiences.complete(named, common, objectives, rules) for name, named in known.items()}, registry)


@app.command("remove")
def remove(name: NameArgument, state: StateOption = DEFAULT_STATE) -> None:
    """Its profile is refused from now on, and its adapter learns no more; its versions stay."""
    audiences.remove(registry_of(existing(state)).store, name)
    print(f"{name} is no audience any more: requests with that profile are refused within seconds")


def _counted(registry: Registry, folder: StateDir) -> tuple[list[str], list[str], Weights]:
    """Objectives and rules, and what they count for everybody."""
    objectives, rules = weights.objectives(registry), record.objectives(registry.store)
    return objectives, rules, weights.applicable(weights.read(registry.store, folder), objectives, rules)


def _show(found: Mapping[str, Weights], registry: Registry) -> None:
    if not found:
        print("there are no audiences: everybody is answered alike")
        return
    print(ROW.format("AUDIENCE", "OBJECTIVE", "WEIGHT", "ANSWERED BY"))
    for name, chosen in found.items():
        answers = audiences.live(registry, name) or "the common adapter, until its first version"
        for row, (objective, value) in enumerate(chosen.items()):
            first = (name, objective, f"{value:g}", answers) if row == 0 else ("", objective, f"{value:g}", "")
            print(ROW.format(*first).rstrip())
