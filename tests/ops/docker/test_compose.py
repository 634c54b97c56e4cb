"""docker/compose.yaml: valid, closed where it should be, and of settings, rules and dashboards that are there."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from rlhf_online import config
from rlhf_online.config import ChatSettings, EngineServerSettings, RewardSettings
from rlhf_online.training.settings import TrainerSettings
from tests.support.ops_tools import tool

ROOT = Path(__file__).resolve().parents[3]
DOCKER = ROOT / "docker"
OURS = ("chat", "engine", "reward", "trainer")


def read(name: str) -> dict[str, Any]:
    return yaml.safe_load((DOCKER / name).read_text())


def services() -> dict[str, dict[str, Any]]:
    return read("compose.yaml")["services"]


def mounts(service: dict[str, Any]) -> dict[str, tuple[str, bool]]:
    """target → (source, read-only)."""
    found = {}
    for volume in service.get("volumes", []):
        if isinstance(volume, str):
            source, target, *mode = volume.split(":")
            found[target] = source, mode == ["ro"]
        else:
            found[volume["target"]] = volume["source"], volume.get("read_only", False)
    return found


@pytest.mark.parametrize("name", ["compose.yaml", "compose.gpu.yaml"])
def test_it_is_as_the_compose_specification_wants_it(name: str) -> None:
    schema = json.loads(tool("compose-spec.json").read_text())
    jsonschema.validate(read(name), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(read(name) | {"services": {"chat": {"imgae": "typo"}}}, schema)


@pytest.mark.parametrize("name", OURS)
def test_a_service_may_change_nothing_but_its_volumes(name: str) -> None:
    service = services()[name]
    assert (service["read_only"], service["user"], service["cap_drop"]) == (True, "10001:10001", ["ALL"])
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert mounts(service)[f"/etc/rlhf-online/{name}.toml"] == (f"./settings/{name}.toml", True)
    assert mounts(service)["/models/model"][1] is True


def test_what_is_published_is_published_on_this_machine_alone() -> None:
    ports = [port for service in services().values() for port in service.get("ports", [])]
    assert len(ports) == 4
    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert not services()["engine"].get("ports")


def test_the_engine_reads_versions_where_the_chat_service_has_them_and_meets_it_on_one_socket() -> None:
    chat, engine = mounts(services()["chat"]), mounts(services()["engine"])
    assert chat["/var/lib/rlhf-online/versions"] == ("versions", False)
    assert engine["/var/lib/rlhf-online/versions"] == ("versions", True)
    assert chat["/run/rlhf-online"] == engine["/run/rlhf-online"]
    given = config.load(ChatSettings, DOCKER / "settings" / "chat.toml").engine
    own = config.load(EngineServerSettings, DOCKER / "settings" / "engine.toml")
    assert given.url == f"unix:{own.socket}"
    assert (given.model, given.tuning, given.max_model_len) == (own.model, own.tuning, own.max_model_len)


def test_the_settings_files_are_valid_and_lead_to_each_other() -> None:
    reward = config.load(RewardSettings, DOCKER / "settings" / "reward.toml")
    trainer = config.load(TrainerSettings, DOCKER / "settings" / "trainer.toml")
    chat = config.load(ChatSettings, DOCKER / "settings" / "chat.toml")
    assert trainer.chat_url == f"http://chat:{chat.http_port}"
    assert trainer.reward_address == f"reward:{reward.grpc_port}"
    assert trainer.log.url == chat.log.url == "kafka://kafka:9092"
    jobs = {job["job_name"]: job["static_configs"][0]["targets"] for job in read("prometheus.yml")["scrape_configs"]}
    assert jobs == {
        "chat": [f"chat:{chat.http_port}"],
        "engine": [f"chat:{chat.http_port}"],
        "reward": [f"reward:{reward.metrics_port}"],
        "trainer": [f"trainer:{trainer.metrics_port}"],
    }


def test_nothing_secret_stands_in_the_files() -> None:
    for name in ("chat", "trainer"):
        assert "secrets.env" in services()[name]["environment"]["RLHF_OPERATOR_TOKEN"]
    assert "docker/secrets.env" in (ROOT / ".gitignore").read_text()
    assert services()["chat"]["environment"]["RLHF_KEYS"] == '{"keys": []}', "closed until somebody makes a key"


def test_prometheus_and_grafana_read_the_files_of_the_chart() -> None:
    rules = mounts(services()["prometheus"])["/etc/prometheus/rules"]
    dashboards = mounts(services()["grafana"])[read("grafana/dashboards.yaml")["providers"][0]["options"]["path"]]
    assert rules == ("../helm/rlhf-online/files/alerts", True)
    assert dashboards == ("../helm/rlhf-online/files/dashboards", True)


def test_prometheus_takes_its_configuration(tmp_path: Path) -> None:
    text = (DOCKER / "prometheus.yml").read_text().replace("/etc/prometheus/rules", str(tmp_path))
    (tmp_path / "prometheus.yml").write_text(text)
    for rules in (ROOT / "helm" / "rlhf-online" / "files" / "alerts").glob("*.yaml"):
        shutil.copy(rules, tmp_path)
    done = subprocess.run(
        [tool("promtool"), "check", "config", tmp_path / "prometheus.yml"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_make_compose_writes_the_secrets_once_and_for_the_owner_alone(tmp_path: Path) -> None:
    (tmp_path / "docker").mkdir()
    shutil.copy(ROOT / "Makefile", tmp_path)
    make = ["make", "-C", str(tmp_path), "docker/secrets.env"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    subprocess.run(make, check=True, timeout=60, capture_output=True, env=environment)
    written = (tmp_path / "docker" / "secrets.env").read_text()
    assert re.fullmatch(r"RLHF_OPERATOR_TOKEN=[0-9a-f]{64}\nRLHF_PERSON_SALT=[0-9a-f]{64}\n", written)
    assert (tmp_path / "docker" / "secrets.env").stat().st_mode & 0o077 == 0
    subprocess.run(make, check=True, timeout=60, capture_output=True, env=environment)
    assert (tmp_path / "docker" / "secrets.env").read_text() == written
