"""`rlhf-online audiences`: defined, listed with what counts and who answers, removed; refused where none can be."""

import json
from pathlib import Path

import pytest

from rlhf_online.cli import main
from rlhf_online.rewards import weights
from rlhf_online.state import StateDir
from rlhf_online.versions import open_registry
from rlhf_online.versions.manifest import Manifest, Tuning


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    return StateDir(tmp_path / "state")


def published(state: StateDir, kind: str, tuning: Tuning = "lora") -> str:
    registry = open_registry(state.versions)
    version = registry.reserve(kind)
    (registry.stage(version) / "reward.json").write_text(json.dumps({"objectives": ["helpful", "harmless"]}))
    registry.publish(Manifest(version=version, tuning=tuning))
    registry.promote(version)
    return version


def test_they_are_defined_listed_and_removed(state: StateDir, capsys: pytest.CaptureFixture[str]) -> None:
    folder = ["--state", str(state.root)]
    for kind in ("policy", "reward"):
        published(state, kind)
    assert main(["audiences", "list", *folder]) == 0
    assert capsys.readouterr().out == "there are no audiences: everybody is answered alike\n"
    weights.change(open_registry(state.versions).store, state, {"harmless": 3.0}, ["helpful", "harmless"])
    assert main(["audiences", "set", "brief", "helpful=0.5", *folder]) == 0
    rows = [line.split(maxsplit=3) for line in capsys.readouterr().out.splitlines()[1:]]
    assert rows == [["brief", "helpful", "0.5", "the common adapter, until its first version"], ["harmless", "3"]]
    version = published(state, "policy.brief")
    assert main(["audiences", "list", *folder]) == 0
    assert version in capsys.readouterr().out
    assert main(["versions", "list", *folder]) == 0
    assert f"{version} live" in capsys.readouterr().out
    assert main(["versions", "show", version, *folder]) == 0
    assert main(["audiences", "remove", "brief", *folder]) == 0
    assert main(["audiences", "remove", "brief", *folder]) == 2
    assert "'brief' is no audience: there are none" in capsys.readouterr().err


def test_with_whole_weights_there_are_none(state: StateDir, capsys: pytest.CaptureFixture[str]) -> None:
    published(state, "policy", "full")
    published(state, "reward", "full")
    assert main(["audiences", "set", "brief", "helpful=2", "--state", str(state.root)]) == 2
    assert "begin a state folder with tuning = 'lora'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["brief", "helpfull=2"], "'helpfull' is no objective: there are helpful, harmless"),
        (["brief", "helpful"], "'helpful' sets no weight"),
        (["Brief", "helpful=2"], "'Brief' is no name of an audience"),
    ],
)
def test_what_is_of_no_use_is_refused(
    state: StateDir, capsys: pytest.CaptureFixture[str], given: list[str], words: str
) -> None:
    for kind in ("policy", "reward"):
        published(state, kind)
    assert main(["audiences", "set", *given, "--state", str(state.root)]) == 2
    assert words in capsys.readouterr().err
