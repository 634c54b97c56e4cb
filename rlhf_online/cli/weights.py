"""`rlhf-online reward-weights [NAME=VALUE …]`: what each objective counts in the scores that the policy learns from."""

from typing import Annotated

import typer

from rlhf_online.cli.client import DEFAULT_STATE, StateOption
from rlhf_online.durable import read_json
from rlhf_online.errors import InvalidInput
from rlhf_online.rewards import weights
from rlhf_online.state import StateDir
from rlhf_online.versions import open_registry

ROW = "{:<24} {:>8}"


def reward_weights(
    changes: Annotated[list[str] | None, typer.Argument(metavar="[NAME=VALUE]...", help="'harmless=2'")] = None,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Show the weights of the objectives, or change them: the reward service follows within seconds, and the trainer
    with its next cycle. Only their proportions matter; nothing is trained anew.
    """
    folder = StateDir(state)
    objectives = _objectives(folder)
    try:
        stored = weights.read(folder)
    except InvalidInput:
        if not changes:
            raise
        stored = {}  # a damaged file is written anew
    chosen = weights.applicable(stored, objectives)
    if changes:
        chosen = weights.complete(chosen | dict(map(_change, changes)), objectives)
        weights.write(folder, stored | chosen)
    print(ROW.format("OBJECTIVE", "WEIGHT"))
    for name, value in chosen.items():
        print(ROW.format(name, f"{value:g}"))


def _objectives(state: StateDir) -> list[str]:
    """Of the live reward version."""
    registry = open_registry(state.versions)
    live = registry.live("reward")
    if live is None:
        raise InvalidInput(f"{state.root} holds no reward model yet: its objectives are known when there is one")
    values = read_json(registry.path(live) / "reward.json", "roll back to the version before it, or restore it")
    return values["objectives"]


def _change(text: str) -> tuple[str, float]:
    name, equals, value = text.partition("=")
    try:
        if equals:
            return name, float(value)
    except ValueError:
        pass
    raise InvalidInput(f"{text!r} sets no weight: it looks like harmless=2")
