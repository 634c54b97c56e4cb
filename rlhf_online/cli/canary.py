"""`rlhf-online canary …`: the version that some conversations get before people have spoken."""

from typing import Annotated, Any
from urllib.parse import urlencode

import typer

from rlhf_online.canary import record
from rlhf_online.canary.report import report
from rlhf_online.cli.client import DEFAULT_STATE, InsteadUrlOption, StateOption, connect
from rlhf_online.cli.versions import existing, registry_of
from rlhf_online.errors import InvalidInput
from rlhf_online.versions.manifest import Kind, audience_kind

app = typer.Typer(help="A candidate before some of the people.", no_args_is_help=True)
AudienceOption = Annotated[str, typer.Option(help="Of this audience; by default of everybody.")]
ReasonOption = Annotated[str, typer.Option(help="Kept with the version.")]
HERE, OPERATOR = "by the operator (on this machine)", "operator on this machine"


@app.command("status")
def status(audience: AudienceOption = "", url: InsteadUrlOption = "", state: StateOption = DEFAULT_STATE) -> None:
    """Which version it is, how many conversations it answers, and what people said so far."""
    if url:
        with connect(url, state) as service:
            told = service.get(f"/v1/canary?{urlencode({'kind': _kind(audience)})}")
    else:
        folder = existing(state)
        told = report(registry_of(folder), folder, _kind(audience))
    for line in lines(told):
        print(line)


@app.command("promote")
def promote(
    audience: AudienceOption = "",
    reason: ReasonOption = "",
    url: InsteadUrlOption = "",
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Make it the live version now, whatever people have said."""
    if url:
        with connect(url, state, operator=True) as service:
            service.post("/v1/canary/promote", {"reason": reason, "kind": _kind(audience)})
    else:
        registry = registry_of(existing(state))
        canary = _under_way(registry, _kind(audience))
        registry.promote(canary.version, reason=f"promoted {HERE}{_because(reason)}", over=canary.live, by=OPERATOR)
    print("the canary is live; the swap follows within seconds")


@app.command("abort")
def abort(
    audience: AudienceOption = "",
    reason: ReasonOption = "",
    url: InsteadUrlOption = "",
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Nobody gets it any more: it is rejected, and the policy goes back to the live version."""
    if url:
        with connect(url, state, operator=True) as service:
            service.post("/v1/canary/abort", {"reason": reason, "kind": _kind(audience)})
    else:
        registry = registry_of(existing(state))
        record.end(registry, _under_way(registry, _kind(audience)), f"taken back {HERE}{_because(reason)}", OPERATOR)
    print("the canary is taken back; the live version answers all conversations")


def lines(told: dict[str, Any]) -> list[str]:
    """For people."""
    if not told["version"]:
        return ["there is no canary"]
    steps = " → ".join(f"{share:.0%}" for share in told["steps"])
    found = [f"{told['version']} answers {told['share']:.0%} of the conversations ({steps}); {told['live']} the others"]
    if told["people"] is None:
        return [*found, "the trainer has not counted yet"]
    said = f"{told['people']} people, evidence {told['better']:.3g} that they prefer it, {told['worse']:.3g} that not"
    between = f"preference between {told['preference_low']:.1%} and {told['preference_high']:.1%}, 50% is none"
    shares = {name.removesuffix("_share"): value for name, value in told.items() if name.endswith("_share")}
    guards = ", ".join(f"{name} {value:.1%}" for name, value in shares.items() if value is not None)
    return [*found, f"{said}; {between}", f"{told['answers']} answers at this step{'; ' if guards else ''}{guards}"]


def _kind(audience: str) -> Kind:
    return audience_kind(audience) if audience else "policy"


def _under_way(registry: record.Registry, kind: Kind) -> record.Canary:
    if (canary := record.under_way(registry, kind)) is None:
        raise InvalidInput("there is no canary: `rlhf-online versions list` shows the versions' states")
    return canary


def _because(reason: str) -> str:
    return f": {reason}" if reason else ""
