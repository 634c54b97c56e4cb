"""The topics as code: what they must be, how those that are there differ, and how to make them so.

    completions, feedback   events, keyed by conversation, kept for `retention_days`
    versions                what became of each version, keyed by its name: compacted, kept for ever
    dead-letters            records that cannot be used, with place and reason
    orphans                 feedback whose answer never came, likewise

`differences` is pure; the rest talks to Kafka.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import KafkaError, TopicAlreadyExistsError

from rlhf_online.config import KafkaSettings
from rlhf_online.errors import LogError, LogUnavailable
from rlhf_online.eventlog.kafka.cluster import Cluster
from rlhf_online.eventlog.segments import MAX_RECORD

EVENTS = ("completions", "feedback", "versions")
DEAD_LETTERS, ORPHANS = "dead-letters", "orphans"

INSYNC = "min.insync.replicas"
UNCLEAN = "unclean.leader.election.enable"
"""A replica that lacks confirmed events may become the leader, and they are gone."""
MAX_REQUEST = MAX_RECORD + (1 << 20)
DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as wanted or as found. `replication` 0 and a configuration not named: whatever the brokers choose."""

    name: str
    partitions: int
    replication: int
    configs: Mapping[str, str] = field(default_factory=dict)
    topic_id: str = ""


def wanted(prefix: str, settings: KafkaSettings) -> list[Topic]:
    """What the topics must be."""
    common = {"max.message.bytes": str(MAX_REQUEST), UNCLEAN: "false"}
    if settings.min_insync:
        common[INSYNC] = str(settings.min_insync)
    retention_ms = str(round(settings.retention_days * DAY_MS)) if settings.retention_days else "-1"
    events = common | {"cleanup.policy": "delete", "retention.ms": retention_ms}
    versions = common | {"cleanup.policy": "compact"}

    def topic(name: str, partitions: int, configs: Mapping[str, str]) -> Topic:
        return Topic(f"{prefix}.{name}", partitions, settings.replication, configs)

    return [
        topic("completions", settings.partitions, events),
        topic("feedback", settings.partitions, events),
        topic("versions", 1, versions),
        topic(DEAD_LETTERS, 1, events),
        topic(ORPHANS, 1, events),
    ]


def differences(want: Topic, found: Topic | None) -> list[str]:
    """What is not as wanted, a sentence each."""
    if found is None:
        return [f"{want.name} is missing"]
    said = []
    if found.partitions != want.partitions:
        said.append(f"{want.name} has {found.partitions} partitions, {want.partitions} are wanted")
    if want.replication and found.replication != want.replication:
        said.append(f"{want.name} has {found.replication} replicas, {want.replication} are wanted")
    said += too_few_replicas(want, found)
    for name, value in sorted(want.configs.items()):
        if (is_ := found.configs.get(name)) != value:
            said.append(f"{want.name}: {name} is {is_ or 'not told'}, {value} is wanted")
    return said


def too_few_replicas(want: Topic, found: Topic) -> list[str]:
    """Whether Kafka would confirm an event that fewer replicas have than `min_insync` promises.

    It does so silently where there are fewer replicas than min.insync.replicas asks for.
    """
    if found.replication >= (promised := int(want.configs.get(INSYNC, 0))):
        return []
    return [
        f"{want.name} has {found.replication} replicas, fewer than log.kafka.min_insync = {promised}: give it more "
        "with Kafka's tools (or delete it while it is empty, and set log.kafka.replication), or promise fewer"
    ]


def check(cluster: Cluster) -> list[str]:
    """Every difference between the topics and what they must be; none if all is well. Raises LogError."""
    with _Admin(cluster) as admin:
        want = wanted(cluster.prefix, cluster.settings)
        found = admin.find([topic.name for topic in want])
        return [line for topic in want for line in differences(topic, found.get(topic.name))]


def apply(cluster: Cluster) -> tuple[list[str], list[str]]:
    """Make the topics what they must be; returns what was done, and what differs still and why.

    Partitions are added and never removed, and replicas are not moved: Kafka has its own tools for that.
    Raises LogError.
    """
    done = []
    with _Admin(cluster) as admin:
        want = wanted(cluster.prefix, cluster.settings)
        found = admin.find([topic.name for topic in want])
        missing = [topic for topic in want if topic.name not in found]
        admin.create(missing)
        done += [f"{topic.name} is created" for topic in missing]
        for topic in want:
            if (there := found.get(topic.name)) is not None:
                done += admin.mend(topic, there)
        found = admin.find([topic.name for topic in want])
        return done, [line for topic in want for line in differences(topic, found.get(topic.name))]


def ensure(cluster: Cluster) -> dict[str, Topic]:
    """All topics, those that are missing created; what is there is left as it is.

    Raises KafkaError, LogUnavailable; LogError where events would count as shipped that fewer replicas have than
    `min_insync` promises.
    """
    want = wanted(cluster.prefix, cluster.settings)
    names = [topic.name for topic in want]
    with _Admin(cluster, translate=False) as admin:
        promised = bool(cluster.settings.min_insync)
        found = admin.find(names, configs=promised)
        if missing := [topic for topic in want if topic.name not in found]:
            admin.create(missing)
            found = admin.find(names, configs=promised)
        if len(found) < len(names):
            raise LogUnavailable(f"Kafka does not show all of {', '.join(names)} yet: try again")
        for topic in want if promised else []:
            check_promise(topic, found[topic.name])
        return found


def check_promise(want: Topic, found: Topic) -> None:
    """Raises LogError if fewer replicas than wanted need to have an event."""
    said = too_few_replicas(want, found)
    asked = int(found.configs.get(INSYNC, 0))
    if asked < int(want.configs[INSYNC]):
        said.append(
            f"{want.name}: {INSYNC} is {asked}, log.kafka.min_insync = {want.configs[INSYNC]}: run `rlhf-online topics "
            "apply`"
        )
    if said:
        raise LogError(said[0])


class _Admin:
    """An admin client for the time of a `with` block; with `translate` its KafkaErrors leave as LogErrors."""

    def __init__(self, cluster: Cluster, *, translate: bool = True) -> None:
        self._cluster = cluster
        self._translate = translate
        self._client: Any = None

    def __enter__(self) -> "_Admin":
        try:
            self._client = self._cluster.open(KafkaAdminClient)
        except KafkaError as error:
            if not self._translate:
                raise
            raise self._cluster.unavailable(error) from error
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._client.close()
        if self._translate and isinstance(error, KafkaError):
            raise LogError(f"{self._cluster} refused: {error}") from error

    def find(self, names: list[str], *, configs: bool = True) -> dict[str, Topic]:
        """The topics that are there."""
        told = [topic for topic in self._client.describe_topics(names) if not topic["error_code"]]
        settings = self._configs([topic["name"] for topic in told]) if configs else {}
        return {
            topic["name"]: Topic(
                name=topic["name"],
                partitions=len(topic["partitions"]),
                replication=min(len(partition["replica_nodes"]) for partition in topic["partitions"]),
                configs=settings.get(topic["name"], {}),
                topic_id=str(topic["topic_id"]),
            )
            for topic in told
        }

    def create(self, topics: list[Topic]) -> None:
        """Create topics; one that somebody else has just created is fine."""
        if not topics:
            return
        values = {
            topic.name: {
                "num_partitions": topic.partitions,
                "replication_factor": topic.replication or -1,
                "configs": dict(topic.configs),
            }
            for topic in topics
        }
        try:
            self._client.create_topics(values, wait_for_metadata=True)
        except TopicAlreadyExistsError:
            self._client.wait_for_topics(list(values))

    def mend(self, want: Topic, found: Topic) -> list[str]:
        """Add partitions and set configurations; what was done."""
        done = []
        if found.partitions < want.partitions:
            self._client.create_partitions({want.name: want.partitions})
            done.append(f"{want.name} has {want.partitions} partitions now, instead of {found.partitions}")
        changed = {name: value for name, value in want.configs.items() if found.configs.get(name) != value}
        if changed:
            self._client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, want.name, changed)])
            done += [f"{want.name}: {name} is {value} now" for name, value in sorted(changed.items())]
        return done

    def _configs(self, names: list[str]) -> dict[str, dict[str, str]]:
        if not names:
            return {}
        asked = [ConfigResource(ConfigResourceType.TOPIC, name, None) for name in names]
        told = self._client.describe_configs(asked, config_filter="all")
        return {
            name: {key: str(entry["value"]) for key, entry in entries.items()}
            for name, entries in told.get("topic", {}).items()
        }
