"""Settings of the event log, and of Kafka behind it."""

from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from rlhf_online.config.base import Only, Positive, Section
from rlhf_online.config.explain import explained
from rlhf_online.config.files import from_file
from rlhf_online.config.given import Option, from_options, merged


class KafkaSettings(Section):
    only_with: ClassVar = {
        **dict.fromkeys(("ca_file", "cert_file", "key_file"), Only("tls", True)),
        **dict.fromkeys(("username", "password_file"), Only("mechanism", "PLAIN", "SCRAM-*")),
        "token_file": Only("mechanism", "OAUTHBEARER"),
    }

    partitions: Positive = Field(default=1, description="Partitions of the event topics; a conversation stays in one.")
    replication: int = Field(default=0, ge=0, description="Replicas of each topic; 0: the brokers' default.")
    min_insync: int = Field(
        default=0,
        ge=0,
        description="Replicas that must have an event before it counts as shipped; 0: the brokers' default.",
    )
    retention_days: float = Field(default=30.0, ge=0, description="How long events stay in Kafka; 0: for ever.")
    tls: bool = Field(default=False, description="Speak TLS; certificates are verified.")
    ca_file: Path | None = Field(
        default=None, description="PEM file of the authorities to trust; the system's by default."
    )
    cert_file: Path | None = Field(
        default=None, description="PEM file of our own certificate, where brokers ask for one."
    )
    key_file: Path | None = Field(default=None, description="PEM file of its key.")
    mechanism: Literal["", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] = Field(
        default="", description="SASL mechanism by which we say who we are."
    )
    username: str = Field(default="", description="Name for PLAIN and SCRAM.")
    password_file: Path | None = Field(default=None, description="File of the password; or set RLHF_KAFKA_PASSWORD.")
    token_file: Path | None = Field(
        default=None, description="File of the bearer token, read anew for each connection."
    )

    @model_validator(mode="after")
    def _enough_replicas(self) -> Self:
        if 0 < self.replication < self.min_insync:
            raise PydanticCustomError(
                "too_few_replicas",
                "min_insync = {min_insync} is more than replication = {replication}: so many replicas there are not",
                {"min_insync": self.min_insync, "replication": self.replication},
            )
        return self


class LogAddress(Section):
    """Where the log is read."""

    only_with: ClassVar = dict.fromkeys(("topic_prefix", "kafka"), Only("url", "kafka:*"))

    url: str = Field(
        default="file:",
        description="'file:' keeps the log in the state folder, 'file:/path' there; 'kafka://host:port,…' ships it.",
    )
    topic_prefix: str = Field(default="rlhf", description="First part of the Kafka topics' names.")
    kafka: KafkaSettings = KafkaSettings()


class LogSettings(LogAddress):
    """Where the log is, and how it is written."""

    segment_bytes: Positive = Field(default=64 << 20, description="Size at which the local log begins a new segment.")
    retain_gib: float = Field(
        default=0.0,
        ge=0,
        description="Size of the local log beyond which what everybody has read or Kafka has goes; 0: none.",
    )
    retain_days: float = Field(
        default=0.0,
        ge=0,
        description="Age beyond which what everybody has read or Kafka has goes from the local log; 0: none.",
    )


class LogTable(Section):
    """What `load_log` reads of a service's file."""

    log: LogSettings = LogSettings()


def load_log(path: Path | None, options: Iterable[Option] = ()) -> LogSettings:
    """The table `log` of any service's file (None: defaults), over it the `options`, such as `log.url=…`.

    Raises ConfigError.
    """
    given = [*from_file(path), *from_options(options)]
    with explained(given, LogTable):
        return LogTable.model_validate({"log": merged(given).get("log", {})}).log
