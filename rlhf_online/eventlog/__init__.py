"""The event log: an acknowledged event is durable, and is read in order from a position that the reader keeps.

`open_sink` and `open_source` pick the implementation by `log.url`; Kafka's client is imported only if it asks for it.
"""

import math
from pathlib import Path
from typing import TYPE_CHECKING

from rlhf_online.config import LogAddress, LogSettings
from rlhf_online.config.explain import masked
from rlhf_online.errors import ConfigError
from rlhf_online.eventlog.base import Source, Writer
from rlhf_online.eventlog.local import LocalLog
from rlhf_online.eventlog.retention import Retention
from rlhf_online.eventlog.tail import LocalReader

if TYPE_CHECKING:
    from rlhf_online.eventlog.kafka import Cluster


def open_sink(settings: LogSettings, folder: Path) -> Writer:
    """The log's writer in `folder`, or where a file address says; with Kafka's, what is written is shipped as well.

    Raises ConfigError, LogLocked, LogUnavailable.
    """
    folder = log_folder(settings, folder)
    retention = Retention(settings.retain_gib * 2**30 or math.inf, settings.retain_days * 86_400 or math.inf)
    if (cluster := kafka_cluster(settings)) is None:
        return LocalLog(folder, segment_bytes=settings.segment_bytes, retention=retention)
    from rlhf_online.eventlog.kafka import KafkaSink

    return KafkaSink(folder, cluster, segment_bytes=settings.segment_bytes, retention=retention)


def open_source(settings: LogAddress, folder: Path) -> Source:
    """The log's reader: of `folder`, of the folder in a file address, or of Kafka's topics.

    Raises ConfigError, LogUnavailable.
    """
    if (cluster := kafka_cluster(settings)) is None:
        return LocalReader(log_folder(settings, folder))
    from rlhf_online.eventlog.kafka import KafkaSource

    return KafkaSource(cluster)


def kafka_cluster(settings: LogAddress) -> "Cluster | None":
    """The cluster of `log.url`, not yet connected; None for the log on this machine.

    Raises ConfigError for an invalid address, file or credential.
    """
    if settings.url.startswith("file:"):
        log_folder(settings, Path())
        return None
    scheme, _, rest = settings.url.partition("://")
    servers = [server.strip() for server in rest.split(",")]
    if scheme != "kafka" or not all(_is_address(server) for server in servers):
        raise ConfigError(
            f"log.url: expected 'file:', 'file:/path' or 'kafka://host:port,host:port', got {masked(settings.url)!r}"
        )
    from rlhf_online.eventlog.kafka import Cluster

    cluster = Cluster(servers, settings.topic_prefix, settings.kafka)
    cluster.check()
    return cluster


def log_folder(settings: LogAddress, folder: Path) -> Path:
    """Where the log lies on this machine: the folder that a file address names, `folder` where it names none.

    Raises ConfigError.
    """
    scheme, _, path = settings.url.partition(":")
    if scheme != "file" or not path:
        return folder
    if path.startswith("//") and not path.startswith("///"):
        raise ConfigError(f"log.url: a file address names no host, write 'file:/path', got {settings.url!r}")
    return Path("/" + path.lstrip("/")) if path.startswith("/") else Path(path)


def _is_address(server: str) -> bool:
    host, _, port = server.rpartition(":")
    return bool(host) and "@" not in host and port.isdigit() and 0 < int(port) < 65536
