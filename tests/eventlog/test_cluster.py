"""TLS and SASL: what is refused before a connection is tried, and a real broker that lets nobody else in."""

import gc
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
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
    "url",
    [
        "kafka://",
        "kafka://broker",
        "kafka://broker:0",
        "kafka://broker:65536",
        "kafka://:9092",
        "kafka://a:9092,",
        "http://a:80",
        "a",
    ],
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


def test_a_client_is_told_how_to_come_in_and_nothing_that_was_not_asked_for(tmp_path: Path) -> None:
    from rlhf_online.eventlog.kafka.cluster import security

    (tmp_path / "secret").write_text("s3cret\n")
    plain = KafkaSettings(mechanism="PLAIN", username="ada", password_file=tmp_path / "secret")
    assert security(KafkaSettings()) == {"security_protocol": "PLAINTEXT"}
    assert security(plain) == {
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "PLAIN",
        "sasl_plain_username": "ada",
        "sasl_plain_password": "s3cret",
    }
    encrypted = security(KafkaSettings(tls=True))
    assert encrypted.keys() == {"security_protocol", "ssl_context"} and encrypted["security_protocol"] == "SSL"
    bearer = security(KafkaSettings(tls=True, mechanism="OAUTHBEARER", token_file=tmp_path / "secret"))
    assert (bearer["security_protocol"], bearer["sasl_mechanism"]) == ("SASL_SSL", "OAUTHBEARER")
    assert bearer["sasl_oauth_token_provider"].token() == "s3cret"


def test_a_client_shows_its_own_certificate_and_asks_for_the_brokers(monkeypatch: pytest.MonkeyPatch) -> None:
    from rlhf_online.eventlog.kafka.cluster import security

    used: list[Any] = []
    context = SimpleNamespace(load_cert_chain=lambda *files: used.append(files))
    monkeypatch.setattr("ssl.create_default_context", lambda cafile: used.append(cafile) or context)
    settings = KafkaSettings(tls=True, ca_file=Path("/ca.pem"), cert_file=Path("/us.pem"), key_file=Path("/key.pem"))
    assert security(settings)["ssl_context"] is context
    assert used == [Path("/ca.pem"), (Path("/us.pem"), Path("/key.pem"))]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="Linux tells what a process has open")
def test_a_cluster_that_does_not_answer_leaves_no_thread_and_no_file_behind(caplog: pytest.LogCaptureFixture) -> None:
    from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
    from kafka.errors import KafkaError

    cluster = kafka_cluster(_settings())
    assert cluster is not None

    def held() -> tuple[int, int]:
        gc.collect()
        return threading.active_count(), len(os.listdir("/proc/self/fd"))

    caplog.set_level(logging.CRITICAL, "kafka")  # what is caught would hold on to the sockets
    begun = held()
    for kind in (KafkaAdminClient, KafkaConsumer, KafkaProducer):
        with pytest.raises(KafkaError):
            cluster.open(kind, bootstrap_timeout_ms=100)
        until(lambda: held() <= begun, 30, "nothing to be left")


def test_a_credential_that_is_gone_for_a_while_is_a_kafka_that_is_away(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("s3cret")
    cluster = kafka_cluster(_settings(mechanism="PLAIN", username="ada", password_file=tmp_path / "password"))
    assert cluster is not None
    assert cluster.open(dict)["sasl_plain_password"] == "s3cret"
    (tmp_path / "password").unlink()
    with pytest.raises(LogUnavailable, match=r"Kafka at 127\.0\.0\.1:1 is not asked: log\.kafka\.password_file"):
        cluster.open(dict)


def test_a_connection_that_is_lost_before_it_is_of_use_lengthens_the_pause_and_a_good_one_ends_it() -> None:
    from kafka.net.selector import NetworkSelector

    from rlhf_online.eventlog.kafka.cluster import BackoffManager

    network = NetworkSelector()
    manager = BackoffManager(network, bootstrap_servers=["127.0.0.1:1"], reconnect_backoff_ms=60_000)
    connections = manager._conns = {}  # noqa: SLF001  # there is no public way to have one without a broker
    for connection in (None, SimpleNamespace(connected=False)):
        if connection is not None:
            connections[0] = connection
        manager.reset_backoff(0)
        assert manager.connection_delay(0) > 0, "it is not tried again at once"
    connections[0] = SimpleNamespace(connected=True)
    manager.reset_backoff(0)
    connections.clear()
    assert manager.connection_delay(0) == 0
    network.close()


def test_a_producer_is_ended_whatever_became_of_its_deliveries() -> None:
    from rlhf_online.eventlog.kafka.cluster import force_close

    done: list[str] = []
    sender = SimpleNamespace(force_close=lambda: done.append("the sender is told"))
    force_close(SimpleNamespace(_sender=sender, close=lambda timeout: done.append("closed")))
    assert done == ["the sender is told", "closed"], "in this order: to close waits for the sender"


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


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("password", r"refuses log\.kafka\.username and its password"),
        ("authority", r"a certificate that log\.kafka\.ca_file \(the system\) does not vouch for \(self-signed"),
        ("plaintext", r"does not answer .*log\.kafka"),
    ],
)
def test_who_is_not_let_in_is_told_why_and_nothing_hangs(broker: Broker, tmp_path: Path, wrong: str, said: str):
    known = _known(broker)
    (tmp_path / "password").write_text("wrong" if wrong == "password" else known.password)
    who = {"mechanism": "SCRAM-SHA-512", "username": known.username, "password_file": tmp_path / "password"}
    tls = {"tls": wrong != "plaintext", "ca_file": known.ca_file if wrong == "password" else None}
    source = open_source(_settings(broker.address, **who, **tls), tmp_path / "log")
    with pytest.raises(LogUnavailable, match=said) as told:
        source.end()
    assert known.password not in str(told.value)
    source.close()
