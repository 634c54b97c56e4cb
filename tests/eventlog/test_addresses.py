"""Where `log.url` says that the log lies on this machine; `test_cluster` has the addresses of brokers."""

from pathlib import Path
from typing import Any

import pytest

from rlhf_online import eventlog
from rlhf_online.config import LogSettings
from rlhf_online.errors import ConfigError
from rlhf_online.eventlog import kafka_cluster, log_folder, open_source
from rlhf_online.eventlog.retention import Retention
from rlhf_online.eventlog.tail import LocalReader


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("file:", "state/log"),
        ("file:/var/log/votes", "/var/log/votes"),
        ("file:///var/log/votes", "/var/log/votes"),
        ("file:beside/it", "beside/it"),
        ("kafka://broker:9092", "state/log"),
    ],
)
def test_the_folder_of_a_log(url: str, expected: str) -> None:
    assert log_folder(LogSettings(url=url), Path("state/log")) == Path(expected)


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(ConfigError, match="a file address names no host"):
        log_folder(LogSettings(url="file://elsewhere/log"), Path("log"))


def test_a_file_address_is_of_no_cluster() -> None:
    assert kafka_cluster(LogSettings(url="file:")) is None
    with pytest.raises(ConfigError, match="a file address names no host"):
        kafka_cluster(LogSettings(url="file://elsewhere/log"))


def test_a_file_address_is_read_from_its_folder(tmp_path: Path) -> None:
    source = open_source(LogSettings(url=f"file:{tmp_path / 'there'}"), tmp_path / "here")
    assert isinstance(source, LocalReader)
    source.close()
    assert (tmp_path / "there").is_dir() and not (tmp_path / "here").exists()


@pytest.mark.parametrize(
    ("settings", "retention"),
    [
        ({"retain_gib": 2.5, "retain_days": 7}, Retention(max_bytes=2.5 * 1024**3, max_age_s=7 * 24 * 3600)),
        ({"retain_gib": 0, "retain_days": 0}, Retention()),
    ],
)
def test_how_much_is_kept_is_told_in_gibibytes_and_days_and_0_is_no_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, float], retention: Retention
) -> None:
    opened: list[tuple[Path, Any]] = []
    monkeypatch.setattr(eventlog, "LocalLog", lambda folder, **options: opened.append((folder, options)))
    eventlog.open_sink(LogSettings.model_validate({"segment_bytes": 5000} | settings), tmp_path)
    assert opened == [(tmp_path, {"segment_bytes": 5000, "retention": retention})]
