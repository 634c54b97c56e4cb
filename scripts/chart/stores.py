"""Where things are kept: disks, Kafka, versions, people's content keys."""

from typing import Annotated, Literal

from pydantic import Field

from rlhf_online.config import KafkaSettings
from scripts.chart.kinds import Name, Object, Quantity, Value
from scripts.chart.settings import SettingsOf

FILES = ("ca_file", "cert_file", "key_file", "password_file")


class SecretKey(Value):
    name: Name = Field(default="", description="Name of the Secret; empty: none.")
    key: str = Field(default="", description="Its key.")


class Disk(Value):
    enabled: bool = Field(
        default=True,
        description="A volume a pod. false: an emptyDir; what was acknowledged and is not in Kafka yet is lost with "
        "the pod, and so are people's own lists of conversations.",
    )
    size: Quantity = Field(default="20Gi", description="Its size.")
    storageClass: Name = Field(default="", description="Storage class; empty: the cluster's default.")
    accessMode: Literal["ReadWriteOnce", "ReadWriteOncePod"] = Field(
        default="ReadWriteOnce", description="One pod has it."
    )


class CheckpointDisk(Disk):
    enabled: bool = Field(
        default=True,
        description="A volume for checkpoints and the ledger. false: an emptyDir; with versions in a bucket a new pod "
        "goes on from the checkpoint there, else it learns all of Kafka anew.",
    )
    size: Quantity = Field(default="100Gi", description="Its size.")


class SharedDisk(Value):
    existingClaim: Name = Field(
        default="", description="A claim that exists; empty: one is made, and kept at uninstall."
    )
    size: Quantity = Field(default="200Gi", description="Size of the claim that is made.")
    storageClass: Name = Field(
        default="", description="Storage class; it must offer ReadWriteMany, and working file locks."
    )


class Kafka(Value):
    brokers: list[Annotated[str, Field(pattern=r"^[^\s,/]+:[0-9]{1,5}$")]] = Field(
        default=[], description="Required, unless `strimzi.enabled`: [kafka-0.example.org:9093, …]."
    )
    topicPrefix: str = Field(
        default="rlhf", pattern=r"^[a-zA-Z0-9._-]+$", description="First part of the topics' names."
    )
    settings: Annotated[Object, SettingsOf(KafkaSettings, FILES)] = Field(
        default={}, description="`[log.kafka]` of every service: partitions, replication, tls, mechanism, username, …"
    )
    passwordSecret: SecretKey = SecretKey(key="password")
    caSecret: SecretKey = SecretKey(key="ca.crt")
    certSecret: Name = Field(default="", description="Secret with `tls.crt` and `tls.key`, where brokers ask for one.")
    createTopics: bool = Field(
        default=True,
        description="A Job, before each install and upgrade, creates and alters the topics; it deletes none.",
    )


class Strimzi(Value):
    enabled: bool = Field(default=False, description="Have Strimzi, which must be there, run a Kafka for this release.")
    version: str = Field(default="", description="Kafka's version; empty: the operator's default.")
    replicas: Annotated[int, Field(gt=0)] = Field(
        default=3, description="Brokers; topics have as many replicas, at most 3."
    )
    storage: Object = Field(
        default={"type": "persistent-claim", "size": "100Gi", "deleteClaim": False}, description="Strimzi's storage."
    )
    resources: Object = Field(default={}, description="Of a broker.")


class Versions(Value):
    url: str = Field(
        default="",
        pattern=r"^((s3|gs|az)://[^/\s]+(/[^\s]*)?)?$",
        description="A bucket, 's3://bucket/prefix'; empty: a volume that all pods mount (ReadWriteMany).",
    )
    existingSecret: Name = Field(
        default="",
        description="Secret whose keys are variables: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL, "
        "AWS_REGION, …; none where the service accounts' annotations give access.",
    )
    cacheGib: float = Field(
        default=8,
        ge=0,
        description="`versions.cache_gib`: local copies of a bucket's versions, on the volumes of chat and trainer. Of "
        "each kind four stay in any case: with all weights plan for as many.",
    )
    disk: SharedDisk = SharedDisk()


class Keystore(Value):
    url: str = Field(
        default="",
        pattern=r"^((s3|gs|az)://[^/\s]+(/[^\s]*)?)?$",
        description="A bucket for people's content keys, 's3://bucket/prefix', with the credentials of `versions`; "
        "empty: nothing that people write is sealed.",
    )
    existingSecret: Name = Field(
        default="",
        description="Secret whose key `kek` (16 characters or more, never to change) wraps these keys, so that neither "
        "it nor the bucket alone opens anything.",
    )
