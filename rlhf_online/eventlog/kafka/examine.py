"""What `rlhf-online doctor` asks of a cluster; nothing is created, changed or sent."""

from kafka import KafkaAdminClient
from kafka.errors import ClusterAuthorizationFailedError, KafkaError, UnsupportedVersionError

from rlhf_online.eventlog.kafka.cluster import Cluster


def clock_s(cluster: Cluster) -> float | None:
    """Seconds since 1970 by the clock of the controller that leads; None where it does not tell, or may not.

    A leader of the metadata's quorum is caught up with itself as of the moment at which it is asked (KIP-836).
    Raises LogUnavailable.
    """
    try:
        admin = cluster.open(KafkaAdminClient)
        try:
            quorum = admin.describe_metadata_quorum()["topics"][0]["partitions"][0]
        finally:
            admin.close()
    except (ClusterAuthorizationFailedError, UnsupportedVersionError, LookupError):
        return None
    except KafkaError as error:
        raise cluster.unavailable(error) from error
    leader = [voter for voter in quorum["current_voters"] if voter["replica_id"] == quorum["leader_id"]]
    told_ms = leader[0]["last_caught_up_timestamp"] if leader else -1
    return told_ms / 1000 if told_ms > 0 else None
