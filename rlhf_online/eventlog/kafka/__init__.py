"""The event log through Kafka: the local log as spool, a forwarder that ships it, and a source for the trainer.

    append ──▶ LocalLog (fsync = acknowledged) ──▶ Forwarder process ──▶ {prefix}.completions · .feedback · .versions

`cluster` knows how to reach Kafka, `topics` what its topics must be, `forwarder` writes them in a
process of its own (`forwarder_process`, started by `sink`) and `source` reads them.
The only importer of kafka-python.
"""

from rlhf_online.eventlog.kafka.cluster import Cluster
from rlhf_online.eventlog.kafka.sink import KafkaSink
from rlhf_online.eventlog.kafka.source import KafkaSource

__all__ = ["Cluster", "KafkaSink", "KafkaSource"]
