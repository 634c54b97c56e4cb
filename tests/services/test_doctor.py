"""`rlhf-online doctor` over a whole installation: fit, then with one fault after another really made."""

import gc
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from rlhf_online.cli import main
from rlhf_online.config import LogSettings
from rlhf_online.doctor.finding import Finding
from rlhf_online.eventlog import kafka_cluster
from rlhf_online.simulation.tiny_model import write_tiny_model
from rlhf_online.state import StateDir
from services import doctor
from tests.support.kafka_broker import Broker, needed
from tests.support.object_server import BUCKET, ObjectServer, environment, object_server
from tests.support.other_clock import off_by
from tests.support.ports import reserve

pytestmark = needed()

ROOT = Path(__file__).resolve().parents[2]
PASSWORD = "correct horse battery staple"


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    broker = Broker(tmp_path_factory.mktemp("kafka"))
    broker.start()
    from rlhf_online.eventlog.kafka import topics

    known = kafka_cluster(LogSettings(url=f"kafka://{broker.address}"))
    assert known is not None
    topics.apply(known)
    yield broker
    broker.stop()


@pytest.fixture(scope="module")
def server() -> Iterator[ObjectServer]:
    with object_server() as server:
        yield server


@pytest.fixture(autouse=True)
def collect() -> Iterator[None]:
    yield
    gc.collect()


@dataclass
class Installation:
    """The files of three services that run on their own, with what they need."""

    folder: Path
    tables: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def state(self) -> StateDir:
        return StateDir(self.folder / "state")

    def files(self) -> list[Path]:
        paths = [self.folder / f"{name}.toml" for name in self.tables]
        for path in paths:
            path.write_text(tomli_w.dumps(self.tables[path.stem]))
        return paths

    def found(self) -> list[Finding]:
        return doctor.examine(self.files())

    def refused(self) -> list[str]:
        return [f"{each.about}: {each.what}" for each in self.found() if each.severity == "refuse"]


@pytest.fixture
def installed(
    tmp_path: Path, broker: Broker, server: ObjectServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Installation]:
    for name, value in environment(server.port).items():
        monkeypatch.setenv(name, value)
    made = Installation(tmp_path)
    made.state.close_to_others()
    made.state.operator_token()
    made.state.person_hash().sign(made.state.log)
    write_tiny_model(model := tmp_path / "model", weights_seed=3)
    shared = {"state_dir": str(made.state.root), "versions": {"url": f"s3://{BUCKET}/{tmp_path.name}"}}
    log = {"url": f"kafka://{broker.address}"}
    ports = [reserve() for _ in range(5)]
    made.tables = {
        "chat": {
            **shared, "log": log, "http_port": ports[0], "grpc_port": ports[1],
            "engine": {"model": str(model), "device": "cpu"},
        },
        "reward": {**shared, "model": str(model), "grpc_port": ports[2], "metrics_port": ports[3], "device": "cpu"},
        "trainer": {
            **shared, "log": log, "model": str(model), "metrics_port": ports[4], "device": "cpu",
            "chat_url": f"http://127.0.0.1:{ports[0]}", "reward_address": f"127.0.0.1:{ports[2]}",
        },
    }  # fmt: skip
    yield made
    server.relent()


def test_an_installation_that_is_fit_and_the_command_says_so(installed: Installation) -> None:
    assert installed.refused() == []
    files = [option for path in installed.files() for option in ("--config", str(path))]
    command = [sys.executable, "-m", "rlhf_online.cli", "doctor", *files, "--json"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    told = json.loads(ended.stdout)
    assert told["ok"] and {each["severity"] for each in told["findings"]} <= {"ok", "warn"}
    subjects = {each["about"].split()[0] for each in told["findings"]}
    assert subjects == {
        "settings", "packages", "port", "model", "disk", "secrets", "lease", "versions", "broker", "Kafka", "topics",
        "clock", "records", "memory",
    }  # fmt: skip


@pytest.mark.parametrize("hour", [3600, -3600])
def test_a_clock_an_hour_off_is_named_by_kafka_and_by_the_bucket(
    installed: Installation, tmp_path: Path, hour: int
) -> None:
    files = [option for path in installed.files() for option in ("--config", str(path))]
    command = [sys.executable, "-m", "services.doctor", *files, "--json"]
    environment = {**os.environ, **off_by(hour, tmp_path / "clock")}
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, timeout=120)
    assert ended.returncode == 1, ended.stdout + ended.stderr
    clocks = [each["what"] for each in json.loads(ended.stdout)["findings"] if each["severity"] == "refuse"]
    word = "ahead of" if hour > 0 else "behind"
    assert len(clocks) == 2
    assert all(f"this machine's is 60 minutes {word} that of" in told for told in clocks), clocks
    assert {"Kafka" in told for told in clocks} == {True, False}


def test_files_that_disagree_are_named_with_both_values(installed: Installation) -> None:
    installed.tables["trainer"]["tuning"] = "lora"
    installed.tables["reward"]["versions"] = {"url": "s3://versions/elsewhere"}
    found = installed.refused()
    assert "settings: engine.tuning, tuning differ: 'full' for chat, 'lora' for trainer" in found
    assert any(line.startswith("settings: versions.url differ: ") and "elsewhere" in line for line in found)


def test_a_setting_that_is_none_is_named_and_the_rest_is_looked_at(installed: Installation) -> None:
    installed.tables["reward"]["max_wait"] = 2
    found = installed.found()
    (wrong,) = [each for each in found if each.severity == "refuse"]
    assert "reward.toml: max_wait is no setting: did you mean max_wait_ms?" in wrong.what
    assert any(each.about == "topics" for each in found)


def test_a_gpu_a_lease_and_a_model_that_are_not_there(installed: Installation) -> None:
    installed.tables["trainer"] |= {"device": "cuda", "lease": {"kind": "kubernetes"}, "model": "/no/model"}
    found = installed.refused()
    assert any(line.startswith("GPU: trainer's device is 'cuda'") for line in found) or Path("/dev/nvidia0").exists()
    assert any("lease rlhf-trainer: the lease on Kubernetes is for a pod" in line for line in found)
    assert any(line.startswith("model /no/model: is no folder") for line in found)


def test_secrets_that_are_gone_short_or_open_are_named(installed: Installation) -> None:
    (installed.state.root / "operator.token").chmod(0o644)
    salt = installed.state.root / "person.salt"
    kept = salt.read_text()
    salt.unlink()
    found = installed.refused()
    assert f"secrets: {installed.state.root / 'operator.token'} may be read by others" in found
    assert f"secrets: {salt} is gone, and the log names people by it" in found
    salt.write_text("short")
    salt.chmod(0o600)
    assert f"secrets: {salt} holds 5 characters, and a secret has at least 16" in installed.refused()
    salt.write_text("another salt, and as long as it should be")
    assert f"secrets: {salt} is another one than that by which the log names people" in installed.refused()
    salt.write_text(kept)


def test_secrets_of_the_environment_count_instead_of_the_files(
    installed: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    salt = installed.state.root / "person.salt"
    monkeypatch.setenv("RLHF_PERSON_SALT", salt.read_text())
    salt.unlink()
    assert installed.refused() == []
    monkeypatch.setenv("RLHF_PERSON_SALT", "another salt, and as long as it should be")
    (found,) = installed.refused()
    assert found == "secrets: RLHF_PERSON_SALT is another one than that by which the log names people"


def test_files_of_tls_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    shared = {"state_dir": str(tmp_path / "state")}
    tables = {
        "chat": {**shared, "tls": {"cert_file": str(tmp_path / "tls.crt")}, "http_port": 0, "grpc_port": 0},
        "trainer": {
            **shared, "model": str(tmp_path / "model"), "metrics_port": 0, "reward_address": "127.0.0.1:9",
            "chat_url": "https://chat", "chat_ca_file": str(tmp_path / "ca.crt"),
        },
    }  # fmt: skip
    refused = Installation(tmp_path, tables).refused()
    for about in (f"certificate {tmp_path}/tls.crt", f"authorities {tmp_path}/ca.crt"):
        assert [line for line in refused if line.startswith(about)], refused


def test_without_settings_anywhere_one_is_told_what_to_give(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "services.doctor", "--state", str(tmp_path)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2 and "name the state folder with --state" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_the_settings_that_up_wrote_are_found_by_the_state_folder(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    written = tmp_path / "run" / "standalone.toml"
    written.touch()
    assert doctor.known_files(tmp_path) == [written]
    written.unlink()
    for name in ("trainer", "chat"):
        (tmp_path / f"{name}.toml").touch()
    assert doctor.known_files(tmp_path, tmp_path) == [tmp_path / "chat.toml", tmp_path / "trainer.toml"]


def test_an_engine_in_a_container_of_its_own_is_looked_at_by_itself(tmp_path: Path, monkeypatch) -> None:
    """The container that has vLLM is the engine's: the ports of the pod are the other's."""
    for name in ("engine", "chat"):
        (tmp_path / f"{name}.toml").touch()
    assert doctor.known_files(tmp_path, tmp_path) == [tmp_path / "engine.toml"]
    monkeypatch.setattr(doctor, "find_spec", lambda name: None)
    assert doctor.known_files(tmp_path, tmp_path) == [tmp_path / "chat.toml"]
    (tmp_path / "engine.toml").write_text('model = "/no/model"\ndevice = "cuda"\n')
    found = doctor.examine([tmp_path / "engine.toml"])
    refused = [each.about for each in found if each.severity == "refuse"]
    assert "model /no/model" in refused and ("GPU" in refused or Path("/dev/nvidia0").exists())
    assert not [each for each in found if each.about.startswith(("port", "disk"))]


def test_options_of_a_model_and_of_an_installation_are_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--tuning", "full"]) == 2
    assert "said of a model" in capsys.readouterr().err
    assert main(["doctor", "model", "--state", "state"]) == 2
    assert "of the installation" in capsys.readouterr().err


def test_how_many_ranks_there_are_is_said_by_options_or_by_the_charts_variables(tmp_path: Path) -> None:
    model, variables = tmp_path / "model", os.environ | {"RLHF_RANKS": "2", "RLHF_NODES": "3"}
    write_tiny_model(model, weights_seed=0)

    def told(command: list[str], *options: str) -> subprocess.CompletedProcess[str]:
        whole = [sys.executable, "-m", *command, str(model), "--memory", "900", "--json", *options]
        return subprocess.run(whole, cwd=ROOT, capture_output=True, text=True, env=variables, timeout=120)

    plan = ["services.doctor", "--plan"]
    for ended, number, here in (
        (told(plan), 6, 2),
        (told(plan, "--nodes", "1"), 2, 2),
        (told(["rlhf_online.cli", "doctor", "--plan"], "--ranks", "4", "--nodes", "1"), 4, 4),
    ):
        assert ended.returncode == 0, ended.stderr
        found = json.loads(ended.stdout)
        assert (found["ranks"], found["ranks_here"]) == (number, here)
        assert f"its {here} ranks of {number}" in found["findings"][0]["what"]
        assert found["plans"][0]["other_ranks"]["cpu"] > 0
    wrong = told(plan, "--ranks", "none")
    assert wrong.returncode == 2 and "'none' is no number of 1 or more" in wrong.stderr


SECRETS = {
    "RLHF_KAFKA_PASSWORD": PASSWORD,
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    "AWS_SESSION_TOKEN": "FQoGZXIvYXdzEXAMPLETOKEN",
    "RLHF_API_KEY": "rlhf-key-EXAMPLE-0123456789",
}


def test_no_secret_is_in_what_is_said_whatever_is_wrong(
    installed: Installation, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Wrong credentials, and secrets that somebody wrote where a path, a name or an address belongs."""
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    from rlhf_online.eventlog.kafka import cluster

    monkeypatch.setitem(vars(cluster)["_CLIENT"], "bootstrap_timeout_ms", 1_000)
    secrets = [*SECRETS.values(), installed.state.operator_token(), (installed.state.root / "person.salt").read_text()]
    faults: list[dict[str, Any]] = [
        {"log": {"url": installed.tables["chat"]["log"]["url"], "kafka": {"mechanism": "PLAIN", "username": "u"}}},
        {"log": {"url": "kafka://127.0.0.1:1", "kafka": {"mechanism": "PLAIN", "username": "u", "password": PASSWORD}}},
        {
            "log": {
                "url": "kafka://127.0.0.1:1",
                "kafka": {"mechanism": "PLAIN", "username": "u", "password_file": PASSWORD},
            }
        },
        {"log": {"url": f"kafka://u:{PASSWORD.replace(' ', '')}@127.0.0.1:1"}},
        {"versions": {"url": f"s3://key:{SECRETS['AWS_SESSION_TOKEN']}@bucket/prefix"}},
        {"log": {"url": "file:"}, "http_port": "x"},
    ]
    secrets.append(PASSWORD.replace(" ", ""))
    for fault in faults:
        path = tmp_path / "fault" / "chat.toml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(tomli_w.dumps(installed.tables["chat"] | fault))
        monkeypatch.setattr(sys, "argv", ["doctor", "--config", str(path)])
        assert doctor.main() == 1
        told = "".join(capfd.readouterr())
        assert not [secret for secret in secrets if secret in told], told
