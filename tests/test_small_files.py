"""Every small file of a state folder, damaged in every way: whoever reads it goes on where that is right, or stops with
one sentence that names the file. Nobody ends with a traceback."""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest

from rlhf_online.cli.client import running_at
from rlhf_online.durable import write_json
from rlhf_online.errors import RlhfError
from rlhf_online.eventlog import folder as log_files
from rlhf_online.eventlog import gap
from rlhf_online.eventlog.local import LocalLog
from rlhf_online.eventlog.spool import Spool
from rlhf_online.rewards import audiences, weights
from rlhf_online.rewards.rules import record
from rlhf_online.rewards.rules.ruleset import parse
from rlhf_online.state import StateDir
from rlhf_online.training.checkpoint import CheckpointPart, Checkpoints
from rlhf_online.training.lease import FileLease
from rlhf_online.versions import open_registry
from rlhf_online.versions.manifest import Manifest, ProbeSequence
from rlhf_online.versions.registry import Registry
from services.standalone.children import read_ready

DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "rubbish": lambda path: path.write_bytes(b"\xff\x00{[" * 100),
    "missing": lambda path: path.unlink(),
    "unreadable": lambda path: (path.unlink(), path.mkdir()),  # as root, who may read everything, this is
}
NAMED = "an error that names it"


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallFile:
    """`read` gives `intact`; with any damage it gives `damaged`, but for the damages in `but`."""

    path: str
    read: Callable[[Path], Any]
    intact: Any
    damaged: Any = NAMED
    but: dict[str, Any] = field(default_factory=dict)


def state_of(version: str) -> Callable[[Path], str]:
    def read(state: Path) -> str:
        registry = open_registry(state / "versions")
        status = registry.status(version)
        rows = open_registry(state / "versions").lineage()
        assert (version in rows) == (status.state in ("live", "retired"))
        registry.prune("policy", 5)
        return status.state

    return read


def versions(state: Path) -> Registry:
    return open_registry(state / "versions")


def objectives_weights(state: Path, *, recorded: bool = True) -> weights.Weights:
    """Those of the record, or of an earlier release's file, which counts as long as there is no record."""
    if not recorded:
        (state / "versions" / weights.KEY).unlink()
    return weights.read(versions(state).store, StateDir(state))


def checkpoint(state: Path) -> int:
    found = Checkpoints(state / "checkpoints", 3).load()
    return found.state["n"] if found else 0


def records(state: Path) -> int:
    with LocalLog(state / "log") as log:
        return log.end


def shipped(state: Path) -> int:
    spool = Spool(state / "log")
    spool.close()
    return spool.shipped


def epoch(state: Path) -> int:
    with FileLease.take(state / "checkpoints") as lease:
        return lease.epoch


def rolled_back(state: Path) -> str:
    return versions(state).rollback("policy", reason="worse").version


RULES = "[propositions.zinc]\nwords = ['zinc']\n[rules.metal]\nweights = { zinc = 1 }\n"
PROBE = (ProbeSequence(token_ids=(1, 2), logprobs=(-0.5,)),)
REBUILT = ["policy-000000", "policy-000001"]

FILES = (
    SmallFile(
        path="versions/live/policy",
        read=lambda state: versions(state).live("policy"),
        intact="policy-000002",
        damaged="policy-000002",
    ),
    SmallFile(
        path="versions/live/policy",
        read=rolled_back,
        intact="policy-000001",
        damaged="policy-000001",
        but={"unreadable": NAMED},
    ),
    SmallFile(
        path="versions/states/policy-000002.json",
        read=state_of("policy-000002"),
        intact="live",
        damaged="live",
        but={"missing": "candidate"},
    ),
    SmallFile(
        path="versions/states/policy-000001.json",
        read=state_of("policy-000001"),
        intact="retired",
        damaged="failed",
        but={"missing": "candidate"},
    ),
    SmallFile(
        path="versions/states/policy-000001.json",
        read=rolled_back,
        intact="policy-000001",
        damaged="policy-000000",
    ),
    SmallFile(
        path="versions/references",
        read=lambda state: versions(state).references(),
        intact=REBUILT,
        damaged=REBUILT,
        but={"missing": ["policy-000000"]},
    ),
    SmallFile(
        path="versions/probes/policy-000000.json",
        read=lambda state: versions(state).manifest("policy-000000").probe,
        intact=PROBE,
        damaged=(),
    ),
    SmallFile(
        path="versions/next/policy",
        read=lambda state: versions(state).reserve("policy"),
        intact="policy-000003",
        damaged="policy-000004",
        but={"unreadable": NAMED},
    ),
    SmallFile(
        path="versions/reward-weights",
        read=objectives_weights,
        intact={"helpful": 2.0},
        but={"missing": {"helpful": 3.0}},
    ),
    SmallFile(
        path="versions/audiences",
        read=lambda state: audiences.read(versions(state).store),
        intact={"brief": {"helpful": 2.0}},
        but={"missing": {}},
    ),
    SmallFile(
        path="versions/reward-rules",
        read=lambda state: record.read(versions(state).store).text,
        intact=RULES,
        but={"missing": ""},
    ),
    SmallFile(
        path="reward-weights.json",
        read=lambda state: objectives_weights(state, recorded=False),
        intact={"helpful": 3.0},
        but={"missing": {}},
    ),
    SmallFile(
        path="status/trainer.json",
        read=lambda state: StateDir(state).read_status("trainer"),
        intact={"cycle": 1},
        damaged={},
    ),
    SmallFile(path="run/standalone.ready.json", read=running_at, intact="", damaged=""),
    SmallFile(
        path="run/standalone.ready.json",
        read=lambda state: read_ready(state / "run" / "standalone.ready.json"),
        intact={"pid": 0},
        damaged=None,
    ),
    SmallFile(path="log/committed", read=records, intact=2, damaged=2, but={"unreadable": NAMED}),
    SmallFile(
        path="log/readers/trainer",
        read=lambda state: log_files.first_needed(state / "log"),
        intact=1,
        damaged=0,
        but={"missing": None},
    ),
    SmallFile(path="log/shipped.json", read=shipped, intact=1, but={"missing": 0}),
    SmallFile(path="checkpoints/epoch.json", read=epoch, intact=3, damaged=3, but={"unreadable": NAMED}),
    SmallFile(
        path="checkpoints/accept-gap.json",
        read=lambda state: gap.accepted(state / "checkpoints", "a log", {"local": 1}),
        intact=True,
        damaged=False,
    ),
    *(
        SmallFile(path=f"checkpoints/000001/{name}", read=checkpoint, intact=2, damaged=1)
        for name in ("manifest.json", "state.json")
    ),
    SmallFile(path="checkpoints/000001/intake.json", read=checkpoint, intact=2, damaged=2, but={"unreadable": 1}),
    SmallFile(path="checkpoints/000001/intake.json.parity", read=checkpoint, intact=2, damaged=2),
)


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder that has seen some use."""
    root = tmp_path_factory.mktemp("state")
    state, registry = StateDir(root), open_registry(root / "versions")
    for number in range(3):
        name = registry.reserve("policy")
        (registry.stage(name) / "w").write_text("weights")
        registry.publish(Manifest(version=name, tuning="full", reference=REBUILT[number > 1]))
        registry.promote(name)
        if number == 1:
            registry.refresh_reference(name)
    registry.add_probe("policy-000000", PROBE)
    weights.change(registry.store, state, {"helpful": 2.0}, ["helpful"])
    write_json(state.reward_weights, {"helpful": 3.0})
    record.apply(registry.store, parse(RULES))
    audiences.define(registry.store, "brief", {"helpful": 2.0}, {}, ["helpful"])
    state.write_status("trainer", {"cycle": 1})
    write_json(state.run / "standalone.ready.json", {"pid": 0})
    with LocalLog(state.log) as log:
        for payload in (b"one", b"two"):
            log.append(payload).result(30)
        write_json(state.log / "shipped.json", {"spool": log.identity, "shipped": 1})
    log_files.mark_consumed(state.log, "trainer", 1)
    for number in (1, 2):
        with FileLease.take(state.checkpoints) as lease:
            kept = Checkpoints(state.checkpoints, 3, lease)
            kept.save({"n": number}, {"intake": CheckpointPart({}, {"n": number})}, {}, gap.Place("a log", {}))
    write_json(state.checkpoints / "accept-gap.json", asdict(gap.Place("a log", {"local": 1})))
    return root


@pytest.mark.parametrize("damage", ["intact", *DAMAGES])
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.path)
def test_a_damaged_small_file_ends_nobody(file: SmallFile, damage: str, intact: Path, tmp_path: Path) -> None:
    state = shutil.copytree(intact, tmp_path / "state")
    if damage == "intact":
        expected = file.intact
    else:
        expected = file.but.get(damage, file.damaged)
        DAMAGES[damage](state / file.path)
    if expected != NAMED:
        assert file.read(state) == expected
        return
    with pytest.raises(RlhfError) as raised:
        file.read(state)
    assert str(state / file.path) in str(raised.value)
    assert ": " in str(raised.value), "and says what to do"


def test_every_small_file_of_a_state_folder_is_tried(intact: Path) -> None:
    tried = {file.path for file in FILES}
    found = {str(path.relative_to(intact)) for path in intact.rglob("*") if path.is_file()}
    others = {
        "log/identity",  # another name is another log, which the trainer says: tests/eventlog/test_tail.py
        *(path for path in found if path.endswith((".log", "lock")) or path.startswith("checkpoints/000000")),
        *(path for path in found if path.startswith("versions/policy-")),  # tests/versions/test_folder_store.py
        "versions/states/policy-000000.json",
    }
    assert found - others == tried


def test_what_is_damaged_is_told_once_and_counted_until_it_is_good_again(
    intact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = shutil.copytree(intact, tmp_path / "state")
    registry = versions(state)
    (state / "versions/live/policy").write_bytes(b"")
    for _ in range(3):
        assert registry.live("policy") == "policy-000002"
    assert capsys.readouterr().out.count("live/policy is empty") == 1
    assert list(registry.damaged) == ["live/policy"]
    registry.promote("policy-000002")
    assert (state / "versions/live/policy").read_text() == "policy-000002", "written anew"
    assert registry.live("policy") == "policy-000002"
    assert registry.damaged == {}


def test_a_damaged_state_is_written_anew_by_whoever_sets_it(intact: Path, tmp_path: Path) -> None:
    state = shutil.copytree(intact, tmp_path / "state")
    (state / "versions/states/policy-000002.json").write_bytes(b"")
    versions(state).mark("policy-000002", "failed", reason="its weights are damaged")
    assert versions(state).rollback("policy", reason="", failed="policy-000002").version == "policy-000001"
    assert json.loads((state / "versions/states/policy-000002.json").read_text())["state"] == "failed"
