"""The supervisor over fake services, and every way in which a start is refused."""

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from rlhf_online.cli import main
from rlhf_online.config import ChatSettings, RewardSettings, dump, load
from rlhf_online.config.given import merge
from rlhf_online.durable import write_json
from rlhf_online.errors import ConfigError, EngineStartFailed, NotEnoughRoom, VersionCorrupt
from rlhf_online.rollout.sampler import Sampler
from rlhf_online.simulation.tiny_model import write_tiny_model
from rlhf_online.state import StateDir
from rlhf_online.training.settings import TrainerSettings
from rlhf_online.versions import open_registry
from rlhf_online.versions.genesis import genesis
from rlhf_online.versions.manifest import Manifest
from services.standalone import children, preconditions
from services.standalone.children import Ports
from services.standalone.processes import Child
from services.standalone.readiness import Readiness
from services.standalone.service import Service
from services.standalone.settings import StandaloneSettings
from tests.support.certificates import Authority
from tests.support.processes import alive
from tests.support.small_disk import cannot_mount, small_disk
from tests.support.waiting import until

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 60


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    (folder / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')
    save_file({"a": np.zeros((10, 100), np.float16), "b": np.zeros(24, np.float16)}, folder / "model.safetensors")
    return folder


def settings(model: Path, tmp_path: Path, **values: Any) -> StandaloneSettings:
    chosen: dict[str, Any] = {"model": str(model), "state_dir": tmp_path / "state"}
    merge(chosen, {"chat": {"http_port": 0, "grpc_port": 0}})
    merge(chosen, values)
    return StandaloneSettings.model_validate(chosen)


class Running:
    """The supervisor as a process, and what its fakes told."""

    def __init__(self, chosen: StandaloneSettings, tmp_path: Path, real: Sequence[str] = ()) -> None:
        self.state = StateDir(chosen.state_dir)
        self.config = tmp_path / "up.toml"
        dump(chosen, self.config)
        self.output = tmp_path / "output"
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.fake_standalone", "--config", str(self.config), *real],
                cwd=ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def story(self, event: str, name: str | None = None) -> list[dict[str, Any]]:
        path = self.state.root / "story.jsonl"
        written = path.read_text() if path.is_file() else ""
        # What comes after the last line break is being written.
        lines = [json.loads(line) for line in written.split("\n")[:-1]]
        return [line for line in lines if line["event"] == event and name in (None, line["name"])]

    def said(self) -> str:
        return self.output.read_text()

    def until(self, condition: Callable[[], Any]) -> Any:
        def there() -> Any:
            value = condition()
            assert value or self.process.poll() is None, f"ended early: {self.said()}"
            return value

        return until(there, PATIENCE_S, self.said)

    def ended(self) -> int:
        return self.process.wait(PATIENCE_S)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    started: list[Running] = []

    def start(chosen: StandaloneSettings, *real: str) -> Running:
        started.append(Running(chosen, tmp_path, real))
        return started[-1]

    yield start
    for running in started:
        if running.process.poll() is None:
            running.process.terminate()
            running.ended()


def behave(tmp_path: Path, **behaviour: dict[str, Any]) -> None:
    write_json(tmp_path / "state" / "behaviour.json", behaviour)


# The supervisor


def test_the_trainer_starts_last_with_the_others_addresses(model, tmp_path, run):
    running = run(settings(model, tmp_path))
    trainer = running.until(lambda: running.story("ready", "trainer")) and running.story("start", "trainer")[0]
    chat = running.story("ready", "chat")[0]["ports"]
    reward = running.story("ready", "reward")[0]["ports"]
    assert trainer["settings"]["chat_url"] == f"http://127.0.0.1:{chat['http']}"
    assert trainer["settings"]["reward_address"] == f"127.0.0.1:{reward['grpc']}"
    running.until(lambda: f"http://127.0.0.1:{chat['http']}/" in running.said())
    assert open_registry(running.state.versions).live("policy") == "policy-000000"
    assert (running.state.root / "operator.token").stat().st_mode & 0o777 == 0o600
    open_to_others = {path.name for path in running.state.root.rglob("*") if path.stat().st_mode & 0o077}
    assert open_to_others == set() and running.state.root.stat().st_mode & 0o777 == 0o700


def test_with_tls_its_own_processes_come_by_a_socket_that_others_cannot_open(tmp_path, run, capsys):
    """The chat service is the real one, and asks its clients for certificates; so is all that reaches it from here."""
    write_tiny_model(tmp_path / "model", weights_seed=0)
    genesis(open_registry(StateDir(tmp_path / "state").versions), tmp_path / "model", tuning="full")
    authority = Authority(tmp_path / "tls")
    files, client = authority.issue("server"), authority.issue("client")
    tls = {"cert_file": str(files.cert), "key_file": str(files.key), "client_ca_file": str(authority.file)}
    engine_process = subprocess.Popen([sys.executable, "-m", "tests.support.engine_process", str(tmp_path / "e.sock")])
    try:
        engine = {"mode": "external", "url": f"unix:{tmp_path / 'e.sock'}"}
        chosen = settings(tmp_path / "model", tmp_path, tuning="full", chat={"tls": tls, "engine": engine})
        running = run(chosen, "chat")
        running.until(lambda: "policy-000000 is serving" in running.said())
        [trainer] = running.until(lambda: running.story("start", "trainer"))
        port = json.loads((running.state.run / "chat.ready.json").read_text())["http"]
        assert f"https://127.0.0.1:{port}/" in running.said()
        socket_file = running.state.run / "chat.sock"
        assert trainer["settings"]["chat_url"] == f"unix:{socket_file}"
        assert socket_file.stat().st_mode & 0o777 == 0o600

        sampler = Sampler(trainer["settings"]["chat_url"], running.state.operator_token(), [2])
        assert sampler.serving((1, 5, 3)) == "policy-000000"
        sampler.close()
        assert main(["versions", "list", "--state", str(running.state.root)]) == 0
        assert main(["chat", "gold", "--state", str(running.state.root)]) == 0
        assert "policy-000000 · chatcmpl-" in capsys.readouterr().out

        trusted = ssl.create_default_context(cafile=files.authority)
        with pytest.raises(httpx.TransportError):
            httpx.get(f"https://127.0.0.1:{port}/readyz", verify=trusted, trust_env=False)
        trusted.load_cert_chain(client.cert, client.key)
        assert httpx.get(f"https://127.0.0.1:{port}/readyz", verify=trusted, trust_env=False).status_code == 200
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://127.0.0.1:{port}/readyz", trust_env=False)
    finally:
        engine_process.kill()
        engine_process.wait()


def test_a_path_that_is_too_long_for_a_socket_is_refused_before_a_start(model, tmp_path):
    certified = settings(model, tmp_path, chat={"tls": {"cert_file": "x"}})
    preconditions.check_socket(children.local_socket(certified))
    far = certified.model_copy(update={"state_dir": tmp_path / ("x" * 100)})
    with pytest.raises(ConfigError, match=r"bytes long, and Linux takes 107: put the state elsewhere with --state"):
        preconditions.check_socket(children.local_socket(far))
    preconditions.check_socket(children.local_socket(far.model_copy(update={"chat": ChatSettings(state_dir=tmp_path)})))


def test_a_signal_stops_all_in_order_and_leaves_nothing(model, tmp_path, run):
    behave(tmp_path, chat={"grandchild": True})
    running = run(settings(model, tmp_path))
    running.until(lambda: running.story("ready", "trainer"))
    running.process.send_signal(signal.SIGINT)
    assert running.ended() == 0
    assert [line["name"] for line in running.story("stop")] == ["trainer", "reward", "chat"]
    pids = [line["pid"] for line in running.story("start")] + [running.story("grandchild")[0]["grandchild"]]
    assert [pid for pid in pids if alive(pid)] == []


def test_a_killed_service_comes_back_on_its_ports_and_its_own_children_are_ended_first(model, tmp_path, run):
    behave(tmp_path, chat={"grandchild": True})
    running = run(settings(model, tmp_path))
    running.until(lambda: running.story("ready", "trainer"))
    first = running.story("ready", "chat")[0]
    os.kill(first["pid"], signal.SIGKILL)
    running.until(lambda: len(running.story("ready", "chat")) == 2)
    assert running.story("ready", "chat")[1]["ports"]["http"] == first["ports"]["http"]
    assert not alive(running.story("grandchild")[0]["grandchild"])
    assert "chat ended with signal SIGKILL" in running.said()
    assert len(running.story("start", "trainer")) == 1


def test_nothing_is_left_when_the_supervisor_itself_is_killed(model, tmp_path, run):
    running = run(settings(model, tmp_path))
    running.until(lambda: running.story("ready", "trainer"))
    running.process.kill()
    running.ended()
    pids = [line["pid"] for line in running.story("start")]
    until(lambda: not any(alive(pid) for pid in pids), PATIENCE_S, "the services to end with the supervisor")
    assert len(pids) == 3


def test_refused_settings_stop_everything_with_the_reason(model, tmp_path, run):
    behave(tmp_path, reward={"exit": 2, "says": "error: threads must be positive"})
    running = run(settings(model, tmp_path))
    assert running.ended() == 1
    assert "reward cannot run with its settings:\nerror: threads must be positive" in running.said()
    assert not any(alive(line["pid"]) for line in running.story("start"))


@pytest.mark.parametrize("name", ["trainer", "reward"])
def test_chat_and_votes_go_on_however_often_another_service_ends(model, tmp_path, run, name):
    running = run(settings(model, tmp_path))
    running.until(lambda: running.story("ready", "trainer"))
    behave(tmp_path, **{name: {"exit": 1, "says": "out of luck"}})
    os.kill(running.story("start", name)[0]["pid"], signal.SIGKILL)
    running.until(lambda: len(running.story("start", name)) == 7)
    assert alive(running.story("start", "chat")[0]["pid"])
    assert f"{name} ended with exit code 1; starting it again in 0.32 s, chat and votes go on" in running.said()
    assert running.said().count("out of luck") == 1
    behave(tmp_path)
    running.until(lambda: len(running.story("ready", name)) == 2)
    assert len(running.story("start", "chat")) == 1
    told = running.until(lambda: (told := running.state.read_status("services"))[name]["state"] == "running" and told)
    assert told[name]["restarts"] >= 7 and told[name]["last_end"] == "ended with exit code 1"
    assert told["chat"] == {"state": "running", "restarts": 0, "last_end": ""}


def test_why_no_version_serves_is_told(model, tmp_path, run):
    why = "no version serves: policy-000000: the engine's log-probs differ"
    behave(tmp_path, chat={"readiness": {"state": "waiting", "message": why}})
    running = run(settings(model, tmp_path))
    running.until(lambda: f"engine         waiting: {why}" in running.said())
    assert running.process.poll() is None


@pytest.mark.parametrize("name", ["trainer", "reward"])
def test_people_are_served_though_another_service_never_starts(model, tmp_path, run, name):
    behave(tmp_path, **{name: {"exit": 1, "says": "out of luck"}})
    running = run(settings(model, tmp_path))
    running.until(lambda: len(running.story("start", name)) == 6 and "page and API" in running.said())
    assert "It ended 5 times in short; the end of" in running.said()
    running.process.send_signal(signal.SIGINT)
    assert running.ended() == 0


def test_a_trainer_that_was_ready_does_not_stop_the_others_by_its_exit_code(model, tmp_path, run):
    """Exit code 2 is an InvalidInput: from a service that was ready it is no word about its settings."""
    running = run(settings(model, tmp_path))
    running.until(lambda: running.story("ready", "trainer"))
    behave(tmp_path, trainer={"exit": 2, "says": "error: the log was deleted"})
    os.kill(running.story("start", "trainer")[0]["pid"], signal.SIGKILL)
    running.until(lambda: len(running.story("start", "trainer")) == 4)
    assert running.process.poll() is None


def test_a_full_disk_stops_nobody_and_the_trainer_comes_back_when_there_is_room(model, tmp_path, run):
    if why := cannot_mount(tmp_path / "state" / "run"):
        pytest.skip(why)
    with small_disk(tmp_path / "state" / "run", mib=1) as disk:
        running = run(settings(model, tmp_path))
        try:
            running.until(lambda: running.story("ready", "trainer"))
            (running.state.run / "trainer.ready.json").unlink()  # whose room another writer takes
            disk.fill()
            os.kill(running.story("start", "trainer")[0]["pid"], signal.SIGKILL)
            running.until(lambda: running.said().count("trainer could not be started") == 3)
            assert "trainer.toml cannot be written (No space left on device)" in running.said()
            assert alive(running.story("start", "chat")[0]["pid"])
            disk.free()
            running.until(lambda: len(running.story("ready", "trainer")) == 2)
            assert len(running.story("start", "chat")) == 1
        finally:
            running.process.terminate()
            running.ended()


def test_a_chat_service_that_never_opens_its_ports_stops_everything_with_the_end_of_its_log(model, tmp_path, run):
    behave(tmp_path, chat={"exit": 1, "says": "out of luck"})
    running = run(settings(model, tmp_path))
    assert running.ended() == 1
    assert len(running.story("start", "chat")) == 5
    assert "chat ended 5 times in a row before it opened its ports, the last time it ended with exit code 1" in (
        running.said()
    )
    assert "out of luck" in running.said()
    assert not any(alive(line["pid"]) for line in running.story("start"))


def test_a_chat_service_that_opens_its_ports_is_started_again_however_often_it_ends(model, tmp_path, run):
    running = run(settings(model, tmp_path))
    running.until(lambda: running.story("ready", "trainer"))
    for ended in range(1, 7):
        os.kill(running.story("ready", "chat")[-1]["pid"], signal.SIGKILL)
        running.until(lambda ended=ended: len(running.story("ready", "chat")) == ended + 1)
    assert len(running.story("start", "trainer")) == 1


def test_an_engine_that_was_up_and_cannot_start_any_more_is_tried_again(model, tmp_path, run):
    running = run(settings(model, tmp_path))
    running.until(lambda: "ready          fake is serving" in running.said())
    behave(tmp_path, chat={"exit": EngineStartFailed.exit_code, "ready": True, "says": "out of memory"})
    os.kill(running.story("ready", "chat")[0]["pid"], signal.SIGKILL)
    running.until(lambda: len(running.story("start", "chat")) == 4)
    behave(tmp_path)
    running.until(lambda: len(running.story("ready", "chat")) == 2)


def test_waiting_for_a_slow_start_is_told(model, tmp_path, monkeypatch):
    """The limit is the engine's own setting, whatever waits for it."""
    said: list[str] = []
    clock = iter(range(0, 10_000, 5))
    monkeypatch.setattr("services.standalone.readiness.time.monotonic", lambda: float(next(clock)))
    readiness = Readiness(said.append, start_timeout_s=600.0)
    monkeypatch.setattr(readiness, "_ask", lambda _: {"state": "starting"})
    for _ in range(12):
        readiness.follow("http://nowhere", None)
    assert said == [
        f"engine         starting for {seconds} s; it may take 600 s (chat.engine.start_timeout_s)"
        for seconds in (20, 40)
    ]


def test_why_no_version_is_served_is_told(monkeypatch):
    said: list[str] = []
    clock = iter(range(0, 10_000, 5))
    monkeypatch.setattr("services.standalone.readiness.time.monotonic", lambda: float(next(clock)))
    readiness = Readiness(said.append, start_timeout_s=600.0)
    refused = {"state": "waiting", "message": "can serve no version: policy-000000 lacks a tensor"}
    answers = iter([{"state": "starting"}, {"state": "waiting", "message": "waits"}, refused, refused])
    monkeypatch.setattr(readiness, "_ask", lambda _: next(answers))
    for _ in range(4):
        readiness.follow("http://nowhere", None)
    assert said == [
        "engine         waiting: waits",
        "engine         waiting: can serve no version: policy-000000 lacks a tensor",
    ]


def test_what_happens_to_a_secret_is_told_once(monkeypatch):
    said: list[str] = []
    readiness = Readiness(said.append, start_timeout_s=600.0)
    answers = iter(["ok", "person.salt is gone", "person.salt is gone", "ok"])
    monkeypatch.setattr("services.standalone.readiness.ASK_S", 0.0)
    monkeypatch.setattr(readiness, "_ask", lambda _: {"secrets": next(answers)})
    for _ in range(4):
        readiness.follow("http://nowhere", None)
    assert said == ["secrets        person.salt is gone", "secrets        ok"]


def test_waits_double_up_to_a_minute_and_begin_anew_after_a_good_life(tmp_path, monkeypatch):
    now = 0.0
    monkeypatch.setattr("services.standalone.service.time.monotonic", lambda: now)
    child = Child("fake", [sys.executable, "-c", "raise SystemExit(7)"], tmp_path / "log")
    service = Service("trainer", child, tmp_path / "ready.json", 0.5)

    def life(seconds: float) -> float | None:
        nonlocal now
        service.start(lambda: None)
        until(lambda: child.pid is None, PATIENCE_S, "the process to end")
        now += seconds
        delay = service.end()
        assert delay is not None and service.end() is None and not service.due
        now += delay
        assert service.due
        return delay

    assert [life(1.0) for _ in range(10)] == [0.5, 1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert (service.restarts, service.failed_starts, service.last_end) == (9, 10, "ended with exit code 7")
    assert [life(61.0), life(1.0)] == [0.5, 1]


def test_an_engine_that_cannot_start_stops_everything_with_its_reason(model, tmp_path, run):
    behave(tmp_path, chat={"readiness": {"state": "failed", "message": "no kernel for head size 7"}})
    running = run(settings(model, tmp_path))
    assert running.ended() == 1
    assert "the engine cannot start: no kernel for head size 7" in running.said()
    assert not any(alive(line["pid"]) for line in running.story("start"))


def test_a_chat_service_whose_engine_could_not_start_is_not_started_again(model, tmp_path, run):
    behave(tmp_path, chat={"exit": EngineStartFailed.exit_code, "says": "no kernel for head size 7"})
    running = run(settings(model, tmp_path))
    assert running.ended() == 1
    assert len(running.story("start", "chat")) == 1
    assert "the engine cannot start:\nno kernel for head size 7" in running.said()


def test_a_version_that_becomes_live_is_told(model, tmp_path, run):
    running = run(settings(model, tmp_path))
    running.until(lambda: running.story("ready", "trainer"))
    registry = open_registry(running.state.versions)
    version = registry.reserve("policy")
    registry.stage(version)
    registry.publish(Manifest(version=version, tuning="lora"))
    registry.promote(version, reason="won the gate")
    told = "policy-000001 is live instead of policy-000000: won the gate"
    assert running.until(lambda: told in running.said())


def test_one_supervisor_a_state_folder(model, tmp_path, run):
    first = run(settings(model, tmp_path))
    first.until(lambda: first.story("ready", "trainer"))
    second = subprocess.run(
        [sys.executable, "-m", "services.standalone", "--config", str(first.config)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert second.returncode == 1
    assert "are running already" in second.stderr and "--state" in second.stderr
    assert first.process.poll() is None


# Settings of the children


def test_the_services_settings_agree_with_each_other_and_can_be_read_back(model, tmp_path):
    chosen = settings(model, tmp_path, tuning="lora", host="0.0.0.0", trainer={"policy": {"lora_rank": 64}, "seed": 9})
    ports = Ports({"chat": {"http": 81, "grpc": 82}, "reward": {"grpc": 83, "metrics": 84}})
    chat = load(ChatSettings, children.write_settings("chat", chosen, ports))
    reward = load(RewardSettings, children.write_settings("reward", chosen, ports))
    trainer = load(TrainerSettings, children.write_settings("trainer", chosen, ports))
    assert (chat.http_port, chat.grpc_port, chat.host) == (81, 82, "0.0.0.0")
    assert (reward.grpc_port, reward.metrics_port, reward.host) == (83, 84, "127.0.0.1")
    assert (trainer.chat_url, trainer.reward_address, trainer.seed) == ("http://127.0.0.1:81", "127.0.0.1:83", 9)
    assert chat.engine.max_lora_rank == 64 == trainer.policy.lora_rank
    assert chat.engine.tuning == trainer.tuning == "lora"
    assert chat.engine.model == reward.model == trainer.model == str(model)
    assert chat.die_with_parent and reward.die_with_parent and trainer.die_with_parent


# What must hold before a start


def test_a_good_start_is_let_through(model, tmp_path):
    preconditions.check(settings(model, tmp_path))
    assert preconditions.parameters(model) == 1024


def test_a_context_longer_than_the_models(tmp_path):
    write_tiny_model(tmp_path / "tiny", weights_seed=0)
    preconditions.check(settings(tmp_path / "tiny", tmp_path, chat={"engine": {"max_model_len": 128}}))
    with pytest.raises(ConfigError, match=r"max_model_len is 129, and the model in .*tiny takes 128 tokens"):
        preconditions.check(settings(tmp_path / "tiny", tmp_path, chat={"engine": {"max_model_len": 129}}))


def test_what_transformers_finds_in_a_model_is_found_before_a_start(tmp_path):
    folder = tmp_path / "whole"
    write_tiny_model(folder, weights_seed=0)
    chosen = settings(folder, tmp_path, chat={"engine": {"max_model_len": 128}})
    preconditions.check(chosen)
    assert preconditions.examine_models(chosen) == []
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    preconditions.check(chosen)
    with pytest.raises(ConfigError, match=r"whole lacks model\.norm\.weight: fetch"):
        preconditions.examine_models(chosen)


def test_golden_prompts_that_cannot_be_read_are_told_before_a_start(model, tmp_path):
    chosen = settings(model, tmp_path, trainer={"gate": {"golden": {"file": str(tmp_path / "golden.toml")}}})
    with pytest.raises(ConfigError, match=r"gate\.golden\.file: .*golden\.toml cannot be read"):
        preconditions.check(chosen)


def test_a_model_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match=r"no model folder at .*nowhere.*--model"):
        preconditions.check(settings(tmp_path / "nowhere", tmp_path))


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_a_folder_that_is_no_model(model, tmp_path, name):
    (model / name).unlink()
    with pytest.raises(ConfigError, match=f"holds no {name}"):
        preconditions.check(settings(model, tmp_path))


def test_an_adapter_needs_weights_and_all_weights_do_not(model, tmp_path):
    (model / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match="LoRA adapter needs a base"):
        preconditions.check(settings(model, tmp_path, tuning="lora"))
    preconditions.check(settings(model, tmp_path, tuning="full"))


@pytest.mark.parametrize("content", [b"", b"\xff" * 64, (9).to_bytes(8, "little") + b'{"a": 1}x'])
def test_weights_that_are_no_safetensors(model, tmp_path, content):
    (model / "model.safetensors").write_bytes(content)
    with pytest.raises(ConfigError, match="no safetensors file"):
        preconditions.check(settings(model, tmp_path))


def test_memory_too_small_for_the_model(model, tmp_path):
    sizes = {"vocab_size": 1000, "num_hidden_layers": 2, "hidden_size": 8}
    write_json(model / "config.json", {"architectures": ["LlamaForCausalLM"], **sizes})
    chosen = settings(
        model,
        tmp_path,
        device="cpu",
        tuning="lora",
        trainer={"reward": {"tuning": "lora"}, "policy": {"micro_batch_tokens": 100}},
    )
    needed = int((1.0 + 3.5) * preconditions.GIB) + 4 * 1024 * 4 + 100 * 4 * (3 * 1000 + 16 * 2 * 8)
    preconditions.check(chosen, available_bytes=needed)
    with pytest.raises(NotEnoughRoom, match=r"4\.5 GiB of memory are needed .* smaller model"):
        preconditions.check(chosen, available_bytes=needed - 1)


def test_a_configuration_that_is_no_json(model, tmp_path):
    (model / "config.json").write_text("vocab_size: 3")
    with pytest.raises(ConfigError, match=r"config\.json that cannot be read"):
        preconditions.check(settings(model, tmp_path, device="cpu"))


def test_training_all_weights_needs_more_memory_than_an_adapter(model, tmp_path):
    lora = settings(model, tmp_path, tuning="lora", trainer={"reward": {"tuning": "lora"}})
    full = settings(model, tmp_path, tuning="full", trainer={"reward": {"tuning": "full"}})
    assert (preconditions.copies(lora), preconditions.copies(full)) == (4, 11)


def test_a_disk_too_small_for_a_few_versions(model, tmp_path):
    needed = 4 * 1024 * 4 + preconditions.GIB // 2
    preconditions.check(settings(model, tmp_path), free_bytes=needed)
    with pytest.raises(NotEnoughRoom, match=r"0\.5 GiB free.*--state"):
        preconditions.check(settings(model, tmp_path), free_bytes=needed - 1)


@pytest.mark.parametrize(("field", "option"), [("http_port", "--port"), ("grpc_port", "--grpc-port")])
def test_a_port_in_use_is_named_with_its_option(model, tmp_path, field, option):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"port {port} is in use.*{option}"):
            preconditions.check(settings(model, tmp_path, chat={field: port}))


def test_an_address_of_another_machine(model, tmp_path):
    with pytest.raises(ConfigError, match=r"192\.0\.2\.1:0 cannot be listened on"):
        preconditions.check(settings(model, tmp_path, host="192.0.2.1"))


def test_a_damaged_live_version_is_refused_only_if_nothing_else_could_serve(model, tmp_path):
    chosen = settings(model, tmp_path, tuning="full")
    registry = open_registry(StateDir(chosen.state_dir).versions)
    first = genesis(registry, model, tuning="full", probe_of=lambda model: ())
    (registry.path(first) / "model.safetensors").write_bytes(b"short")
    with pytest.raises(VersionCorrupt, match=r"policy-000000: model.safetensors is missing or not .* another --state"):
        preconditions.check(chosen)
    second = registry.reserve("policy")
    (registry.stage(second) / "model.safetensors").write_bytes(b"weights")
    registry.publish(Manifest(version=second, tuning="full"))
    registry.promote(second)
    (registry.path(second) / "model.safetensors").unlink()
    preconditions.check(chosen)


def test_a_misspelt_setting_is_named_and_the_exit_code_is_2(model, tmp_path):
    path = tmp_path / "typo.toml"
    path.write_text(f'model = "{model}"\nstate_dir = "{tmp_path}"\n[chat.engine]\nmax_num_seq = 3\n')
    ended = subprocess.run(
        [sys.executable, "-m", "services.standalone", "--config", str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert ended.returncode == 2
    assert (
        "chat.engine.max_num_seq is no setting: did you mean chat.engine.max_num_seqs?" in ended.stderr
        and "Traceback" not in ended.stderr
    )
