"""`rlhf-online people …`: whose votes count otherwise than most, and a person, erased."""

from typing import Annotated

import typer

from rlhf_online.cli.client import DEFAULT_STATE, StateOption, UrlOption, connect
from rlhf_online.cli.trace import person_hash
from rlhf_online.cli.versions import existing, registry_of
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
