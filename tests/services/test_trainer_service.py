"""The trainer's process: it waits for a first version, keeps a second one out, ends when asked, says what is wrong.

One that was replaced ends by itself.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from rlhf_online.config import dump
from rlhf_online.eventlog.local import LocalLog
from rlhf_online.simulation.tiny_model import write_tiny_model
from rlhf_online.state import StateDir
from rlhf_online.training.lease import FileLease
from rlhf_online.training.settings import TrainerSettings
from rlhf_online.versions import open_registry
from rlhf_online.versions.genesis import genesis
from tests.support.small_disk import cannot_mount, small_disk
from tests.support.waiting import until

ROOT = Path(__file__).resolve().parents[2]


def start(path: Path, **variables: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "services.trainer", "--config", str(path)]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, env={**os.environ, **variables})


def settings_in(folder: Path, ready: Path | None = None) -> TrainerSettings:
    """With a model, and with the other services down."""
    return TrainerSettings(
        state_dir=folder / "state",
        chat_url="http://127.0.0.1:9",
        reward_address="127.0.0.1:9",
        model=str(folder / "model"),
        metrics_port=0,
        ready_file=ready,
        device="cpu",
    )


def test_it_waits_for_a_version_keeps_others_out_and_ends_when_asked(tmp_path: Path) -> None:
    write_tiny_model(tmp_path / "model", weights_seed=None)
    ready, state = tmp_path / "ready.json", StateDir(tmp_path / "state")
    settings = settings_in(tmp_path, ready)
    dump(settings, tmp_path / "trainer.toml")
    process = start(tmp_path / "trainer.toml")
    try:
        until(lambda: state.read_status("trainer") or process.poll() is not None, 120, "a status")
        status = state.read_status("trainer")
        assert (status["phase"], status["waiting_for"]) == ("waiting", "the first policy version")
        port = json.loads(ready.read_text())["metrics"]
        assert "rlhf_trainer_log_lag" in httpx.get(f"http://127.0.0.1:{port}/metrics").text

        second = start(tmp_path / "trainer.toml")
        said = second.communicate(timeout=120)[1].decode()
        assert f"another trainer (process {process.pid}) works on" in said
        assert second.returncode == 1

        elsewhere = settings.model_copy(update={"state_dir": tmp_path / "other", "metrics_port": port})
        dump(elsewhere, tmp_path / "elsewhere.toml")
        third = start(tmp_path / "elsewhere.toml")
        assert f"port {port} on 127.0.0.1 cannot be opened" in third.communicate(timeout=120)[1].decode()
        assert third.returncode == 2
    finally:
        process.terminate()
        process.communicate(timeout=60)
    assert process.returncode == 0


def test_it_makes_the_first_version_of_a_model_with_weights(tmp_path: Path) -> None:
    """Where services are pods of their own nobody else does; the engine compares its answers with the probe."""
    write_tiny_model(tmp_path / "model", weights_seed=1)
    state = StateDir(tmp_path / "state")
    dump(settings_in(tmp_path), tmp_path / "trainer.toml")
    process = start(tmp_path / "trainer.toml")
    try:
        registry = open_registry(state.versions)
        until(lambda: registry.live("policy") or process.poll() is not None, 120, "a first version")
        assert registry.live("policy") == "policy-000000"
        assert registry.manifest("policy-000000").probe
        until(lambda: "cycle" in state.read_status("trainer") or process.poll() is not None, 120, "a trainer at work")
    finally:
        process.terminate()
        process.communicate(timeout=60)
    assert process.returncode == 0


def test_one_that_was_replaced_ends_and_says_what_to_do(tmp_path: Path) -> None:
    write_tiny_model(tmp_path / "model", weights_seed=1)
    state = StateDir(tmp_path / "state")
    genesis(open_registry(state.versions), tmp_path / "model", tuning="full", probe_of=lambda model: ())
    dump(settings_in(tmp_path), tmp_path / "trainer.toml")
    LocalLog(state.log).close()
    process = start(tmp_path / "trainer.toml")
    try:
        until(lambda: "cycle" in state.read_status("trainer") or process.poll() is not None, 120, "a trainer at work")
        (state.checkpoints / "lock").unlink()
        with FileLease.take(state.checkpoints):
            said = process.communicate(timeout=120)[1].decode()
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 1
    assert f"holds epoch 1 of {state.checkpoints} no more: epoch 2 was taken" in said
    assert "stop the other one and start this one again" in said


def test_the_lease_of_a_cluster_is_for_a_pod(tmp_path: Path) -> None:
    path = tmp_path / "trainer.toml"
    path.write_text(
        f'state_dir = "{tmp_path}"\nchat_url = "x"\nreward_address = "x"\nmodel = "m"\n[lease]\nkind = "kubernetes"\n'
    )
    process = start(path)
    said = process.communicate(timeout=120)[1].decode()
    assert "is for a pod: KUBERNETES_SERVICE_HOST is not set; elsewhere set lease.kind to 'file'" in said
    assert process.returncode == 2


def test_a_typo_in_the_settings_is_named(tmp_path: Path) -> None:
    path = tmp_path / "trainer.toml"
    path.write_text(f'state_dir = "{tmp_path}"\nchat_url = "x"\nreward_address = "x"\nmodel = "m"\nmin_vots = 3\n')
    process = start(path)
    assert "min_vots is no setting" in process.communicate(timeout=120)[1].decode()
    assert process.returncode == 2


def test_a_typo_in_the_golden_prompts_is_named(tmp_path: Path) -> None:
    golden, path = tmp_path / "golden.toml", tmp_path / "trainer.toml"
    golden.write_text('[[prompt]]\nname = "a"\nmessages = [{ role = "user", content = "hi" }]\nmax_word = 3\n')
    path.write_text(
        f'state_dir = "{tmp_path}"\nchat_url = "x"\nreward_address = "x"\nmodel = "m"\ngate.golden.file = "{golden}"\n'
    )
    process = start(path)
    said = process.communicate(timeout=120)[1].decode()
    assert f"{golden}, [[prompt]] 1: max_word is no setting: did you mean max_words?" in said
    assert process.returncode == 2


def test_a_device_that_is_not_there_is_named(tmp_path: Path) -> None:
    write_tiny_model(tmp_path / "model", weights_seed=None)
    dump(settings_in(tmp_path).model_copy(update={"device": "cuda"}), tmp_path / "trainer.toml")
    process = start(tmp_path / "trainer.toml", CUDA_VISIBLE_DEVICES="")
    said = process.communicate(timeout=120)[1].decode()
    assert "device is 'cuda', and torch finds no GPU: use 'auto' or 'cpu'" in said
    assert process.returncode == 2


@pytest.mark.parametrize("below", ["", "checkpoints"])
@pytest.mark.parametrize("filled", [False, True])
def test_a_volume_that_cannot_be_written_is_named(tmp_path: Path, below: str, filled: bool) -> None:
    """The whole state, or the checkpoints' own; kubelet starts the trainer again, which goes on once it is mended."""
    volume = tmp_path / "state" / below
    if why := cannot_mount(volume):
        pytest.skip(why)
    write_tiny_model(tmp_path / "model", weights_seed=None)
    dump(settings_in(tmp_path), tmp_path / "trainer.toml")
    with small_disk(volume, mib=1) as disk:
        if filled:
            disk.fill()
        else:
            subprocess.run(["mount", "-o", "remount,ro", str(volume)], check=True)
        process = start(tmp_path / "trainer.toml")
        said = process.communicate(timeout=120)[1].decode()
        assert process.returncode in (1, 2) and "Traceback" not in said
        assert str(volume) in said
        assert (
            "No space left on device: make room, or a larger volume" if filled else "for reading and writing"
        ) in said
