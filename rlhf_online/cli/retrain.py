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
BaseModelOption = Annotated[Path | None, typer.Option(help="The base model; by default the trainer's.")]
TrainerConfigOption = Annotated[
    Path | None,
    typer.Option("--config", help="Settings (TOML) of the trainer (default: those it was started with)."),
]


def retrain(
    out: Annotated[Path, typer.Option(help="New folder: the reward model in reward/, the policy in policy/.")],
    without: Annotated[
        list[str], typer.Option(metavar="NAME", help="Who is left out: a name, or its hash (32 digits).")
    ],
    model: BaseModelOption = None,
    algorithm: Annotated[Algorithm, typer.Option(help="How the policy learns.")] = "dpo",
    minutes: Annotated[float, typer.Option(help="What each of the two may take.")] = 25.0,
    state: StateOption = DEFAULT_STATE,
    config: TrainerConfigOption = None,
) -> None:
    """Learn a reward model and a policy from the log as if somebody had never been, and say which versions saw them.

    They begin as the base model, so that nothing of those versions is in them; votes on what was asked by who is left
    out are left out with theirs. The services are not touched: `rlhf-online up --model OUT/policy` serves the policy.
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
    reports: dict[str, Any] = {}
    for name, chosen in (("reward", "reward"), ("policy", algorithm)):
        values = {**given, "algorithm": chosen, "out": out / name}
        with explained([Given("retrain", values)], OfflineSettings):
            settings = OfflineSettings.model_validate(values)
        sys.stdout.flush()
        command = [sys.executable, "-m", "rlhf_online.training.offline", settings.model_dump_json(exclude_unset=True)]
        if code := subprocess.run(command, check=False).returncode:
            raise typer.Exit(code)
        reports[name] = json.loads((out / name / "report.json").read_text())
    write_json(out / REPORT, {"without": people, "versions_that_saw_them": seen, **reports})
    print(f"serve it: rlhf-online up --model {out / 'policy'} --state NEW; then remove the versions above")


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
