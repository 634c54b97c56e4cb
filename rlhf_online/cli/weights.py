"""`rlhf-online reward-weights [NAME=VALUE …]`: what each objective counts in the scores that the policy learns from."""

from typing import Annotated

import typer

from rlhf_online.cli.client import DEFAULT_STATE, StateOption
from rlhf_online.cli.versions import registry_of
from rlhf_online.errors import InvalidInput
from rlhf_online.rewards import weights
from rlhf_online.rewards.rules import record
from rlhf_online.state import StateDir

ROW = "{:<24} {:>8}"


def reward_weights(
    changes: Annotated[list[str] | None, typer.Argument(metavar="[NAME=VALUE]...", help="'harmless=2'")] = None,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Show the weights of the objectives, or change them: the reward service follows within seconds, and the trainer
    with its next cycle. Of the reward model's only the proportions matter; `rule:NAME` is how often that rule's reward
    is added to their say. Nothing is trained anew.
    """
    folder = StateDir(state)
    registry = registry_of(folder)
    objectives, rules = weights.objectives(registry), record.objectives(registry.store)
    if changes:
        chosen = weights.change(registry.store, folder, dict(map(change, changes)), objectives, rules)
    else:
        chosen = weights.applicable(weights.read(registry.store, folder), objectives, rules)
    print(ROW.format("OBJECTIVE", "WEIGHT"))
    for name, value in chosen.items():
        print(ROW.format(name, f"{value:g}"))


def change(text: str) -> tuple[str, float]:
    """Of "harmless=2". Raises InvalidInput."""
    name, equals, value = text.partition("=")
    try:
        if equals:
            return name, float(value)
    except ValueError:
        pass
    raise InvalidInput(f"{text!r} sets no weight: it looks like harmless=2")
