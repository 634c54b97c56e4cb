"""A real broker that lets nobody in but one: whoever is not let in is told which step failed."""

import gc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rlhf_online.config import KafkaSettings, LogSettings
from rlhf_online.doctor.finding import Finding
from rlhf_online.doctor.kafka import kafka
from rlhf_online.eventlog import kafka_cluster
from tests.support.kafka_broker import Broker, needed
from tests.support.ports import reserve

pytestmark = needed()


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    broker = Broker(tmp_path_factory.mktemp("kafka"), secure=True)
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture(autouse=True)
def collect() -> Iterator[None]:
    """kafka-python leaves the sockets of refused connections to the garbage collector."""
    yield
    gc.collect()


@pytest.fixture
def short_of_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody answers is given up after two seconds; a broker on a busy machine may need longer for its word."""
    monkeypatch.setitem(_client(), "bootstrap_timeout_ms", 2_000)


def _client() -> dict[str, Any]:
    from rlhf_online.eventlog.kafka import cluster

    return vars(cluster)["_CLIENT"]


def examined(broker: Broker, folder: Path, *, password: str = "", **changes: Any) -> list[Finding]:
    known = broker.credentials
    assert known is not None
    (folder / "password").write_text(password or known.password)
    given: dict[str, Any] = {
        "tls": True,
        "ca_file": known.ca_file,
        "mechanism": "SCRAM-SHA-512",
        "username": known.username,
        "password_file": folder / "password",
    }
    settings = KafkaSettings(**{name: value for name, value in (given | changes).items() if value is not None})
    cluster = kafka_cluster(LogSettings(url=f"kafka://{broker.address}", kafka=settings))
    assert cluster is not None
    found = kafka(cluster)
    assert known.password not in str(found)
    return found


def refused(found: list[Finding]) -> str:
    (one,) = [finding for finding in found if finding.severity == "refuse"]
    return one.what


def test_topics_that_are_missing_are_told_then_all_is_well_and_the_clock_is_compared(
    broker: Broker, tmp_path: Path
) -> None:
    found = examined(broker, tmp_path)
    assert [finding.what for finding in found if finding.severity == "warn"] == [
        f"rlhf.{name} is missing" for name in ("completions", "feedback", "versions", "dead-letters", "orphans")
    ]
    from rlhf_online.eventlog.kafka import topics

    known = broker.credentials
    assert known is not None
    who = KafkaSettings(
        tls=True,
        ca_file=known.ca_file,
        mechanism="SCRAM-SHA-512",
        username=known.username,
        password_file=tmp_path / "password",
    )
    cluster = kafka_cluster(LogSettings(url=f"kafka://{broker.address}", kafka=who))
    assert cluster is not None
    topics.apply(cluster)
    found = examined(broker, tmp_path)
    assert [finding.severity for finding in found] == ["ok"] * 4
    assert [finding.about for finding in found][2:] == ["topics", "clock"]
    assert [f.what for f in kafka(replace(cluster, settings=who.model_copy(update={"partitions": 3})))][2:4] == [
        "rlhf.completions has 1 partitions, 3 are wanted",
        "rlhf.feedback has 1 partitions, 3 are wanted",
    ]


def test_a_wrong_password_is_told_as_that(broker: Broker, tmp_path: Path) -> None:
    said = refused(examined(broker, tmp_path, password="not the password"))
    assert "refuses log.kafka.username and its password" in said and "not the password" not in said


def test_a_mechanism_that_the_broker_does_not_know_is_told_as_that(broker: Broker, tmp_path: Path) -> None:
    """Its answer may be overtaken by the end of the connection, which is told as what it is."""
    said = refused(examined(broker, tmp_path, mechanism="PLAIN"))
    assert "log.kafka.mechanism = 'PLAIN'" in said and "know" in said


@pytest.mark.usefixtures("short_of_patience")
def test_a_certificate_that_nobody_vouches_for_is_told_as_that(broker: Broker, tmp_path: Path) -> None:
    assert "log.kafka.ca_file (the system) does not vouch for (self-signed" in refused(
        examined(broker, tmp_path, ca_file=None)
    )


@pytest.mark.usefixtures("short_of_patience")
def test_tls_where_the_settings_say_none_is_told_as_that(broker: Broker, tmp_path: Path) -> None:
    assert refused(examined(broker, tmp_path, tls=False, ca_file=None)) == "speaks TLS, and log.kafka.tls is false"


@pytest.mark.usefixtures("short_of_patience")
def test_a_broker_that_is_away_and_a_host_that_is_none() -> None:
    for address, said in (
        (f"127.0.0.1:{reserve()}", "takes no connection"),
        ("no.such.host.invalid:9092", "no address"),
        ("two..dots:9092", "it is no host's name"),
    ):
        cluster = kafka_cluster(LogSettings(url=f"kafka://{address}"))
        assert cluster is not None
        (found,) = kafka(cluster)
        assert found.severity == "refuse" and said in found.what
