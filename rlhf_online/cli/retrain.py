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

REPORT = "retrained.json"
REWARD, POLICY, AUDIENCE = "reward", "policy", "audiences/"
"""Where what is learned lies, in the new folder."""
BaseModelOption = Annotated[Path | None, typer.Option(help="The base model; by default the trainer's.")]
TrainerConfigOption = Annotated[
    Path | None,
    typer.Option("--config", help="Settings (TOML) of the trainer (default: those it was started with)."),
]


def retrain(
    out: Annotated[
        Path,
        typer.Option(help="New folder: the reward model in reward/, the policy in policy/, audiences' in audiences/."),
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

    A policy for everybody, and one for each audience, by its weights. They begin as the base model, so that nothing of
    those versions is in them; votes on what was asked by who is left out are left out with theirs. The services are not
    touched: `rlhf-online up --model OUT/policy` serves the policy.
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
    common, defined = _weights(folder)
    policies = {POLICY: common, **{AUDIENCE + name: {**common, **named} for name, named in defined.items()}}
    asked = {REWARD: {**given, "algorithm": "reward"}}
    for place, weights in policies.items():
        asked[place] = {**given, "algorithm": algorithm, "weights": _of_votes(place, weights, given)}
    for place, values in asked.items():
        print(f"{place}:")
        told[place] = _learned({**values, "out": out / place})
        write_json(out / REPORT, told)
    print(f"serve it: rlhf-online up --model {out / POLICY} --state NEW; then remove the versions above")
    for name, named in defined.items():
        weights = " ".join(f"{objective}={weight:g}" for objective, weight in named.items())
        print(
            f"{name}: rlhf-online up --model {out / AUDIENCE / name} serves it by itself; beside {out / POLICY} it "
            f"begins as that does, once NEW has a reward model: rlhf-online audiences set {name} {weights} --state NEW"
        )


def _weights(folder: StateDir) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """What objectives and rules count for everybody, and what each audience names. Raises InvalidInput, OSError."""
    from rlhf_online.rewards import audiences, weights

    store = registry_of(folder).store
    return weights.read(store, folder), audiences.read(store)


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
