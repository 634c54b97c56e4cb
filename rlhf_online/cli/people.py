"""`rlhf-online people …`: whose votes count otherwise than most, whose taste is their own, and a person, erased."""

import json
import subprocess
import sys
from typing import Annotated

import typer

from rlhf_online.cli.client import DEFAULT_STATE, StateOption, UrlOption, connect
from rlhf_online.cli.retrain import BaseModelOption, TrainerConfigOption, learned_with, trainer_settings
from rlhf_online.cli.trace import person_hash
from rlhf_online.cli.versions import existing, registry_of
from rlhf_online.config.offline import ProfilesSettings
from rlhf_online.errors import InvalidInput
from rlhf_online.feedback import standing
from rlhf_online.state import StateDir

app = typer.Typer(help="People: whose votes count otherwise, and who is to be forgotten.", no_args_is_help=True)


@app.command("standing")
def show_standing(state: StateOption = DEFAULT_STATE) -> None:
    """Who is believed less than half, who votes more than their share, and who judges the same answers too much alike.

    By their hashes, as the trainer found it at the last update of the reward model.
    """
    found = standing.read(registry_of(existing(state)).store)
    print(f"believed  {found.believed} people")
    for name, groups in (
        ("doubted", [(person,) for person in found.doubted]),
        ("capped", [(person,) for person in found.capped]),
        ("alike", found.alike),
    ):
        for group in groups:
            print(f"{name:<10}{' '.join(group)}")


@app.command("profiles")
def profiles(
    model: BaseModelOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs: one JSON object.")] = False,
    state: StateOption = DEFAULT_STATE,
    config: TrainerConfigOption = None,
) -> None:
    """How far tastes of people's own part from the common reward model's, and what a profile of each would be worth.

    A profile is made of a person's first ten votes, and foretells their later ones beside the live reward model: how
    many pairs each of the two orders as the person did. It is made of the log while you wait, kept nowhere, and changes
    nothing. People are named by their hashes.
    """
    folder = existing(state)
    registry = registry_of(folder)
    if (live := registry.live("reward")) is None:
        raise InvalidInput("there is no reward model yet: profiles are made beside one")
    trunk = trainer_settings(folder, config).get("reward", {}).get("trunk")
    given = learned_with(folder, config, model or trunk) | {
        "reward": registry.path(live),
        "tuning": registry.manifest(live).tuning,
    }
    settings = ProfilesSettings.model_validate(given)
    options = settings.model_dump_json(exclude_unset=True)
    command = [sys.executable, "-m", "rlhf_online.training.offline.profiles", options]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise typer.Exit(done.returncode)
    if as_json:
        print(done.stdout, end="")
        return
    found = json.loads(done.stdout)
    row = "{:<34}{:>6}{:>8}{:>9}"
    print(row.format("PERSON", "VOTES", "COMMON", "PROFILE"))
    for told in found["people"]:
        print(row.format(told["person"], told["later"], f"{told['common']:.3f}", f"{told['profile']:.3f}"))
    print(
        f"{len(found['people'])} people, whose tastes differ by {found['taste']:.2f} nats; their profiles order "
        f"{found['gain']:+.3f} more ({found['gain_low']:+.3f} to {found['gain_high']:+.3f}) as they did"
    )


@app.command("erase")
def erase(
    person: Annotated[str, typer.Argument(metavar="NAME", help="Their name, or its hash (32 digits).")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    url: UrlOption = "",
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Erase all that is a person's, their votes too, for good, and say which versions have learned from them.

    With a key store their key is deleted, so that no copy of the log can be read any more.
    """
    hashed = person_hash(StateDir(state), person)
    if not yes and not typer.confirm(f"erase all that is theirs ({hashed})? It cannot be taken back", default=False):
        raise InvalidInput("nothing was erased")
    with connect(url, state, operator=True) as service:
        found = service.delete(f"/v1/people/{hashed}")
    print(f"erased: {found['conversations']} conversations that this service kept, and all that the trainer holds")
    if not found["shredded"]:
        print("log, Kafka and backups hold it until retention: there is no key store (keystore.url)")
    seen = found["versions"]
    print(f"versions that have learned from them: {', '.join(seen) if seen else 'none'}")
