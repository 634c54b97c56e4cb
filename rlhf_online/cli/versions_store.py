"""`rlhf-online versions show|diff|pin|gc|verify`: what lies in the store, in a folder or in a bucket alike."""

import json
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from rlhf_online.cli.client import DEFAULT_STATE, StateOption
from rlhf_online.cli.versions import app, existing, registry_of
from rlhf_online.errors import InvalidInput, UnknownVersion, VersionCorrupt
from rlhf_online.rewards import weights
from rlhf_online.versions import pins
from rlhf_online.versions.catalogue import Catalogue
from rlhf_online.versions.manifest import kind_of
from rlhf_online.versions.registry import Registry

MOST = 20
"""Tensors that are shown."""

VersionArgument = Annotated[str, typer.Argument(help="Its name, 'policy-000012'.")]
JsonOption = Annotated[bool, typer.Option("--json", help="As JSON.")]


@app.command("show")
def show(version: VersionArgument, as_json: JsonOption = False, state: StateOption = DEFAULT_STATE) -> None:
    """One version: its manifest, its state, and what was measured of it."""
    registry = _registry(state, version)
    manifest, status = registry.manifest(version), registry.status(version)
    pinned, whole = version in pins.read(registry.store), registry.has_weights(version)
    if as_json:
        values = asdict(manifest) | {"status": asdict(status), "pinned": pinned, "has_files": whole}
        del values["probe"]
        print(json.dumps(values))
        return
    _line("version", version, "pinned: its weights are kept" if pinned else "")
    _line("state", status.state, status.reason, _when(status.changed_ms), f"by {status.by}" if status.by else "")
    _line("first live", _when(status.first_live_ms) or "never, or nobody noted it")
    _line("made", _when(manifest.created_ms))
    _line("tuning", manifest.tuning)
    for name, value in (
        ("parent", manifest.parent),
        ("reference", manifest.reference),
        ("reward", manifest.reward_version),
        ("KL", f"{manifest.kl:.4f} nats an answer" if version.startswith("policy") and manifest.parent else ""),
        ("learned up to", _pairs(manifest.position)),
        ("weights", _pairs(manifest.weights)),
        ("rules", manifest.rules_version),
        ("gate", _pairs(_flat(status.gate))),
        ("held out", _pairs(manifest.figures)),
    ):
        if value:
            _line(name, value)
    _line("probe", f"{len(manifest.probe)} sequences" if manifest.probe else "none")
    for item in manifest.files:
        _line("file", item.path, f"{item.size} bytes", f"sha256 {item.sha256[:16]}…")
    if not whole:
        _line("files", "discarded: only those of the newest versions are kept")


@app.command("diff")
def diff(
    before: Annotated[str, typer.Argument(help="A version, 'policy-000011'.")],
    after: Annotated[str, typer.Argument(help="Another of the same kind, 'policy-000012'.")],
    as_json: JsonOption = False,
    every: Annotated[bool, typer.Option("--all", help=f"All tensors that differ, not {MOST} of them.")] = False,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """What is different between two versions: descent, figures, files, and each tensor by its relative norm."""
    registry = _registry(state, before, after)
    if kind_of(before) != kind_of(after):
        raise InvalidInput(f"{before} and {after} are of different kinds: compare two policies, or two reward models")
    figures = {
        name: (_measured(registry, before).get(name), value) for name, value in _measured(registry, after).items()
    }
    files = {
        version: {item.path: item.sha256 for item in registry.manifest(version).files} for version in (before, after)
    }
    paths = {
        path: _change(files[before].get(path), files[after].get(path)) for path in sorted(files[before] | files[after])
    }
    compared = None
    if all(files.values()) and registry.has_weights(before) and registry.has_weights(after):
        from rlhf_online.models.tensor_differences import compare

        compared = compare(registry.path(before), registry.path(after))
    descent = _descent(registry, before, after)
    if as_json:
        tensors = None if compared is None else asdict(compared)
        print(json.dumps({"descent": descent, "figures": figures, "files": paths, "tensors": tensors}))
        return
    _line("descent", descent)
    for name, (old, new) in figures.items():
        _line("figure", name, "–" if old is None else f"{old:.4g}", "→", f"{new:.4g}")
    for path, change in paths.items():
        if change != "same":
            _line("file", change, path)
    if compared is None:
        _line("tensors", "cannot be compared: a version without files, or whose files were discarded")
        return
    shown = compared.differences if every else compared.differences[:MOST]
    for each in shown:
        relative = f"{each.relative:.3e}" if each.what == "changed" else each.what
        _line("tensor", f"{relative:>10}", each.name, "×".join(map(str, each.shape)))
    if len(shown) < len(compared.differences):
        _line("tensor", f"… and {len(compared.differences) - len(shown)} that differ less: --all shows them")
    _line("tensors", f"{len(compared.differences)} of {compared.tensors} differ", f"in all by {compared.relative:.3e}")


@app.command("pin")
def pin(
    version: VersionArgument,
    remove: Annotated[bool, typer.Option("--remove", help="Keep it no longer than others.")] = False,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Keep a version's weights for good, however many newer versions there are."""
    registry = _registry(state, version)
    if remove:
        pins.unpin(registry.store, version)
        print(f"{version} keeps its weights for as long as others do")
    elif not registry.has_weights(version):
        raise InvalidInput(f"{version} has no weights any more: there is nothing to keep")
    else:
        pins.pin(registry.store, version)
        print(f"{version} keeps its weights until `versions pin {version} --remove`")


@app.command("gc")
def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Remove what belongs to no version: files and folders that killed processes left, once they are a day old."""
    store = registry_of(existing(state)).store
    strays = store.strays()
    for stray in strays:
        print(f"{stray.size:>14}  {stray.key}")
    if strays and not dry_run:
        store.remove(strays)
    total = sum(stray.size for stray in strays)
    print(f"{len(strays)} {'would be ' if dry_run else ''}removed, {total} bytes")


@app.command("copy")
def copy(
    url: Annotated[str, typer.Argument(help="Where to, 's3://bucket/prefix'; nothing else may be there.")],
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Copy all versions of a state folder, and what is recorded of them, into a bucket; stop the services first.

    Set versions.url to it afterwards. Cut short, it goes on where it was; the folder stays as it is.
    """
    from rlhf_online.versions import copying, open_bucket
    from rlhf_online.versions.folder_store import FolderStore
    from rlhf_online.versions.object_store import ObjectStore

    folder = FolderStore((root := existing(state)).versions)
    with copying.staging_folder(folder) as staging:
        bucket = ObjectStore(open_bucket(url), Path(staging), 0)
        for version in copying.copy(folder, bucket):
            print(f"{version}  copied")
        weights.adopt(bucket, root)
    print(f'with versions.url = "{url}" the services go on there, and the checkpoints follow')


@app.command("verify")
def verify(
    version: Annotated[str, typer.Argument(help="Its name; by default all that have their files.")] = "",
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Compare every file with the SHA-256 of its version's manifest; of a bucket each file is fetched anew."""
    folder = existing(state)
    damaged = 0
    with tempfile.TemporaryDirectory(prefix="rlhf-verify-") as copies:
        registry = registry_of(folder, copies=Path(copies))
        for name in [version] if version else registry.versions():
            try:
                if not registry.has_weights(name) and registry.store.files(name) == frozenset():
                    registry.manifest(name)
                    print(f"{name}  its files were discarded")
                    continue
                registry.verify(name)
                print(f"{name}  ok")
            except VersionCorrupt as error:
                damaged += 1
                print(f"{name}  DAMAGED  {error}")
    if damaged:
        raise VersionCorrupt(f"{damaged} damaged: bring the files named above back from a copy, or roll back")


def _registry(state: Path, *versions: str) -> Registry:
    """Raises UnknownVersion."""
    registry = registry_of(existing(state))
    for version in versions:
        kind_of(version)
        if not registry.store.contains(version):
            raise UnknownVersion(f"no version {version!r}: `rlhf-online versions list` shows them")
    return registry


def _descent(catalogue: Catalogue, before: str, after: str) -> str:
    older, newer = _ancestors(catalogue, before), _ancestors(catalogue, after)
    if before in newer:
        return f"{after} comes from {before}, {newer.index(before)} versions later"
    if after in older:
        return f"{before} comes from {after}, {older.index(after)} versions later"
    common = next((version for version in newer if version in older), None)
    return f"both come from {common}" if common else "neither comes from the other"


def _ancestors(catalogue: Catalogue, version: str) -> list[str]:
    """Itself, its parent, and so on."""
    found: list[str] = []
    while version and version not in found:
        found.append(version)
        try:
            version = catalogue.manifest(version).parent
        except (UnknownVersion, VersionCorrupt):
            break
    return found


def _measured(catalogue: Catalogue, version: str) -> dict[str, float]:
    manifest = catalogue.manifest(version)
    kl = {"kl": manifest.kl} if version.startswith("policy") else {}
    return kl | _flat(catalogue.status(version).gate) | manifest.figures


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    found: dict[str, float] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{name}.")
        elif isinstance(value, int | float):
            found[f"{prefix}{name}"] = float(value)
    return found


def _change(before: str | None, after: str | None) -> str:
    if before == after:
        return "same"
    return "added" if before is None else "removed" if after is None else "changed"


def _pairs(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in values.items())


def _when(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC" if ms else ""


def _line(name: str, *values: object) -> None:
    print(f"{name:<14}" + "  ".join(_told(values)))


def _told(values: Iterable[object]) -> Iterable[str]:
    return (text for value in values if (text := str(value)))
