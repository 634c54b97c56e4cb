"""`rlhf-online topics …`: the Kafka topics as code."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from rlhf_online.config import load_log
from rlhf_online.errors import ConfigError, LogError
from rlhf_online.eventlog import kafka_cluster

Action = Annotated[
    Literal["check", "apply"],
    typer.Argument(
        help="check: say what differs, exit code 1 if anything does. apply: create, add and set; delete nothing."
    ),
]
KafkaOption = Annotated[str, typer.Option(help="Brokers, kafka://host:port,host:port; wins over the file.")]
ConfigOption = Annotated[Path | None, typer.Option("--config", help="Settings (TOML) of a service; table log is read.")]
PrefixOption = Annotated[str | None, typer.Option(help="First part of the topics' names (default rlhf).")]
PartitionsOption = Annotated[int | None, typer.Option(help="Partitions of the event topics (default 1).")]
ReplicationOption = Annotated[int | None, typer.Option(help="Replicas (default: the brokers' choice).")]
InsyncOption = Annotated[int | None, typer.Option(help="min.insync.replicas (default: the brokers' choice).")]
RetentionOption = Annotated[float | None, typer.Option(help="Days that events stay; 0: for ever (default 30).")]


def topics(
    action: Action,
    kafka: KafkaOption = "",
    config: ConfigOption = None,
    prefix: PrefixOption = None,
    partitions: PartitionsOption = None,
    replication: ReplicationOption = None,
    min_insync: InsyncOption = None,
    retention_days: RetentionOption = None,
) -> None:
    """The Kafka topics: what they must be, and whether they are. TLS, SASL and all else from --config."""
    asked = {
        "--kafka": ("log.url", kafka or None),
        "--prefix": ("log.topic_prefix", prefix or None),
        "--partitions": ("log.kafka.partitions", partitions),
        "--replication": ("log.kafka.replication", replication),
        "--min-insync": ("log.kafka.min_insync", min_insync),
        "--retention-days": ("log.kafka.retention_days", retention_days),
    }
    options = [(flag, f"{name}={value}") for flag, (name, value) in asked.items() if value is not None]
    cluster = kafka_cluster(load_log(config, options))
    if cluster is None:
        raise ConfigError("no Kafka to look at: give --kafka kafka://host:port, or a --config whose log.url says it")
    from rlhf_online.eventlog.kafka import topics as code

    done, left = code.apply(cluster) if action == "apply" else ([], code.check(cluster))
    for line in done:
        print(line)
    if left:
        raise LogError("the topics are not as they must be:\n" + "\n".join(f"  {line}" for line in left))
    print("the topics are as they must be")
