"""The settings file of the three services: every leaf is used or refused by name, and so is every name of old files."""

import itertools
import json
import re
import tomllib
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from rlhf_online.config import ChatSettings, RewardSettings, load
from rlhf_online.config.files import write_toml
from rlhf_online.errors import ConfigError
from rlhf_online.training.settings import TrainerSettings
from services.standalone import children
from services.standalone.children import Ports
from services.standalone.settings import SERVICES, SHARED, StandaloneSettings

DATA = Path(__file__).resolve().parents[1] / "data" / "settings-46f9894.json"
KINDS = {"up": StandaloneSettings, "chat": ChatSettings, "reward": RewardSettings, "trainer": TrainerSettings}
REQUIRED = {
    "up": {"state_dir": "s", "model": "m"},
    "chat": {"state_dir": "s"},
    "reward": {"state_dir": "s", "model": "m"},
    "trainer": {"state_dir": "s", "model": "m", "chat_url": "c", "reward_address": "r"},
}
PORTS = Ports({"chat": {"http": 1, "grpc": 2}, "reward": {"grpc": 3, "metrics": 4}, "trainer": {"metrics": 5}})
OF_THE_PORTS = {"chat.http_port", "chat.grpc_port", "reward.grpc_port", "reward.metrics_port", "trainer.metrics_port"}
OF_THE_WHOLE = {"ready_file", "die_with_parent"}
"""Used by services/standalone itself; the services have others."""

Table = dict[str, Any]


def nested(names: Table) -> Table:
    """`{"a.b": 1}` → `{"a": {"b": 1}}`."""
    found: Table = {}
    for name, value in names.items():
        *tables, last = name.split(".")
        inner = found
        for table in tables:
            inner = inner.setdefault(table, {})
        inner[last] = value
    return found


def at(values: Any, name: str) -> Any:
    for part in name.split("."):
        values = values.get(part) if isinstance(values, dict) else None
    return values


def leaves(annotation: Any, name: str = "") -> Iterator[tuple[str, Any, Table]]:
    """Name, annotation, and what must be given beside it so that its table is the one that is meant."""
    for field_name, field in annotation.model_fields.items():
        below, inner = f"{name}{field_name}", field.annotation
        members = typing.get_args(inner) if typing.get_origin(inner) in (typing.Union, types.UnionType) else (inner,)
        tables = [member for member in members if isinstance(member, type) and issubclass(member, BaseModel)]
        if not tables:
            yield below, inner, {}
        for table in tables:
            beside = {f"{below}.name": table.model_fields["name"].default} if len(tables) > 1 else {}
            for leaf, kind, more in leaves(table, f"{below}."):
                yield leaf, kind, beside | more


LEAVES = list(leaves(StandaloneSettings))
NAMES = {name for name, _, _ in LEAVES}
CIRCUMSTANCES: list[Table] = [
    {},
    {"tuning": "full"},
    {"log.url": "kafka://a:1"},
    {"log.url": "kafka://a:1", "log.kafka.tls": True},
    {"log.url": "kafka://a:1", "log.kafka.mechanism": "PLAIN"},
    {"log.url": "kafka://a:1", "log.kafka.mechanism": "OAUTHBEARER"},
    {"versions.url": "s3://a/b"},
    {"chat.engine.mode": "external"},
    {"chat.tls.cert_file": "x"},
    {"trainer.lease.kind": "kubernetes"},
    {"trainer.canary.steps": [0.1]},
    {"trainer.policy.ptx_coef": 0.5},
    {"trainer.reward.tuning": "lora"},
    {"trainer.policy.algorithm.kl_coef": 0.1, "trainer.policy.algorithm.kl_target": 2.0},
    {"trainer.policy.algorithm.kl_coef": 0.1, "trainer.policy.algorithm.kl_in": "loss"},
    {"trainer.policy.algorithm.correction": "decoupled"},
    {"trainer.policy.algorithm.std": False},
]
HANDED_ON = ("device", "log_level", "log_levels", "log_format", "tracing.endpoint")
TEXTS = ["x", "s3://a/b", "http://a"]
TABLES = [{"a": 1}, {"a": {"words": ["b"]}}, {"services.chat": "error"}, [{"algorithm": {"name": "grpo"}}]]
VALUES = [32, 3, 0.5, 0.3, 1.5, True, *TEXTS, ["a"], ["https://a"], [0.1], [["a", "b"], ["c", "d"]], *TABLES]


def candidates(annotation: Any) -> list[Any]:
    choices = list(typing.get_args(annotation)) if typing.get_origin(annotation) is typing.Literal else []
    return [choice for choice in choices[::-1] if isinstance(choice, str)] or VALUES


def written(tmp_path: Path, settings: StandaloneSettings) -> dict[str, Table]:
    moved = settings.model_copy(update={"state_dir": tmp_path})
    return {name: tomllib.loads(children.write_settings(name, moved, PORTS).read_text()) for name in SERVICES}


@pytest.mark.parametrize(("name", "annotation", "beside"), LEAVES, ids=[name for name, _, _ in LEAVES])
def test_every_leaf_reaches_its_service_or_is_refused_by_name(
    tmp_path: Path, name: str, annotation: Any, beside: Table
) -> None:
    path, refusals = tmp_path / "up.toml", []
    for circumstances, value in itertools.product(CIRCUMSTANCES, candidates(annotation)):
        write_toml(nested({**REQUIRED["up"], **beside, **circumstances, name: value}), path)
        try:
            settings = load(StandaloneSettings, path)
        except ConfigError as error:
            refusals.append(str(error))
            continue
        files = written(tmp_path, settings)
        service, _, own = name.partition(".")
        if service in SERVICES:
            places = [(service, own)]
        else:
            places = [decided.split(".", 1) for decided, by in SHARED.items() if f"{name}.".startswith(f"{by}.")]
            places = [(service, own + name.removeprefix(SHARED[f"{service}.{own}"])) for service, own in places]
        if name in OF_THE_PORTS:  # as given at the first start, and then as it was announced
            assert at(settings.model_dump(), name) == value
        elif name == "state_dir":
            assert settings.state_dir == Path(value)
        elif name not in OF_THE_WHOLE and name not in HANDED_ON:
            found = [at(files[service], own) for service, own in places]
            assert {str(one) for one in found if one not in (None, value)} == set()
            assert value in found, f"{name} = {value} is in none of {places}: {found}"
        return
    parts = name.split(".")
    names = [".".join(parts[: depth + 1]) for depth in range(len(parts))]
    assert any(f"{one} is no setting: it is " in told for one in names for told in refusals), set(refusals)


def test_what_is_given_above_holds_for_whoever_has_no_other(tmp_path: Path) -> None:
    given: Table = {
        "device": "cpu", "log_level": "debug", "log_levels": {"services": "error"}, "tracing.endpoint": "http://a",
        "reward.device": "cuda", "trainer.log_level": "error", "chat.tracing.sample": 0.5,
        "reward.tracing.endpoint": "http://b",
    }  # fmt: skip
    path = tmp_path / "up.toml"
    write_toml(nested({**REQUIRED["up"], **given}), path)
    files = written(tmp_path, load(StandaloneSettings, path))
    assert (files["chat"]["engine"]["device"], files["reward"]["device"], files["trainer"]["device"]) == (
        "cpu", "cuda", "cpu"
    )  # fmt: skip
    assert [files[name]["log_level"] for name in SERVICES] == ["debug", "debug", "error"]
    assert all(files[name]["log_levels"] == {"services": "error"} for name in SERVICES)
    assert files["chat"]["tracing"] == {"endpoint": "http://a", "sample": 0.5}
    assert [files[name]["tracing"]["endpoint"] for name in ("reward", "trainer")] == ["http://b", "http://a"]


def test_a_mistake_above_is_told_once(tmp_path: Path) -> None:
    path = tmp_path / "up.toml"
    write_toml({"state_dir": "s", "tuning": "some", "device": "tpu"}, path)
    with pytest.raises(ConfigError) as refused:
        load(StandaloneSettings, path)
    assert [line.removeprefix(f"{path}: ").split(":")[0] for line in str(refused.value).splitlines()] == [
        "model is missing and has no default", "tuning", "device"
    ]  # fmt: skip


def test_a_rank_that_the_engine_does_not_take_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "up.toml"
    write_toml(nested({**REQUIRED["up"], "chat.engine.max_lora_rank": 8, "trainer.policy.lora_rank": 64}), path)
    with pytest.raises(ConfigError, match=r"max_lora_rank is 8, less than trainer\.policy\.lora_rank, which is 64"):
        load(StandaloneSettings, path)


def old_settings() -> Iterator[tuple[str, str, Any]]:
    for kind, names in json.loads(DATA.read_text()).items():
        for name, value in names.items():
            yield kind, name, "x" if value is None else value


@pytest.mark.parametrize(("kind", "name", "value"), list(old_settings()))
def test_every_setting_of_46f9894_is_taken_or_refused_with_its_new_name(
    tmp_path: Path, kind: str, name: str, value: Any
) -> None:
    path = tmp_path / "old.toml"
    write_toml(nested({**REQUIRED[kind], name: value}), path)
    try:
        load(KINDS[kind], path)
    except ConfigError as error:
        told = str(error).removeprefix(f"{path}: ")
        if re.search(r"has no effect while \S+ is .*: it needs|has no effect without", told):
            return
        moved = re.match(r"(\S+) is no setting: it is (\S+)", told)
        assert moved, told
        old, new = moved.groups()
        assert name == old
        known = NAMES if kind == "up" else {leaf for leaf, _, _ in leaves(KINDS[kind])}
        assert {new, f"{new}.name", new.rpartition(".")[0]} & known or "chat service" in told, told


def test_canaries_of_whole_weights_on_one_machine_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "up.toml"
    write_toml(nested({**REQUIRED["up"], "tuning": "full", "trainer.canary.steps": [0.1]}), path)
    with pytest.raises(ConfigError, match=r"trainer\.canary\.steps needs tuning = 'lora' on one machine"):
        load(StandaloneSettings, path)
    write_toml(nested({**REQUIRED["up"], "trainer.canary.steps": [0.1]}), path)
    assert load(StandaloneSettings, path).trainer.canary.steps == (0.1,)
