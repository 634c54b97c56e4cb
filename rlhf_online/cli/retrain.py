"""`rlhf-online retrain --without NAME`: models from the same log that never saw somebody."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer

from rlhf_online.cli.client import DEFAULT_STATE, StateOption
from rlhf_online.cli.gap import log_settings
from rlhf_online.cli.trace import person_hash
from rlhf_online.cli.versions import existing, registry_of
from rlhf_online.config.explain import explained
from rlhf_online.config.given import Given
from rlhf_online.config.offline import Algorithm, OfflineSettings
from rlhf_online.durable import write_json
from rlhf_online.errors import InvalidInput
from rlhf_online.state import StateDir
from rlhf_online.versions import open_registry
from rlhf_online.versions.manifest import Kind, audience_kind, audience_of
from rlhf_online.versions.registry import Registry

REPORT = "retrained.json"
REWARD, POLICY, AUDIENCE, STATE = "reward", "policy", "audiences/", "state"
"""Where what is learned lies, and what serves it, in the new folder."""
BaseModelOption = Annotated[Path | None, typer.Option(help="The base model; by default the trainer's.")]
TrainerConfigOption = Annotated[
    Path | None,
    typer.Option("--config", help="Settings (TOML) of the trainer (default: those it was started with)."),
]


def retrain(
    out: Annotated[
        Path,
        typer.Option(
            help="New folder: the reward model in reward/, the policy in policy/; audiences' in audiences/, and what "
            "serves adapters in state/."
        ),
    ],
    without: Annotated[
        list[str], typer.Option(metavar="NAME", help="Who is left out: a name, or its hash (32 digits).")
    ],
    model: BaseModelOption = None,
    algorithm: Annotated[Algorithm, typer.Option(help="How the policy learns.")] = "dpo",
    minutes: Annotated[float, typer.Option(help="What each of the models may take.")] = 25.0,
    state: StateOption = DEFAULT_STATE,
    config: TrainerConfigOption = None,
) -> None:
    """Learn a reward model and policies from the log as if somebody had never been, and say which versions saw them.

    A policy for everybody, and one for each audience that a version of its own answers, by its weights. They begin as
    the base model, so that nothing of those versions is in them; votes on what was asked by who is left out are left
    out with theirs. The services are not touched: `rlhf-online up --model OUT/policy` serves the policy; adapters,
    beside each other as before, `up --state OUT/state` with the base model.
    """
    if algorithm == "reward":
        raise InvalidInput(
            "--algorithm reward learns no policy, and a reward model is learned in any case: name another"
        )
    folder = existing(state)
    people = [person_hash(folder, name) for name in without]
    seen = _seen(folder, people)
    for person, versions in seen.items():
        print(f"{person}  {', '.join(versions) if versions else 'no version has learned from them'}")
    given = learned_with(folder, config, model) | {"without": people, "minutes": minutes}
    told: dict[str, Any] = {"without": people, "versions_that_saw_them": seen}
    registry, adapters = registry_of(folder), given.get("tuning") == "lora"
    policies = _policies(registry, folder, adapters=adapters)
    asked = {REWARD: {**given, "algorithm": "reward"}}
    alike = {**given, "algorithm": algorithm, **(_as_live(registry) if adapters else {})}
    for kind, named in policies.items():
        asked[_place(kind)] = {**alike, "weights": _of_votes(_place(kind), named, given)}
    for place, values in asked.items():
        print(f"{place}:")
        told[place] = _learned({**values, "out": out / place})
        write_json(out / REPORT, told)
    served = f"--model {out / POLICY} --state NEW"
    if adapters:
        learned = {kind: asked[_place(kind)]["weights"] for kind in policies}
        _publish(registry, folder, out, Path(given["model"]), learned)
        served = f"--model {given['model']} --state {out / STATE}"
    print(f"serve it: rlhf-online up {served}; then remove the versions above")


def _place(kind: Kind) -> str:
    """Where the policy of that kind is to lie, in the new folder."""
    return AUDIENCE + audience if (audience := audience_of(kind)) else POLICY


def _policies(registry: Registry, folder: StateDir, *, adapters: bool) -> dict[Kind, dict[str, float]]:
    """What objectives and rules count for everybody, and for each audience that a version of its own answers. Raises
    InvalidInput, OSError."""
    from rlhf_online.rewards import audiences, weights

    common = weights.read(registry.store, folder)
    defined = audiences.read(registry.store) if adapters else {}
    own = {name: named for name, named in defined.items() if audiences.live(registry, name)}
    return {"policy": common, **{audience_kind(name): {**common, **named} for name, named in own.items()}}


def _as_live(registry: Registry) -> dict[str, Any]:
    """How adapters are learned that are to take the place of the live ones: of their rank, of the layers that those
    change, and not added to the model."""
    alike: dict[str, Any] = {"merged": False}
    if (live := registry.live("policy")) and (file := registry.path(live) / "adapter_config.json").is_file():
        config = json.loads(file.read_text())
        alike |= {"lora_rank": config["r"], "lora_layers": len(config.get("layers_to_transform") or ())}
    return alike


def _publish(before: Registry, folder: StateDir, out: Path, model: Path, learned: dict[Kind, dict[str, float]]) -> None:
    """Make a state folder in which each of the adapters that were `learned` is the live version of its kind, and all
    counts what it counts in `folder`, whose versions are those of `before`. Raises InvalidInput, OSError."""
    from rlhf_online.rewards import audiences, weights
    from rlhf_online.rewards.rules import record
    from rlhf_online.versions.genesis import publish_adapter

    new = open_registry(StateDir(out / STATE).versions, actor="operator on this machine")
    for kind, counted in learned.items():
        reason = "learned from the log without who was to be left out"
        version = publish_adapter(new, model, out / _place(kind), kind, weights=counted, reason=reason)
        print(f"{version}  is {out / _place(kind)}")
    weights.adopt(new.store, folder)
    for key in (weights.KEY, audiences.KEY, record.KEY):
        if (recorded := before.store.read(key)) is not None:
            new.store.replace(key, recorded, expected=None)


def _of_votes(place: str, named: dict[str, float], given: dict[str, Any]) -> dict[str, float]:
    """The weights of what people vote on. Raises InvalidInput where none counts."""
    from rlhf_online.rewards import weights
    from rlhf_online.rewards.rules.ruleset import PREFIX

    if rules := [name for name in named if name.startswith(PREFIX)]:
        print(f"{place}: without {', '.join(rules)}: it learns from votes, and rules have none")
    objectives = given.get("objectives", OfflineSettings.model_fields["objectives"].default)
    return weights.applicable(named, objectives)


def _learned(values: dict[str, Any]) -> dict[str, Any]:
    """What the report says of a model that a process of its own has learned. Raises Exit."""
    with explained([Given("retrain", values)], OfflineSettings):
        settings = OfflineSettings.model_validate(values)
    sys.stdout.flush()
    module = [sys.executable, "-m", "rlhf_online.training.offline"]
    if code := subprocess.run([*module, settings.model_dump_json(exclude_unset=True)], check=False).returncode:
        raise typer.Exit(code)
    return json.loads((settings.out / "report.json").read_text())


def _seen(folder: StateDir, people: list[str]) -> dict[str, list[str]]:
    """Which versions have learned from each of them."""
    from rlhf_online.attribution.trace import person_data

    registry = registry_of(folder)
    return {person: [row["version"] for row in person_data(person, registry)["versions"]] for person in people}


def learned_with(folder: StateDir, config: Path | None, model: Path | None) -> dict[str, Any]:
    """Of VotesSettings, and the model: the log, and what the trainer learned with. Raises InvalidInput."""
    file = config or folder.run / "trainer.toml"
    trainer = trainer_settings(folder, config)
    base = model or trainer.get("model")
    if base is None:
        raise InvalidInput(
            f"{file} names no model: give the base model with --model, or the trainer's file with --config"
        )
    url = log_settings(folder, config).url
    given: dict[str, Any] = {"model": base, "log": str(folder.root) if url == "file:" else url}
    if file.is_file():
        given["log_config"] = file
    reward = trainer.get("reward", {})
    given |= {name: reward[name] for name in ("objectives", "held_out") if name in reward}
    return given | {name: trainer[name] for name in ("tuning", "seed", "device") if name in trainer}


def trainer_settings(folder: StateDir, config: Path | None) -> dict[str, Any]:
    """What stands in `config`, or else in what the trainer was started with."""
    file = config or folder.run / "trainer.toml"
    return tomllib.loads(file.read_text()) if file.is_file() else {}
