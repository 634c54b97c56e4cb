"""`rlhf-online versions …` and `rlhf-online status`: what serves, what did, and the operator's levers."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from rlhf_online.canary import record
from rlhf_online.cli.client import DEFAULT_STATE, InsteadUrlOption, StateOption, UrlOption, connect, running_at
from rlhf_online.cli.gap import content_keys
from rlhf_online.cli.reports import report_lines
from rlhf_online.config import VersionsSettings, load_versions
from rlhf_online.config.explain import masked
from rlhf_online.errors import InvalidInput
from rlhf_online.keystore import owned
from rlhf_online.state import SERVICES_STATUS, StateDir
from rlhf_online.versions import open_registry, pods, reports
from rlhf_online.versions.manifest import audience_kind, kind_of
from rlhf_online.versions.pods import PodReport
from rlhf_online.versions.registry import Registry
from rlhf_online.versions.summary import summaries

app = typer.Typer(help="The versions of the weights.", no_args_is_help=True)

STRENGTH_ROW = "{:<16} {:>9}  {:<20} {:>6} {:>6}"
VERSION_ROW = "{:<16} {:<10} {:>8}  {:<24} {:<16} {}"


@app.command("list")
def list_(
    url: InsteadUrlOption = "",
    state: StateOption = DEFAULT_STATE,
) -> None:
    """All versions, oldest first, with their state and why; what a reward model is worth on held-out votes."""
    if url:
        with connect(url, state) as service:
            rows = service.get("/v1/versions")["versions"]
    else:
        rows = [row.to_json() for row in summaries(registry_of(existing(state)))]
    print(VERSION_ROW.format("VERSION", "STATE", "KL", "HELD-OUT", "PARENT", "REASON"))
    for row in rows:
        kl = f"{row.get('kl', 0.0):.3f}" if row["version"].startswith("policy") else ""
        cells = row["state"], kl, _worth(row.get("figures", {})), row.get("parent", ""), row.get("reason", "")
        print(VERSION_ROW.format(row["version"], *cells).rstrip())


@app.command("promote")
def promote(
    version: Annotated[str, typer.Argument(help="Its name, 'policy-000012'.")],
    url: UrlOption = "",
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Make a version the live one."""
    _check_name(version)
    with connect(url, state, operator=True) as service:
        service.post(f"/v1/versions/{version}/promote", {})
    print(f"{version} is live; the swap follows within seconds")


@app.command("rollback")
def rollback(
    reason: Annotated[str, typer.Option(help="Kept with the version that is left.")] = "by hand",
    audience: Annotated[str, typer.Option(help="Of this audience; by default of everybody.")] = "",
    url: UrlOption = "",
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Leave the live policy for the one before it, and mark it failed."""
    asked = {"reason": reason, **({"kind": audience_kind(audience)} if audience else {})}
    with connect(url, state, operator=True) as service:
        answer = service.post("/v1/versions/rollback", asked)
    version = answer.get("version", "the version before")
    if answer.get("state") == "failed":
        print(f"{version} is left: the common adapter answers {audience} until there is another version")
    else:
        print(f"{version} is live again")


@app.command("report")
def report(
    version: Annotated[str, typer.Argument(help="Its name, 'policy-000012'.")],
    as_json: Annotated[bool, typer.Option("--json", help="As one JSON object.")] = False,
    url: InsteadUrlOption = "",
    state: StateOption = DEFAULT_STATE,
) -> None:
    """What the gate found of a version: each check, by how much, and what both versions answered.

    Its examples are what people asked: with --url it needs the operator's credential.
    """
    _check_name(version)
    if url:
        with connect(url, state, operator=True) as service:
            found = service.get(f"/v1/versions/{version}/report")
    else:
        registry = registry_of(existing(state))
        registry.status(version)  # raises for one that is not there
        found = _opened(reports.read(registry.store, version), existing(state))
    if found is None:
        raise InvalidInput(f"{version} has no report: the gate judged no such version, or an earlier release did")
    print(json.dumps(found, indent=1, ensure_ascii=False) if as_json else "\n".join(report_lines(found)))


def _opened(report: reports.Report | None, state: StateDir) -> reports.Report | None:
    """With those of its examples that nobody erased."""
    if report is None:
        return None
    opened = owned.open_all(report, content_keys(state, None))
    return reports.kept(opened, lambda example: not owned.is_shredded(example))


@app.command("strengths")
def strengths(url: UrlOption = "", state: StateOption = DEFAULT_STATE) -> None:
    """How strong versions are by what people said of blind pairs: for display, never to decide by."""
    with connect(url, state) as service:
        found = service.get("/v1/versions/strengths")
    if not found["versions"]:
        print("nobody has judged a blind pair of two versions yet")
        return
    print(f"{found['pairs']} pairs by {found['people']} people; 95% intervals at one look; {found['base']} is 0")
    print(STRENGTH_ROW.format("VERSION", "STRENGTH", "INTERVAL", "ELO", "PAIRS"))
    for row in found["versions"]:
        low, high = row["low"], row["high"]
        between = "unknown: one person" if low is None else f"{low:+.2f} … {high:+.2f}"
        print(
            STRENGTH_ROW.format(row["version"], f"{row['strength']:+.2f}", between, f"{row['elo']:+.0f}", row["pairs"])
        )


@app.command("refresh-reference")
def refresh_reference(
    version: Annotated[str, typer.Argument(help="Its name; by default the live one.")] = "",
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Hold the policy near another version from now on: a new line, whose KL counts from there."""
    registry = registry_of(existing(state))
    if not (chosen := version or registry.live("policy")):
        raise InvalidInput("there is no policy version yet: the first one is the reference")
    registry.refresh_reference(chosen)
    print(f"KL counts from {chosen}, from the trainer's next cycle on")


def status(
    url: UrlOption = "",
    state: StateOption = DEFAULT_STATE,
) -> None:
    """What runs, what is live, and what the trainer is doing."""
    folder = StateDir(state) if url else existing(state)
    address = url or running_at(state)
    if address:
        with connect(address, state) as service:
            ready = service.get("/readyz", errors_too=True)
        _line("service", masked(address))
        _line("engine", ready.get("state", "unknown"), ready.get("serving", ""), ready.get("message", ""))
        for name, told in folder.read_status(SERVICES_STATUS).items():
            if told["state"] != "running":
                _line(name, told["state"], told["last_end"], f"restarted {told['restarts']} times")
    else:
        _line("service", "not running (start it with `rlhf-online up`)")
    registry = registry_of(folder)
    for pod in _pods(registry):
        could_not = "; ".join(f"could not serve {version}: {why}" for version, why in pod.could_not.items())
        _line("pod", pod.pod, f"{pod.state}, serves {pod.serving or 'no version'}", could_not)
    _line("live policy", registry.live("policy") or "none")
    _line("live reward", registry.live("reward") or "none")
    for kind in dict.fromkeys(map(kind_of, registry.versions())):
        if (canary := record.under_way(registry, kind)) is not None:
            _line("canary", canary.version, f"answers {canary.share:.0%} of the conversations")
    _line("reference", *registry.references()[-1:])
    if alarm := folder.read_status("prediction").get("alarm"):
        _line("gate", alarm)
    trainer = folder.read_status("trainer")
    if trainer:
        age = max(0.0, time.time() - trainer.get("updated_ms", 0) / 1000)
        step = f", step {trainer['step']} of {trainer['steps']}" if trainer.get("steps") else ""
        _line("trainer", f"{trainer.get('phase')}{step}, cycle {trainer.get('cycle', 0)}", f"{age:.0f} s ago")
        if trainer.get("paused"):
            _line("learning", "is paused: `rlhf-online learning resume` goes on")
        _line("votes", ", ".join(f"{name} {count}" for name, count in trainer.get("votes", {}).items()))


def registry_of(folder: StateDir, copies: Path | None = None) -> Registry:
    """The versions of the services that run on the state folder, wherever they are; those of a bucket are copied to
    `copies`, or else to where the services' copies are. Raises ConfigError."""
    settings = _where(folder)
    return open_registry(copies if copies and settings.url else folder.versions, settings=settings)


def _where(folder: StateDir) -> VersionsSettings:
    written = folder.run / "standalone.toml"
    return load_versions(written if written.is_file() else None)


def _pods(registry: Registry) -> list[PodReport]:
    """Where there are several. One is what /readyz says already."""
    told = pods.reports(registry.store)
    return told if len(told) > 1 else []


def existing(state: Path) -> StateDir:
    """Raises InvalidInput if there is no such folder, unless the versions are elsewhere."""
    folder = StateDir(state)
    if not folder.root.is_dir() and not _where(folder).url:
        raise InvalidInput(f"no state folder at {folder.root}: name it with --state, or begin with `rlhf-online up`")
    return folder


def _check_name(version: str) -> None:
    """It is to stand in an address."""
    if not version.translate(str.maketrans("", "", "-._")).isalnum():
        raise InvalidInput(f"{version!r} is no version name: they look like policy-000012")


def _worth(figures: Mapping[str, float]) -> str:
    """Of a reward version: its accuracy on held-out comparisons, or else on thumbs, with the 95 % interval."""
    for name, prefix, count in (("accuracy", "", "accuracy_n"), ("thumb_auc", "thumbs ", "thumb_n")):
        if figures.get(count):
            return f"{prefix}{figures[name]:.2f} ({figures[f'{name}_low']:.2f}–{figures[f'{name}_high']:.2f})"
    return ""


def _line(name: str, *values: object) -> None:
    print(f"{name:<12} " + "  ".join(str(value) for value in values if value != ""))
