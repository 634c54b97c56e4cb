"""TLS and SASL: what is refused before a connection is tried, and a real broker that lets nobody else in."""

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rlhf_online.config import KafkaSettings, LogSettings
from rlhf_online.errors import ConfigError, LogUnavailable
from rlhf_online.eventlog import kafka_cluster, open_sink, open_source
from rlhf_online.wire import encode
from tests.support.kafka_broker import Broker, Credentials, missing_tools
from tests.support.logged import thumb
from tests.support.waiting import until

pytestmark = [
    pytest.mark.filterwarnings("ignore:(read|open)_text is deprecated:DeprecationWarning"),
    # It leaves the sockets of refused connections to the garbage collector, which `collect` runs within each test.
    pytest.mark.filterwarnings("ignore:Exception ignored in. <(socket|ssl):pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(autouse=True)
def collect() -> Iterator[None]:
    yield
    gc.collect()


def _settings(address: str = "127.0.0.1:1", **kafka: Any) -> LogSettings:
    return LogSettings(url=f"kafka://{address}", kafka=KafkaSettings(**kafka))


def test_a_kafka_address_names_brokers_and_the_topics_have_a_prefix() -> None:
    cluster = kafka_cluster(LogSettings(url="kafka://one:9092, two:9093", topic_prefix="votes."))
    assert cluster is not None
    assert (cluster.servers, cluster.prefix) == (["one:9092", "two:9093"], "votes.")
    assert str(cluster) == "Kafka at one:9092, two:9093"


@pytest.mark.parametrize(
    "url", ["kafka://", "kafka://broker", "kafka://broker:0", "kafka://a:9092,", "http://a:80", "a"]
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match=r"log\.url: expected 'file:', 'file:/path' or 'kafka://host:port,host:port'"):
        kafka_cluster(LogSettings(url=url))


@pytest.mark.parametrize(
    ("kafka", "message"),
    [
        ({"mechanism": "SCRAM-SHA-512"}, "username: SCRAM-SHA-512 needs one"),
        ({"mechanism": "PLAIN", "username": "ada"}, "password_file, or set RLHF_KAFKA_PASSWORD"),
        ({"mechanism": "PLAIN", "username": "ada", "password_file": Path("/nowhere")}, "/nowhere cannot be read"),
        ({"mechanism": "OAUTHBEARER"}, "token_file: OAUTHBEARER needs a file"),
        ({"mechanism": "OAUTHBEARER", "token_file": Path("/dev/null")}, "/dev/null is empty"),
        ({"tls": True, "ca_file": Path("/nowhere")}, "ca_file /nowhere.*cannot be used"),
        ({"tls": True, "cert_file": Path("/nowhere")}, "cert_file /nowhere.*cannot be used"),
        ({"tls": True, "cert_file": Path("/dev/null"), "key_file": Path("/dev/null")}, "cert_file /dev/null.*PEM"),
    ],
)
def test_settings_of_no_use_are_named_before_anything_is_sent(kafka, message, monkeypatch):
    monkeypatch.delenv("RLHF_KAFKA_PASSWORD", raising=False)
    with pytest.raises(ConfigError, match=message):
        kafka_cluster(_settings(**kafka))


def test_credentials_come_from_a_file_or_the_environment_and_are_never_shown(tmp_path: Path, monkeypatch):
    from rlhf_online.eventlog.kafka.cluster import TokenFile, security

    (tmp_path / "password").write_text("s3cret\n")
    settings = _settings(mechanism="PLAIN", username="ada", password_file=tmp_path / "password")
    cluster = kafka_cluster(settings)
    assert security(settings.kafka)["sasl_plain_password"] == "s3cret"
    assert "s3cret" not in f"{cluster} {cluster!r} {settings!r}"
    monkeypatch.setenv("RLHF_KAFKA_PASSWORD", "other")
    assert security(_settings(mechanism="PLAIN", username="ada").kafka)["sasl_plain_password"] == "other"
    token = TokenFile(tmp_path / "password")
    assert token.token() == "s3cret"
    (tmp_path / "password").write_text("rotated")
    assert token.token() == "rotated"


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    if reason := missing_tools():
        pytest.skip(reason)
    broker = Broker(tmp_path_factory.mktemp("kafka"), secure=True)
    broker.start()
    yield broker
    broker.stop()


def _known(broker: Broker) -> Credentials:
    assert broker.credentials is not None
    return broker.credentials


def test_events_pass_a_broker_that_asks_for_tls_and_a_password(broker: Broker, tmp_path: Path):
    known = _known(broker)
    (tmp_path / "password").write_text(known.password)
    settings = _settings(
        broker.address,
        tls=True,
        ca_file=known.ca_file,
        mechanism="SCRAM-SHA-512",
        username=known.username,
        password_file=tmp_path / "password",
    )
    source, sink = open_source(settings, tmp_path / "log"), open_sink(settings, tmp_path / "log")
    try:
        sink.append(encode(thumb("c", event_id="vote"))).result(30)
        until(lambda: sum(source.end().values()) == 1, 60, "the vote to be shipped")
        assert [record.payload for record in source.read({}, 10)[0]] == [encode(thumb("c", event_id="vote"))]
    finally:
        sink.close()
        source.close()


def test_a_password_file_that_is_gone_for_a_while_delays_delivery_and_ends_nothing(broker: Broker, tmp_path: Path):
    known, password = _known(broker), tmp_path / "password"
    password.write_text(known.password)
    who = {"mechanism": "SCRAM-SHA-512", "username": known.username, "password_file": password}
    settings = _settings(broker.address, tls=True, ca_file=known.ca_file, **who)
    source, sink = open_source(settings, tmp_path / "log"), open_sink(settings, tmp_path / "log")
    try:
        password.unlink()
        sink.append(encode(thumb("c", event_id="vote"))).result(30)
        until(lambda: sink.shipping().failures >= 2, 60, "two deliveries to fail")
        with pytest.raises(LogUnavailable, match=r"log\.kafka\.password_file: .*password cannot be read"):
            source.end()
        password.write_text(known.password)
        until(lambda: sink.shipping().backlog == 0, 60, "the vote to be shipped")
        assert encode(thumb("c", event_id="vote")) in [record.payload for record in source.read({}, 10)[0]]
    finally:
        sink.close()
        source.close()


@pytest.mark.parametrize("wrong", ["password", "authority", "plaintext"])
def test_who_is_not_let_in_is_told_so_and_nothing_hangs(broker: Broker, tmp_path: Path, wrong: str):
    known = _known(broker)
    (tmp_path / "password").write_text("wrong" if wrong == "password" else known.password)
    who = {"mechanism": "SCRAM-SHA-512", "username": known.username, "password_file": tmp_path / "password"}
    tls = {"tls": wrong != "plaintext", "ca_file": known.ca_file if wrong == "password" else None}
    source = open_source(_settings(broker.address, **who, **tls), tmp_path / "log")
    with pytest.raises(LogUnavailable, match=r"does not answer .*log\.kafka") as told:
        source.end()
    assert known.password not in str(told.value)
    source.close()
