"""The event log: an acknowledged event is durable, and is read in order from a position that the reader keeps.

`open_sink` and `open_source` pick the implementation by `log.url`; Kafka's client is imported only if it asks for it.
"""

from pathlib import Path

from rlhf_online.config import LogSettings
from rlhf_online.errors import ConfigError
from rlhf_online.eventlog.base import Sink, Source
from rlhf_online.eventlog.local import LocalLog, LocalReader


def open_sink(settings: LogSettings, folder: Path) -> Sink:
    """The log's writer in `folder`; with a Kafka address, what is written there is shipped as well.

    Raises ConfigError, LogLocked, LogCorrupt, LogUnavailable.
    """
    servers = _servers(settings.url)
    if not servers:
        return LocalLog(folder, segment_bytes=settings.segment_bytes)
    from rlhf_online.eventlog.kafka import KafkaSink

    return KafkaSink(folder, servers=servers, prefix=settings.topic_prefix, segment_bytes=settings.segment_bytes)


def open_source(settings: LogSettings, folder: Path) -> Source:
    """The log's reader: of `folder` itself, or of Kafka's topics.

    Raises ConfigError, LogUnavailable.
    """
    servers = _servers(settings.url)
    if not servers:
        return LocalReader(folder)
    from rlhf_online.eventlog.kafka import KafkaSource

    return KafkaSource(servers=servers, prefix=settings.topic_prefix)


def _servers(url: str) -> list[str]:
    """Kafka's addresses; none for the log on this machine."""
    if url == "file:":
        return []
    scheme, _, rest = url.partition("://")
    servers = [server.strip() for server in rest.split(",")]
    if scheme == "kafka" and all(_is_address(server) for server in servers):
        return servers
    raise ConfigError(f"log.url: expected 'file:' or 'kafka://host:port,host:port', got {url!r}")


def _is_address(server: str) -> bool:
    host, _, port = server.rpartition(":")
    return bool(host) and port.isdigit() and 0 < int(port) < 65536
