"""`rlhf-online retrain --without NAME`: what comes out is, byte for byte, what a log without that person teaches."""

import json
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from rlhf_online import events as ev
from rlhf_online.cli import main
from rlhf_online.config import EngineSettings
from rlhf_online.config.offline import OfflineSettings
from rlhf_online.engine.fitness import Fitness
from rlhf_online.eventlog.local import LocalLog
from rlhf_online.models.policy import Policy
from rlhf_online.rewards import audiences
from rlhf_online.rewards import weights as weights_of
from rlhf_online.simulation.tiny_model import write_tiny_model
from rlhf_online.state import StateDir
from rlhf_online.training.offline.__main__ import run
from rlhf_online.training.settings import RewardTraining
from rlhf_online.versions import open_registry
from rlhf_online.versions.manifest import Manifest
from rlhf_online.wire import encode
from tests.support.logged import completion, ref
from tests.support.trainer_world import world

GOOD, BAD = (5, 6, 1), (7, 8, 1)
ANN, BOB = "ann", "bob"


@pytest.fixture(autouse=True)
def umask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "umask", lambda mask: 0)


def said(state: StateDir, whose: Iterable[str], about: Mapping[str, str]) -> list[ev.Envelope]:
    """Ann likes the one answer, Bob the other; each judges what they asked, and Ann now and then what Bob did. `about`:
    by which objective."""
    hashes = {name: state.person_hash()(name) for name in (ANN, BOB)}
    found: list[ev.Envelope] = []
    for number in range(24):
        for asker, voter in ((ANN, ANN), (BOB, BOB), (BOB, ANN)):
            if {asker, voter} <= set(whose):
                name = f"{asker}-{voter}-{number}"
                pair = (ref(name, 0), ref(name, 1)) if voter == ANN else (ref(name, 1), ref(name, 0))
                vote = ev.Pairwise(chosen=pair[0], rejected=pair[1])
                asked = completion(name, answers=[GOOD, BAD], conversation=f"talk {name}", person=hashes[asker])
                feedback = ev.Feedback(
                    conversation_id=f"talk {name}", person=hashes[voter], kind=vote, created_ms=2_000,
                    objective=about.get(voter, ""),
                )  # fmt: skip
                found += [asked, ev.Envelope(event_id=f"v {name}", event=feedback)]
    return found


def logged(
    folder: Path,
    base: Path,
    whose: Iterable[str],
    *,
    elsewhere: Path | None = None,
    about: Mapping[str, str] | None = None,
    tuning: str = "full",
) -> StateDir:
    """A trainer's state folder, with what they said in its log, or in that folder."""
    state = StateDir(folder)
    salt = "0123456789abcdef0123456789abcdef"
    folder.mkdir()
    (folder / "person.salt").write_text(salt)
    with LocalLog(elsewhere or state.log) as log:
        log.append_all([encode(envelope) for envelope in said(state, whose, about or {})]).result(30)
    state.run.mkdir(parents=True, exist_ok=True)
    values = f'model = "{base}"\ntuning = "{tuning}"\ndevice = "cpu"\nseed = 3\n[reward]\nheld_out = 0.2\n'
    values += 'objectives = ["helpful", "terse"]\n' if about else ""
    values += f'[log]\nurl = "file:{elsewhere}"\n' if elsewhere else ""
    (state.run / "trainer.toml").write_text(values)
    return state


def answers_for(state: StateDir, kind: str, *, rank: int) -> None:
    """There is a version of that kind, with an adapter of that rank."""
    registry = open_registry(state.versions)
    version = registry.reserve(kind)
    (registry.stage(version) / "adapter_config.json").write_text(json.dumps({"r": rank}))
    registry.publish(Manifest(version=version, tuning="lora"))
    registry.promote(version)


def weights(folder: Path) -> dict[str, Any]:
    return {name: tensor for path in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(path).items()}


def test_it_is_what_a_log_teaches_in_which_they_never_were(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    write_tiny_model(tmp_path / "base", weights_seed=0)
    both = logged(tmp_path / "both", tmp_path / "base", (ANN, BOB), elsewhere=tmp_path / "log")
    alone = logged(tmp_path / "alone", tmp_path / "base", (BOB,))
    assert main(["retrain", "--without", ANN, "--state", str(both.root), "--out", str(tmp_path / "out")]) == 0
    told = capfd.readouterr().out
    assert f"{both.person_hash()(ANN)}  no version has learned from them" in told and "serve it: " in told
    report = json.loads((tmp_path / "out" / "retrained.json").read_text())
    assert report["without"] == [both.person_hash()(ANN)]
    for name, algorithm in (("reward", "reward"), ("policy", "dpo")):
        assert report[name]["left_out"] == {"erased": 48}, "what she asked, and what she thought of what he did"
        given = {
            "model": tmp_path / "base", "log": str(alone.root), "out": tmp_path / name, "algorithm": algorithm,
            "tuning": "full", "device": "cpu", "seed": 3, "held_out": 0.2,
        }  # fmt: skip
        run(OfflineSettings.model_validate(given), time.monotonic())
        ours, theirs = weights(tmp_path / "out" / name), weights(tmp_path / name)
        assert ours.keys() == theirs.keys() and all(bool((ours[each] == theirs[each]).all()) for each in ours)


def test_adapters_come_out_as_versions_that_serve_and_learn_beside_each_other_as_before(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    """Ann says what is helpful, Bob what is terse, each of their own: "brief" hears Bob alone."""
    base, out, objectives = tmp_path / "base", tmp_path / "out", ("helpful", "terse")
    write_tiny_model(base, weights_seed=3)
    both = logged(tmp_path / "both", base, (ANN, BOB), about={ANN: "helpful", BOB: "terse"}, tuning="lora")
    store = open_registry(both.versions).store
    weights_of.change(store, both, {"helpful": 3.0}, objectives)
    audiences.define(store, "brief", {"helpful": 0.0, "terse": 2.0, "rule:short": 1.0}, {}, objectives, ["rule:short"])
    audiences.define(store, "plain", {"helpful": 2.0}, {}, objectives)
    answers_for(both, "policy", rank=4)
    answers_for(both, "policy.brief", rank=4)
    assert main(["retrain", "--without", "0" * 32, "--state", str(both.root), "--out", str(out)]) == 0
    said = capfd.readouterr().out
    assert "audiences/brief: without rule:short: it learns from votes, and rules have none" in said
    assert f"serve it: rlhf-online up --model {base} --state {out / 'state'}" in said
    report = json.loads((out / "retrained.json").read_text())
    assert report.keys() - {"without", "versions_that_saw_them"} == {"reward", "policy", "audiences/brief"}
    assert report["policy"]["settings"]["weights"] == {"helpful": 3.0, "terse": 1.0}
    brief = report["audiences/brief"]
    assert brief["settings"]["weights"] == {"helpful": 0.0, "terse": 2.0}
    assert report["policy"]["of"] == brief["of"] + brief["without_an_order"] and brief["without_an_order"] > brief["of"]

    registry = open_registry(out / "state" / "versions")
    lives = ["policy-000001", "policy.brief-000000"]
    assert [registry.live("policy"), registry.live("policy.brief")] == lives
    assert (audiences.read(registry.store), registry.references()) == (audiences.read(store), ["policy-000000"])
    assert weights_of.read(registry.store, StateDir(out / "state")) == {"helpful": 3.0, "terse": 1.0}
    fitness = Fitness(registry, EngineSettings(model=str(base), tuning="lora"))
    policies = {name: Policy.load(base, tuning="lora", version=registry.path(name)) for name in registry.versions()}
    for name in lives:
        manifest = registry.manifest(name)
        assert (manifest.parent, manifest.tuning) == ("policy-000000", "lora")
        adapter = json.loads((fitness.check(name).folder / "adapter_config.json").read_text())
        assert adapter["r"] == 4, "as the live ones have"
        said_so = [value for sequence in manifest.probe for value in sequence.logprobs]
        computed = policies[name].probe([sequence.token_ids for sequence in manifest.probe])
        assert said_so == pytest.approx([value for sequence in computed for value in sequence.logprobs], abs=1e-5)

    def prefers_good(name: str) -> float:
        good, bad = policies[name].logprobs([((5, 6, 7), GOOD), ((5, 6, 7), BAD)])
        return sum(good) - sum(bad)

    assert prefers_good("policy-000001") > prefers_good("policy-000000") > prefers_good("policy.brief-000000")

    learns = RewardTraining(objectives=objectives, heads=2, batch=16, epochs=1, cold_epochs=2, policy_accuracy=0.0)
    with world(out, tuning="lora", reward=learns) as tiny, tiny.trainer() as trainer:
        tiny.chat(12, objective="helpful")
        tiny.chat(12, objective="terse", longest=True)
        assert trainer.run_once()
        parents = [tiny.registry.manifest(name).parent for name in ("policy-000002", "policy.brief-000001")]
        assert parents == lives
        assert tiny.registry.manifest("policy.plain-000000").parent == "policy-000002", "as one that began does"


def test_without_a_model_or_for_no_policy_one_is_told_what_to_give(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    state = tmp_path / "state"
    (state / "log").mkdir(parents=True)
    command = ["retrain", "--without", "0" * 32, "--state", str(state), "--out", str(tmp_path / "out")]
    assert main(command) == 2 and "names no model: give the base model with --model" in capsys.readouterr().err
    assert main([*command, "--algorithm", "reward"]) == 2 and "learns no policy" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
