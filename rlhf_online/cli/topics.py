"""`rlhf-online topics …`: the Kafka topics as code."""

from pathlib import Path
from typing import Annotated, Any

import typer

from rlhf_online.config import load_log
from rlhf_online.errors import ConfigError, LogError

app = typer.Typer(
    help="The Kafka topics: what they must be, and whether they are. TLS, SASL and all else from --config.",
    no_args_is_help=True,
)

KafkaOption = Annotated[str, typer.Option(help="Brokers, kafka://host:port,host:port; wins over the file.")]
ConfigOption = Annotated[Path | None, typer.Option("--config", help="Settings (TOML) of a service; table log is read.")]
PrefixOption = Annotated[str | None, typer.Option(help="First part of the topics' names (default rlhf).")]
PartitionsOption = Annotated[int | None, typer.Option(help="Partitions of the event topics (default 1).")]
ReplicationOption = Annotated[int | None, typer.Option(help="Replicas (default: the brokers' choice).")]
InsyncOption = Annotated[int | None, typer.Option(help="min.insync.replicas (default: the brokers' choice).")]
RetentionOption = Annotated[float | None, typer.Option(help="Days that events stay; 0: for ever (default 30).")]


@app.command("check")
def check(
    kafka: KafkaOption = "",
    config: ConfigOption = None,
    prefix: PrefixOption = None,
    partitions: PartitionsOption = None,
    replication: ReplicationOption = None,
    min_insync: InsyncOption = None,
    retention_days: RetentionOption = None,
) -> None:
    """Say what differs from what the topics must be; exit code 1 if anything does."""
    cluster = _cluster(kafka, config, prefix, partitions, replication, min_insync, retention_days)
    from rlhf_online.eventlog.kafka import topics

    _conclude(topics.check(cluster))
    print("the topics are as they must be")


@app.command("apply")
def apply(
    kafka: KafkaOption = "",
    config: ConfigOption = None,
    prefix: PrefixOption = None,
    partitions: PartitionsOption = None,
    replication: ReplicationOption = None,
    min_insync: InsyncOption = None,
    retention_days: RetentionOption = None,
) -> None:
    """Create topics that are missing, add partitions, set configurations; say what was done. Nothing is deleted."""
    cluster = _cluster(kafka, config, prefix, partitions, replication, min_insync, retention_days)
    from rlhf_online.eventlog.kafka import topics

    done, left = topics.apply(cluster)
    for line in done:
        print(line)
    _conclude(left)
    print("the topics are as they must be")


def _conclude(differences: list[str]) -> None:
    if differences:
        raise LogError("the topics are not as they must be:\n" + "\n".join(f"  {line}" for line in differences))


def _cluster(
    kafka: str,
    config: Path | None,
    prefix: str | None,
    partitions: int | None,
    replication: int | None,
    min_insync: int | None,
    retention_days: float | None,
) -> Any:
    """Raises ConfigError."""
    from rlhf_online.eventlog import kafka_cluster

    asked = {
        "partitions": partitions,
        "replication": replication,
        "min_insync": min_insync,
        "retention_days": retention_days,
    }
    given: dict[str, Any] = {"kafka": {name: value for name, value in asked.items() if value is not None}}
    given |= {"url": kafka} if kafka else {}
    given |= {"topic_prefix": prefix} if prefix else {}
    cluster = kafka_cluster(load_log(config, given))
    if cluster is None:
        raise ConfigError("no Kafka to look at: give --kafka kafka://host:port, or a --config whose log.url says it")
    return cluster
