"""Topics as code: what differs is said, what can be mended is mended, against a real broker."""

import uuid
from dataclasses import replace
from typing import Any

import pytest

from rlhf_online.cli import main
from rlhf_online.config import KafkaSettings
from tests.support.kafka_broker import Broker

pytestmark = [
    # kafka-python reads its schemas by functions of the standard library that Python 3.11 and 3.12 call deprecated.
    pytest.mark.filterwarnings("ignore:(read|open)_text is deprecated:DeprecationWarning"),
]


def _wanted(**settings: Any) -> dict[str, Any]:
    from rlhf_online.eventlog.kafka.topics import wanted

    return {topic.name: topic for topic in wanted("p", KafkaSettings(**settings))}


def test_events_expire_and_versions_are_compacted():
    topics = _wanted(partitions=6, replication=3, min_insync=2, retention_days=7)
    assert set(topics) == {"p.completions", "p.feedback", "p.versions", "p.dead-letters", "p.orphans"}
    completions = topics["p.completions"]
    assert (completions.partitions, completions.replication) == (6, 3)
    assert completions.configs["retention.ms"] == str(7 * 24 * 3600 * 1000)
    assert completions.configs["min.insync.replicas"] == "2"
    assert topics["p.versions"].configs["cleanup.policy"] == "compact"
    assert "retention.ms" not in topics["p.versions"].configs
    assert _wanted(retention_days=0)["p.feedback"].configs["retention.ms"] == "-1"


def test_each_difference_is_a_sentence():
    from rlhf_online.eventlog.kafka.topics import differences

    want = _wanted(partitions=6, replication=3)["p.feedback"]
    assert differences(want, None) == ["p.feedback is missing"]
    assert differences(want, want) == []
    assert differences(replace(want, replication=0), replace(want, replication=1)) == []
    found = replace(want, partitions=2, replication=1, configs={**want.configs, "cleanup.policy": "compact"})
    assert differences(want, found) == [
        "p.feedback has 2 partitions, 6 are wanted",
        "p.feedback has 1 replicas, 3 are wanted",
        "p.feedback: cleanup.policy is compact, delete is wanted",
    ]


def test_topics_are_made_checked_and_mended_from_the_command_line(broker: Broker, capsys):
    prefix = f"t{uuid.uuid4().hex[:8]}"
    options = ["--kafka", f"kafka://{broker.address}", "--prefix", prefix]

    def run(*arguments: str) -> tuple[int, str]:
        code = main(["topics", *arguments])
        told = capsys.readouterr()
        return code, told.out + told.err

    code, told = run("check", *options)
    assert code == 1 and told.count("is missing") == 5
    code, told = run("apply", *options, "--partitions", "2")
    assert code == 0 and told.count("is created") == 5
    assert run("check", *options, "--partitions", "2") == (0, "the topics are as they must be\n")
    code, told = run("check", *options, "--partitions", "3", "--retention-days", "1")
    assert code == 1
    assert f"{prefix}.feedback has 2 partitions, 3 are wanted" in told
    assert f"{prefix}.completions: retention.ms is 2592000000, 86400000 is wanted" in told
    code, told = run("apply", *options, "--partitions", "3", "--retention-days", "1")
    assert code == 0, told
    assert f"{prefix}.feedback has 3 partitions now, instead of 2" in told
    assert f"{prefix}.completions: retention.ms is 86400000 now" in told
    assert run("check", *options, "--partitions", "3", "--retention-days", "1")[0] == 0
    code, told = run("apply", *options, "--partitions", "1")
    assert code == 1 and f"{prefix}.feedback has 3 partitions, 1 are wanted" in told, "Kafka takes no partition away"


def test_what_the_brokers_cannot_do_is_told(broker: Broker, capsys):
    options = ["--kafka", f"kafka://{broker.address}", "--prefix", f"t{uuid.uuid4().hex[:8]}", "--replication", "3"]
    assert main(["topics", "apply", *options]) == 1
    assert "replication" in capsys.readouterr().err.lower()


def test_without_a_cluster_there_is_nothing_to_look_at(capsys):
    assert main(["topics", "check"]) == 2
    assert "give --kafka kafka://host:port" in capsys.readouterr().err
