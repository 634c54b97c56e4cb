"""The settings files that the chart renders are those that the services read; what must agree is said once."""

import json
import re
from pathlib import Path

import pytest

from rlhf_online import config
from rlhf_online.config import ChatSettings, EngineServerSettings, RewardSettings
from rlhf_online.training.settings import TrainerSettings
from scripts.chart.settings import OURS
from tests.support.chart import CHART, LEAST, PROFILES, Rendered, merged, render

KINDS = {"chat": ChatSettings, "engine": EngineServerSettings, "reward": RewardSettings, "trainer": TrainerSettings}


def read(objects: Rendered, service: str, folder: Path):
    """As the service itself reads its file."""
    file = folder / f"{service}.toml"
    file.write_text(objects.file(service))
    return config.load(KINDS[service], file)


def test_what_must_agree_is_said_once(tmp_path: Path) -> None:
    values = merged(
        LEAST,
        {
            "model": {"path": "/models/m"},
            "tuning": "full",
            "device": "cpu",
            "objectives": ["helpful", "harmless"],
            "kafka": {"topicPrefix": "own", "settings": {"partitions": 12}},
            "versions": {"url": "s3://bucket/prefix"},
            "hosts": ["chat.example.org"],
            "tracing": {"endpoint": "http://collector:4318"},
        },
    )
    objects = render(values)
    chat, engine, reward, trainer = (read(objects, service, tmp_path) for service in KINDS)
    assert chat.engine.model == reward.model == trainer.model == engine.model == "/models/m"
    assert chat.engine.tuning == trainer.tuning == engine.tuning == "full"
    assert chat.engine.url == f"unix:{engine.socket}"
    assert chat.objectives == trainer.reward.objectives == ("helpful", "harmless")
    assert chat.log.url == trainer.log.url == "kafka://kafka:9092"
    assert chat.log.topic_prefix == trainer.log.topic_prefix == "own"
    assert chat.log.kafka == trainer.log.kafka
    assert chat.tracing.endpoint == reward.tracing.endpoint == trainer.tracing.endpoint == "http://collector:4318"
    assert chat.log_format == reward.log_format == trainer.log_format == "json"
    assert chat.versions == reward.versions == trainer.versions
    assert chat.versions.url == "s3://bucket/prefix"
    assert chat.allowed_hosts == ("chat.example.org",)
    assert objects.one("Service", "-chat")["metadata"]["name"] in trainer.chat_url
    assert objects.one("Service", "-reward")["metadata"]["name"] in trainer.reward_address


@pytest.mark.parametrize("profile", PROFILES, ids="+".join)
def test_services_take_the_settings_of_every_profile(profile: tuple[str, ...], tmp_path: Path) -> None:
    objects = render(LEAST, *profile)
    for service in KINDS:
        read(objects, service, tmp_path)


def test_settings_reach_the_services_as_they_were_given(tmp_path: Path) -> None:
    """Large numbers, small ones, tables in lists and names that TOML must quote, too."""
    words = {"brand": {"words": ["Acme & Söhne", 'a "quote"'], "allow": "more"}}
    schedule = [{"algorithm": {"name": "grpo", "kl_coef": 1e-7}, "updates": 3}]
    values = merged(
        LEAST,
        {
            "engine": {"settings": {"chat_template_kwargs": {"a name": [1, {"b": 2.5}], "on": True}}},
            "chat": {"settings": {"limits": {"max_body_bytes": 1048576, "answer_timeout_s": 90}}},
            "trainer": {
                "settings": {
                    "policy": {"lr": 2e-7, "schedule": schedule},
                    "gate": {"traits": {"words": words}},
                    "canary": {"steps": [0.01, 0.5]},
                }
            },
        },
    )
    objects = render(values)
    chat, trainer = read(objects, "chat", tmp_path), read(objects, "trainer", tmp_path)
    assert objects.settings("engine")["chat_template_kwargs"] == {"a name": [1, {"b": 2.5}], "on": True}
    assert chat.limits.max_body_bytes == 1048576
    assert trainer.policy.lr == 2e-7
    assert trainer.policy.schedule[0].algorithm.kl_coef == 1e-7
    assert trainer.gate.traits.words["brand"].words == ("Acme & Söhne", 'a "quote"')
    assert trainer.canary.steps == (0.01, 0.5)


def test_defaults_that_are_the_charts_own_are_told_as_such() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())["properties"]
    for service in ("chat", "reward", "trainer"):
        told = schema[service]["properties"]["settings"]["properties"]
        assert {name: render().settings(service)[name] for name in OURS} == {
            name: told[name]["default"] for name in OURS
        }


@pytest.mark.parametrize("timeout_s", [None, 90, 1800.5])
def test_a_pod_that_ends_finishes_the_longest_answer(timeout_s: float | None, tmp_path: Path) -> None:
    given = {} if timeout_s is None else {"limits": {"answer_timeout_s": timeout_s}}
    objects = render(merged(LEAST, {"chat": {"settings": given, "preStopSeconds": 7}}))
    chat = read(objects, "chat", tmp_path)
    assert chat.drain_s >= chat.limits.answer_timeout_s
    grace_s = objects.one("StatefulSet", "-chat")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace_s >= 7 + chat.drain_s + 15


def test_runbooks_look_where_the_chart_has_the_state() -> None:
    state = render().settings("chat")["state_dir"]
    runbooks = [path.read_text() for path in (CHART.parents[1] / "docs" / "runbooks").glob("*.md")]
    lines = [line for text in runbooks for line in text.splitlines() if line.startswith("kubectl ")]
    seen = [path for line in lines for path in re.findall(r"/var/lib/rlhf-online/\S+", line)]
    assert len(seen) > 3
    assert [path for path in seen if not f"{path}/".startswith(f"{state}/")] == []


def test_the_engine_has_room_for_the_adapters_that_the_trainer_makes() -> None:
    objects = render(merged(LEAST, {"trainer": {"settings": {"policy": {"lora_rank": 64}}}}))
    assert objects.settings("engine")["max_lora_rank"] == objects.settings("chat")["engine"]["max_lora_rank"] == 64


def test_flags_of_vllm_are_handed_on_to_the_engine_and_to_nobody_else(tmp_path: Path) -> None:
    given = {"settings": {"extra_args": ["--seed", "1"]}, "extraArgs": ["--kv-cache-dtype", "fp8"]}
    objects = render(merged(LEAST, {"engine": given}))
    assert read(objects, "engine", tmp_path).extra_args == ("--seed", "1", "--kv-cache-dtype", "fp8")
    assert "extra_args" not in objects.settings("chat")["engine"]


def test_a_trunk_of_its_own_is_what_the_reward_service_loads() -> None:
    objects = render(merged(LEAST, {"trainer": {"settings": {"reward": {"trunk": "/models/trunk"}}}}))
    assert objects.settings("reward")["model"] == "/models/trunk"
    assert objects.settings("trainer")["model"] == "/models/policy"
