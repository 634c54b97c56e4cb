"""The circle with the services as in pods: each with only its extras, over Kafka with TLS and SASL, and an S3 server.

A person chats, votes, the vote is trained, the version that comes of it is swapped in, and answers.
"""

import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rlhf_online.config import (
    EngineServerSettings,
    EngineSettings,
    KafkaSettings,
    LogAddress,
    LogSettings,
    VersionsSettings,
)
from services.standalone.settings import StandaloneSettings
from tests.support import circle
from tests.support.kafka_broker import Broker, missing_tools
from tests.support.object_server import BUCKET, ObjectServer, environment, object_server
from tests.support.ports import reserve
from tests.support.services_apart import IMAGES, Apart, Person, make_environment, make_wheel
from tests.support.waiting import ENGINE_START_S, ENGINE_TEST_S, until

pytestmark = [
    pytest.mark.ops,
    pytest.mark.timeout(3 * ENGINE_TEST_S),
    pytest.mark.skipif(bool(missing_tools()), reason=missing_tools() or "-"),
]

OPERATOR, SALT = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
ABSENT = {
    "chat": ("torch", "transformers", "vllm", "pytest"),
    "engine": ("kafka", "obstore", "pytest"),
    "reward": ("kafka", "vllm", "uvicorn", "pytest"),
    "trainer": ("vllm", "uvicorn", "starlette", "pytest"),
}


@dataclass
class Apartments:
    """All four, and somebody who calls."""

    services: dict[str, Apart]
    person: Person
    settings: StandaloneSettings

    def wait(self, condition: Callable[[], Any], what: str) -> Any:
        """Until it is so; fails with the services' last words as soon as one has ended."""

        def there() -> Any:
            value = condition()
            ended = [name for name, each in self.services.items() if each.process and each.process.poll() is not None]
            assert value or not ended, f"{what}: {ended} ended\n{self.tail()}"
            return value

        return until(there, 3 * ENGINE_START_S, lambda: f"{what}\n{self.tail()}", poll_s=0.2)

    def tail(self) -> str:
        return "\n".join(each.tail() for each in self.services.values())


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Not pytest's, whose path is too long for an engine's socket."""
    with tempfile.TemporaryDirectory(prefix="rlhf-apart-") as name:
        yield Path(name)


@pytest.fixture(scope="module")
def broker(folder: Path) -> Iterator[Broker]:
    broker = Broker(folder / "kafka", secure=True)
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture(scope="module")
def storage() -> Iterator[ObjectServer]:
    with object_server() as server:
        yield server


@pytest.fixture(scope="module")
def installed(folder: Path) -> dict[str, Path]:
    """The interpreter of each service."""
    wheel = make_wheel(folder / "wheel")
    return {name: make_environment(name, wheel) for name in IMAGES}


@pytest.fixture(scope="module")
def apart(folder: Path, installed: dict[str, Path], broker: Broker, storage: ObjectServer) -> Iterator[Apartments]:
    assert broker.credentials is not None
    kafka = KafkaSettings(
        tls=True, ca_file=broker.credentials.ca_file, mechanism="SCRAM-SHA-512", username=broker.credentials.username
    )
    log = LogSettings(url=f"kafka://{broker.address}", kafka=kafka)
    settings = circle.settings(folder, log)
    bucket = environment(storage.port)
    secret = {"RLHF_OPERATOR_TOKEN": OPERATOR}
    password = {"RLHF_KAFKA_PASSWORD": broker.credentials.password}
    given = {
        "chat": {**bucket, **secret, **password, "RLHF_PERSON_SALT": SALT, "RLHF_KEYS": '{"keys": []}'},
        "engine": {},
        "reward": bucket,
        "trainer": {**bucket, **secret, **password},
    }
    services: dict[str, Apart] = {}
    for name, python in installed.items():
        (place := folder / name).mkdir()
        services[name] = Apart(name, python, place, given[name])
    shutil.rmtree(settings.state_dir, ignore_errors=True)  # nobody has one in common
    made = services["chat"].run(
        "-m", "rlhf_online.cli", "keys", "create", "--owner", "ada", "--state", str(services["chat"].state)
    )
    assert made.returncode == 0, made.stderr
    port = start(services, settings)
    person = Person(f"http://127.0.0.1:{port}", made.stdout.strip())
    try:
        yield Apartments(services, person, settings)
    finally:
        person.client.close()
        for name in ("trainer", "reward", "chat", "engine"):
            if services[name].process is not None:
                services[name].stop()


def start(services: dict[str, Apart], settings: StandaloneSettings) -> int:
    """Start all, in the order in which nobody finds what they need; the chat service's port."""
    engine, model = settings.chat.engine, settings.model
    socket = services["engine"].folder / "run" / "engine.sock"
    versions = VersionsSettings(url=f"s3://{BUCKET}/apart")
    ports = [reserve() for _ in range(3)]
    services["trainer"].start(
        settings.trainer.model_copy(
            update={
                "state_dir": services["trainer"].state,
                "versions": versions,
                "chat_url": f"http://127.0.0.1:{ports[0]}",
                "reward_address": f"127.0.0.1:{ports[1]}",
                "log": LogAddress(url=settings.log.url, kafka=settings.log.kafka),
                "metrics_port": 0,
            }
        )
    )
    services["reward"].start(
        settings.reward.model_copy(
            update={"state_dir": services["reward"].state, "versions": versions, "grpc_port": ports[1]}
        )
    )
    services["chat"].start(
        settings.chat.model_copy(
            update={
                "state_dir": services["chat"].state,
                "versions": versions,
                "http_port": ports[0],
                "engine": EngineSettings(
                    mode="external",
                    url=f"unix:{socket}",
                    model=model,
                    tuning="full",
                    max_model_len=engine.max_model_len,
                ),
            }
        )
    )
    services["engine"].start(
        EngineServerSettings(
            model=model,
            socket=socket,
            max_model_len=engine.max_model_len,
            max_num_seqs=engine.max_num_seqs,
            kv_cache_gib=engine.kv_cache_gib,
        )
    )
    return ports[0]


@pytest.mark.parametrize("name", IMAGES)
def test_a_service_has_only_its_extras(apart: Apartments, name: str) -> None:
    for module in ABSENT[name]:
        tried = apart.services[name].run("-c", f"import {module}")
        assert f"No module named '{module}'" in tried.stderr, module


def test_a_vote_becomes_a_version_that_answers(apart: Apartments) -> None:
    acknowledged: set[str] = set()
    apart.wait(apart.person.ready, "the engine serves the first version")
    assert circle.served(apart.person) == "policy-000000"
    circle.vote(apart.person, acknowledged)

    def newer() -> str:
        version = circle.served(apart.person)
        return version if version > "policy-000000" else ""

    after = apart.wait(newer, "a version that was learned from votes answers")
    told = [apart.person.get(f"/v1/feedback/{event_id}") for event_id in acknowledged]
    assert {each["state"] for each in told} <= {"live", "trained", "joined", "waiting", "held_out", "held_back", "kept"}
    assert any(each["state"] == "live" and after in each["message"] for each in told), told


def test_the_engine_is_lost_and_comes_back_with_the_live_version(apart: Apartments) -> None:
    """It starts on random weights, and the chat service brings the live version in before anybody is answered."""
    before, engine = circle.served(apart.person), apart.services["engine"]
    assert engine.process is not None
    engine.process.kill()
    engine.process.wait()
    until(lambda: not apart.person.ready(), ENGINE_START_S, "the loss is noticed")
    start_again = EngineServerSettings.model_validate(
        {
            "model": apart.settings.model,
            "socket": engine.folder / "run" / "engine.sock",
            "max_model_len": apart.settings.chat.engine.max_model_len,
            "kv_cache_gib": apart.settings.chat.engine.kv_cache_gib,
        }
    )
    engine.start(start_again)
    apart.wait(apart.person.ready, "the engine serves again")
    assert circle.served(apart.person) >= before


def test_no_log_tells_a_secret_and_all_end_when_asked(apart: Apartments, broker: Broker) -> None:
    assert broker.credentials is not None
    for name in ("trainer", "reward", "chat", "engine"):
        service = apart.services[name]
        assert service.stop() in ((0, -15) if name == "engine" else (0,)), service.tail()
        written = service.log.read_text() + (service.folder / "settings.toml").read_text()
        for hidden in (OPERATOR, SALT, broker.credentials.password, apart.person.key):
            assert hidden not in written, name
    assert not (apart.services["chat"].state / "operator.token").exists()
