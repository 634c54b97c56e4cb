"""No secret, no text and no name in what the services say: logs, errors, metrics, status, settings that are written."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from rlhf_online.config import (
    ChatSettings,
    KafkaSettings,
    LogSettings,
    ProcessSettings,
    RewardSettings,
    Section,
    dump,
    load,
)
from rlhf_online.config.engine import EngineServerSettings
from rlhf_online.errors import ConfigError
from rlhf_online.eventlog import kafka_cluster
from rlhf_online.training.settings import TrainerSettings
from services.standalone.settings import StandaloneSettings
from tests.support.chat_process import chat_process
from tests.support.ports import reserve
from tests.support.waiting import eventually

pytestmark = pytest.mark.filterwarnings("ignore:(read|open)_text is deprecated:DeprecationWarning")

PASSWORD = "a-password-that-nobody-may-see"
TEXT, NAME = "a-question-that-nobody-may-see", "a-name-that-nobody-may-see"
OPERATOR, SALT = "an-operators-token-that-nobody-may-see", "a-salt-of-people-that-nobody-may-see"
WRONG = "a-wrong-token-that-nobody-may-see"
SERVICES: list[type[ProcessSettings]] = [
    ChatSettings, RewardSettings, TrainerSettings, StandaloneSettings, EngineServerSettings,
]  # fmt: skip


def settings_of(table: type[Section], seen: set[type[Section]]) -> Iterator[tuple[str, object]]:
    """Name and type of each setting of a table and of those in it."""
    if table in seen:
        return
    seen.add(table)
    for name, field in table.model_fields.items():
        yield name, field.annotation
        for inner in (field.annotation, *get_args(field.annotation)):
            if isinstance(inner, type) and issubclass(inner, Section):
                yield from settings_of(inner, seen)


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.__name__)
def test_no_setting_holds_a_secret_so_none_is_in_a_file_of_settings(service: type[ProcessSettings]) -> None:
    words = ("password", "secret", "credential", "token", "salt", "key")
    named = [name for name, _ in settings_of(service, set()) if any(name.endswith(word) for word in words)]
    assert [name for name in named if name != "key"] == [], "a secret is named by its file, or by a variable"


def test_a_password_is_in_no_settings_that_are_written_shown_or_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("RLHF_KAFKA_PASSWORD", PASSWORD)
    (tmp_path / "password").write_text(PASSWORD)
    kafka = KafkaSettings(mechanism="PLAIN", username="u", password_file=tmp_path / "password")
    settings = ChatSettings(state_dir=tmp_path, log=LogSettings(url="kafka://127.0.0.1:1", kafka=kafka))
    dump(settings, tmp_path / "chat.toml")
    cluster = kafka_cluster(settings.log)
    assert cluster is not None
    told = f"{(tmp_path / 'chat.toml').read_text()} {settings!r} {cluster!r} {cluster}"
    assert PASSWORD not in told
    for written in (
        f'[log]\nurl = "kafka://u:{PASSWORD}@127.0.0.1:1"',
        f'[log.kafka]\npassword = "{PASSWORD}"',
        f'[versions]\nurl = "s3://key:{PASSWORD}@bucket"',
        '[log]\nurl = "kafka://127.0.0.1:1"\n[log.kafka]\nmechanism = "PLAIN"\nusername = "u"\n'
        f'password_file = "{PASSWORD}"',
    ):
        (tmp_path / "wrong.toml").write_text(f'state_dir = "s"\n{written}\n')
        with pytest.raises(ConfigError) as refused:
            kafka_cluster(load(ChatSettings, tmp_path / "wrong.toml").log)
        assert PASSWORD not in str(refused.value)


def written(folder: Path) -> str:
    """What the service said, its status and its settings."""
    files = [folder / "chat.out", *(folder / "state" / "status").glob("*"), *folder.rglob("*.toml")]
    return "\n".join(path.read_text(errors="replace") for path in files)


async def test_a_service_that_logs_all_it_can_says_no_secret_no_text_and_no_name(tmp_path: Path, monkeypatch) -> None:
    """With a Kafka that refuses, an operator's token that is wrong and one that is right, people who chat and vote."""
    for variable, value in (
        ("RLHF_KAFKA_PASSWORD", PASSWORD), ("RLHF_OPERATOR_TOKEN", OPERATOR), ("RLHF_PERSON_SALT", SALT),
    ):  # fmt: skip
        monkeypatch.setenv(variable, value)
    log = LogSettings(url=f"kafka://127.0.0.1:{reserve()}", kafka=KafkaSettings(mechanism="PLAIN", username="u"))
    told: list[str] = []
    async with chat_process(tmp_path, log=log, log_level="debug") as chat:

        async def ask(method: str, path: str, body: object = None, token: str = "") -> dict:
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            async with chat.session.request(method, chat.url + path, json=body, headers=headers) as response:
                text = await response.text()
            if not path.startswith("/v1/chat"):
                told.append(text)
            return json.loads(text) if text.startswith("{") else {}

        question = {"model": "rlhf-online", "user": NAME, "messages": [{"role": "user", "content": TEXT}]}
        answer = await ask("POST", "/v1/chat/completions", question)
        vote = {"thumb": {"answer": {"completion_id": answer["id"]}, "up": True}, "user": NAME}
        assert "event_id" in await ask("POST", "/v1/feedback", vote)
        await ask("POST", "/v1/versions/rollback", {}, WRONG)
        await ask("POST", "/v1/versions/policy-000009/promote", {}, OPERATOR)
        await ask("POST", "/v1/feedback", {"thumb": TEXT, "user": NAME}, WRONG)
        for path in ("/metrics", "/readyz", "/healthz", "/openapi.json", "/v1/versions"):
            await ask("GET", path)
        await eventually(chat.failed_deliveries)
    shown = "\n".join([*told, written(tmp_path)])
    assert "delivery" in shown or "rlhf_log_delivery_failures_total" in shown
    for secret in (PASSWORD, OPERATOR, SALT, WRONG):
        assert secret not in shown
    said = chat.output.read_text(errors="replace")
    assert said and TEXT not in said and NAME not in said
