"""`rlhf-online versions …` that read and keep order in a store, over a folder and a bucket."""

import json
import os
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from rlhf_online.cli import main
from rlhf_online.cli.versions import existing, registry_of
from rlhf_online.durable import write_json
from rlhf_online.rewards import weights
from rlhf_online.state import StateDir
from rlhf_online.versions import blobs, folder_store
from rlhf_online.versions.bucket import Bucket
from rlhf_online.versions.manifest import Manifest
from rlhf_online.versions.registry import Registry
from tests.support.object_server import BUCKET


@pytest.fixture(params=["folder", "bucket"])
def state(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StateDir:
    """Of services whose versions are in the folder, or in a bucket that the environment names."""
    if request.param == "bucket":
        request.getfixturevalue("bucket")
        monkeypatch.setenv("RLHF_VERSIONS__URL", f"s3://{BUCKET}/{tmp_path.name}")
    state = StateDir(tmp_path / "state")
    state.root.mkdir()
    return state


@pytest.fixture
def registry(state: StateDir) -> Registry:
    return registry_of(existing(state.root))


def publish(registry: Registry, weight: float, parent: str = "", kl: float = 0.0) -> str:
    version = registry.reserve("policy")
    tensors = {"a.weight": torch.tensor([weight]), "b.weight": torch.ones(3)}
    save_file(tensors, registry.stage(version) / "model.safetensors")
    registry.publish(Manifest(version=version, tuning="full", parent=parent, kl=kl))
    registry.promote(version, gate={"win_rate": 0.5 + kl / 10, "of": "both"}, reason="better")
    return version


def run(state: StateDir, *words: str) -> int:
    return main(["versions", *words, "--state", str(state.root)])


def test_show_tells_what_a_version_is_and_how_it_fares(
    state: StateDir, registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    first = publish(registry, 2.0)
    second = publish(registry, 3.0, first, kl=1.25)
    assert run(state, "show", second) == 0
    told = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    assert ["parent", first] in told and ["gate", "win_rate 0.625"] in told
    assert ["KL", "1.2500 nats an answer"] in told
    assert dict(line for line in told if len(line) == 2)["state"].startswith("live  better  20")
    assert run(state, "show", second, "--json") == 0
    values = json.loads(capsys.readouterr().out)
    assert (values["version"], values["status"]["state"], values["pinned"]) == (second, "live", False)
    assert run(state, "show", "policy-000009") == 2
    assert "no version 'policy-000009'" in capsys.readouterr().err


def test_diff_tells_descent_figures_and_each_tensor_that_changed(
    state: StateDir, registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    first = publish(registry, 2.0)
    middle = publish(registry, 2.5, first)
    last = publish(registry, 3.0, middle, kl=1.25)
    assert run(state, "diff", first, last) == 0
    told = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert told[0] == ["descent", *f"{last} comes from {first}, 2 versions later".split()]
    assert ["figure", "kl", "0", "→", "1.25"] in told and ["figure", "win_rate", "0.5", "→", "0.625"] in told
    assert ["file", "changed", "model.safetensors"] in told
    assert ["tensor", "5.000e-01", "a.weight", "1"] in told
    assert told[-1] == ["tensors", "1", "of", "2", "differ", "in", "all", "by", "3.780e-01"]
    assert run(state, "diff", last, middle, "--json") == 0
    values = json.loads(capsys.readouterr().out)
    assert values["descent"] == f"{last} comes from {middle}, 1 versions later"
    assert [each["name"] for each in values["tensors"]["differences"]] == ["a.weight"]


def test_a_pinned_version_says_so_and_one_without_weights_cannot_be_pinned(
    state: StateDir, registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    versions = [publish(registry, float(number)) for number in range(4)]
    assert run(state, "pin", versions[1]) == 0
    assert registry.prune("policy", 0) == [versions[2]]
    capsys.readouterr()
    assert run(state, "show", versions[1]) == 0
    assert "pinned" in capsys.readouterr().out.splitlines()[0]
    assert run(state, "pin", versions[2]) == 2
    assert f"{versions[2]} has no weights any more" in capsys.readouterr().err
    assert run(state, "pin", versions[1], "--remove") == 0
    assert registry.prune("policy", 0) == [versions[1]]


def test_gc_removes_what_killed_processes_left_and_a_dry_run_only_tells(
    state: StateDir, registry: Registry, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    version = publish(registry, 1.0)
    monkeypatch.setattr(blobs, "GRACE", timedelta(0))
    monkeypatch.setattr(folder_store, "GRACE_S", -1)
    if url := os.environ.get("RLHF_VERSIONS__URL"):
        (state.root / "left").write_text("left")
        Bucket(url).upload("blobs/sha256/0123", state.root / "left")
    else:
        (registry.store.stage("policy-000007") / "left").write_text("left")
    for command, told in ((("gc", "--dry-run"), "1 would be removed, 4 bytes"), (("gc",), "1 removed, 4 bytes")):
        assert run(state, *command) == 0
        assert capsys.readouterr().out.splitlines()[-1] == told
    assert run(state, "gc") == 0
    assert capsys.readouterr().out == "0 removed, 0 bytes\n"
    assert run(state, "verify", version) == 0


def test_verify_names_the_file_that_is_damaged_where_it_is_kept(
    state: StateDir, registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a bucket that is the bucket, whatever good copies of it there are."""
    versions = [publish(registry, float(number)) for number in range(4)]
    registry.prune("policy", 1)
    assert run(state, "verify") == 0
    told = capsys.readouterr().out.splitlines()
    assert told == [
        f"{version}  {'its files were discarded' if version == versions[1] else 'ok'}" for version in versions
    ]
    if url := os.environ.get("RLHF_VERSIONS__URL"):
        digest = registry.manifest(versions[2]).files[0].sha256
        (state.root / "bad").write_bytes(b"x" * registry.manifest(versions[2]).files[0].size)
        Bucket(url).upload(f"blobs/sha256/{digest}", state.root / "bad")
        said = f"{url}/blobs/sha256/{digest} does not have the SHA-256"
    else:
        (registry.path(versions[2]) / "model.safetensors").write_bytes(b"bad")
        said = "model.safetensors is missing or not"
    assert run(state, "verify") == 1
    rows = capsys.readouterr().out.splitlines()
    assert [row.split()[1] for row in rows] == ["ok", "its", "DAMAGED", "ok"]
    assert said in rows[2]


def test_copy_takes_the_versions_of_a_folder_into_a_bucket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bucket: object, capsys: pytest.CaptureFixture[str]
) -> None:
    state = StateDir(tmp_path / "state")
    state.root.mkdir()
    here = registry_of(existing(state.root))
    first = publish(here, 2.0)
    last = publish(here, 3.0, first)
    write_json(state.reward_weights, {"harmless": 0.5})  # as an earlier release kept them
    url = f"s3://{BUCKET}/{tmp_path.name}"
    assert run(state, "copy", url) == 0
    assert capsys.readouterr().out.splitlines()[:2] == [f"{first}  copied", f"{last}  copied"]
    monkeypatch.setenv("RLHF_VERSIONS__URL", url)
    there = registry_of(existing(state.root))
    assert there.live("policy") == last and there.verify(first).version == first
    assert weights.read(there.store, StateDir(tmp_path / "elsewhere")) == {"harmless": 0.5}
    monkeypatch.delenv("RLHF_VERSIONS__URL")
    assert run(state, "copy", "nowhere://x") == 2
    assert "versions.url: 'nowhere://x' cannot be opened" in capsys.readouterr().err
