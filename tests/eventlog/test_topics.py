"""Topics as code: what differs is said, what can be mended is mended, against a real broker."""

import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from rlhf_online.cli import main
from rlhf_online.config import KafkaSettings, LogSettings
from rlhf_online.errors import LogError, LogUnavailable
from rlhf_online.eventlog import open_sink, open_source
from rlhf_online.wire import encode
from tests.support.kafka_broker import Broker
from tests.support.logged import thumb
from tests.support.waiting import until

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
    assert completions.configs["max.message.bytes"] == str(17 << 20), "the largest record, and a mebibyte of headers"
    assert [topics[f"p.{name}"].partitions for name in ("versions", "dead-letters", "orphans")] == [1, 1, 1]
    assert topics["p.versions"].configs["cleanup.policy"] == "compact"
    assert "retention.ms" not in topics["p.versions"].configs
    assert _wanted(retention_days=0)["p.feedback"].configs["retention.ms"] == "-1"


def test_each_difference_is_a_sentence():
    from rlhf_online.eventlog.kafka.topics import differences

    want = _wanted(partitions=6, replication=3)["p.feedback"]
    assert differences(want, None) == ["p.feedback is missing"]
    assert differences(want, want) == []
    assert differences(replace(want, replication=0), replace(want, replication=1)) == []
    found = replace(want, partitions=2, replication=1, configs={"cleanup.policy": "compact"})
    assert differences(want, found) == [
        "p.feedback has 2 partitions, 6 are wanted",
        "p.feedback has 1 replicas, 3 are wanted",
        "p.feedback: cleanup.policy is compact, delete is wanted",
        "p.feedback: max.message.bytes is not told, 17825792 is wanted",
        "p.feedback: retention.ms is not told, 2592000000 is wanted",
        "p.feedback: unclean.leader.election.enable is not told, false is wanted",
    ]


def test_more_replicas_in_sync_than_there_are_is_no_promise_that_can_be_kept():
    from rlhf_online.eventlog.kafka.topics import differences

    want = _wanted(min_insync=2)["p.feedback"]
    assert differences(want, replace(want, replication=2)) == []
    (said,) = differences(want, replace(want, replication=1))
    assert said.startswith("p.feedback has 1 replicas, fewer than log.kafka.min_insync = 2: ")


def test_settings_that_contradict_each_other_are_refused_with_both_numbers(capsys):
    options = ["--kafka", "kafka://127.0.0.1:1", "--replication", "1", "--min-insync", "2"]
    assert main(["topics", "check", *options]) == 2
    assert "min_insync = 2 is more than replication = 1" in capsys.readouterr().err


def test_what_fewer_replicas_have_than_is_promised_never_counts_as_shipped(broker: Broker, capsys, tmp_path: Path):
    """One replica, min.insync.replicas = 2: Kafka itself confirms an event that one replica has."""
    prefix = f"t{uuid.uuid4().hex[:8]}"
    options = ["--kafka", f"kafka://{broker.address}", "--prefix", prefix, "--min-insync", "2"]
    for action in ("apply", "check"):
        assert main(["topics", action, *options]) == 1
        assert f"{prefix}.feedback has 1 replicas, fewer than log.kafka.min_insync = 2" in capsys.readouterr().err
    settings = LogSettings(url=f"kafka://{broker.address}", topic_prefix=prefix, kafka=KafkaSettings(min_insync=2))
    source, sink = open_source(settings, tmp_path), open_sink(settings, tmp_path)
    try:
        with pytest.raises(LogError, match=r"1 replicas, fewer than log\.kafka\.min_insync = 2"):
            source.identity()
        sink.append(encode(thumb("chat"))).result(timeout=10)
        until(lambda: sink.shipping().failures, 60, "a delivery that is not tried")
        assert sink.shipping().backlog == 1
    finally:
        sink.close()
        source.close()


def test_a_topic_that_asks_for_fewer_replicas_than_promised_is_refused_until_it_is_mended():
    from rlhf_online.eventlog.kafka.topics import INSYNC, check_promise

    want = _wanted(replication=3, min_insync=2)["p.feedback"]
    for asked in ("2", "3"):
        check_promise(want, replace(want, configs={INSYNC: asked}))
    with pytest.raises(LogError, match=r"min\.insync\.replicas is 1, log\.kafka\.min_insync = 2: run `rlhf-online"):
        check_promise(want, replace(want, configs={INSYNC: "1"}))
    want = _wanted(min_insync=1)["p.feedback"]
    with pytest.raises(LogError, match=r"min\.insync\.replicas is 0, log\.kafka\.min_insync = 1"):
        check_promise(want, replace(want, replication=1, configs={}))


class Admin:
    """A cluster, and its one admin client: topics of one replica that are there, told and made as Kafka does."""

    prefix = "p"

    def __init__(self, settings: KafkaSettings) -> None:
        self.settings = settings
        self.there: dict[str, dict[str, Any]] = {}
        self.asked: list[str] = []
        self.error: Exception | None = None
        self.hidden = self.open_now = 0

    def __str__(self) -> str:
        return "the cluster"

    def open(self, kind: object) -> "Admin":
        if self.error is not None:
            raise self.error
        self.open_now += 1
        return self

    def unavailable(self, error: Exception) -> LogUnavailable:
        return LogUnavailable(f"{self} does not answer")

    def close(self) -> None:
        self.open_now -= 1

    def describe_topics(self, names: list[str]) -> list[dict[str, Any]]:
        self.asked.append("topics")
        shown = [name for name in names if name in self.there][self.hidden :]
        return [
            {
                "name": name,
                "error_code": 0 if name in shown else 3,
                "topic_id": f"id of {name}",
                "partitions": [
                    {"replica_nodes": [1, 2][: 1 + number]} for number in range(self.there[name]["num_partitions"])
                ]
                if name in shown
                else [],
            }
            for name in names
        ]

    def describe_configs(self, asked: list[Any], config_filter: str) -> dict[str, Any]:
        self.asked.append("configs")
        told = {each.name: self.there[each.name]["configs"] for each in asked}
        return {"topic": {name: {key: {"value": value} for key, value in told[name].items()} for name in told}}

    def create_topics(self, values: dict[str, dict[str, Any]], wait_for_metadata: bool) -> None:
        from kafka.errors import TopicAlreadyExistsError

        self.asked.append("create")
        assert values and wait_for_metadata, "whoever looks for them next is to find them"
        twice = self.there.keys() & values.keys()
        self.there |= values
        if twice:
            raise TopicAlreadyExistsError

    def wait_for_topics(self, names: list[str]) -> None:
        self.asked.append("wait")

    def create_partitions(self, counts: dict[str, int]) -> None:
        for name, count in counts.items():
            self.there[name]["num_partitions"] = count

    def alter_configs(self, asked: list[Any]) -> None:
        for each in asked:
            self.there[each.name]["configs"] |= each.configs


def test_topics_that_are_missing_are_made_and_those_that_are_there_are_left():
    from rlhf_online.eventlog.kafka.topics import ensure

    admin = Admin(KafkaSettings(partitions=2))
    found = ensure(cast(Any, admin))
    assert admin.asked == ["topics", "create", "topics"], "what nobody promises is not asked for"
    assert sorted(found) == [f"p.{name}" for name in ("completions", "dead-letters", "feedback", "orphans", "versions")]
    assert (found["p.feedback"].partitions, found["p.feedback"].topic_id) == (2, "id of p.feedback")
    assert found["p.feedback"].replication == 1, "the fewest that a partition has"
    assert admin.there["p.feedback"]["replication_factor"] == -1, "as many as the brokers choose"
    admin.asked.clear()
    assert ensure(cast(Any, admin)) == found and admin.asked == ["topics"] and admin.open_now == 0


def test_topics_that_somebody_else_makes_at_the_same_time_are_waited_for():
    from rlhf_online.eventlog.kafka.topics import ensure

    admin = Admin(KafkaSettings())
    ensure(cast(Any, admin))
    admin.asked.clear()
    admin.hidden = 1
    with pytest.raises(LogUnavailable, match=r"does not show all of p\.completions, .* yet: try again"):
        ensure(cast(Any, admin))
    assert admin.asked == ["topics", "create", "wait", "topics"] and admin.open_now == 0


def test_a_promise_is_looked_at_before_anything_is_shipped():
    from rlhf_online.eventlog.kafka.topics import INSYNC, ensure

    admin = Admin(KafkaSettings(min_insync=1, replication=1))
    ensure(cast(Any, admin))
    assert admin.asked == ["topics", "create", "topics", "configs"], "of no topic, where there is none, a configuration"
    admin.there["p.versions"]["configs"][INSYNC] = "0"
    with pytest.raises(LogError, match=r"p\.versions: min\.insync\.replicas is 0"):
        ensure(cast(Any, admin))


def test_what_is_done_to_topics_is_said_and_what_is_as_it_should_be_is_not_touched():
    from rlhf_online.eventlog.kafka.topics import apply, check

    admin = Admin(KafkaSettings())
    assert check(cast(Any, admin)) == [f"{topic.name} is missing" for topic in _wanted().values()]
    assert apply(cast(Any, admin)) == ([f"{topic.name} is created" for topic in _wanted().values()], [])
    assert apply(cast(Any, admin)) == ([], [])
    admin.there["p.versions"]["configs"] = {}
    assert apply(cast(Any, admin))[0] == [
        "p.versions: cleanup.policy is compact now",
        "p.versions: max.message.bytes is 17825792 now",
        "p.versions: unclean.leader.election.enable is false now",
    ]
    admin.settings = KafkaSettings(partitions=3, retention_days=1, replication=2)
    done, left = apply(cast(Any, admin))
    assert done == [
        "p.completions has 3 partitions now, instead of 1",
        "p.completions: retention.ms is 86400000 now",
        "p.feedback has 3 partitions now, instead of 1",
        "p.feedback: retention.ms is 86400000 now",
        "p.dead-letters: retention.ms is 86400000 now",
        "p.orphans: retention.ms is 86400000 now",
    ]
    assert left == check(cast(Any, admin)) == [f"{name} has 1 replicas, 2 are wanted" for name in admin.there]
    assert admin.open_now == 0


def test_what_kafka_refuses_an_operator_is_told_in_words_and_a_service_tries_again():
    from kafka.errors import KafkaConnectionError

    from rlhf_online.eventlog.kafka.topics import check, ensure

    admin = Admin(KafkaSettings())
    admin.error = KafkaConnectionError("refused")
    with pytest.raises(LogUnavailable, match="the cluster does not answer"):
        check(cast(Any, admin))
    with pytest.raises(KafkaConnectionError):
        ensure(cast(Any, admin))
    admin.error, error = None, admin.error

    def refuse(names: list[str]) -> list[dict[str, Any]]:
        raise error

    admin.describe_topics = refuse
    with pytest.raises(LogError, match=r"the cluster refused: .*refused"):
        check(cast(Any, admin))
    with pytest.raises(KafkaConnectionError):
        ensure(cast(Any, admin))
    assert admin.open_now == 0


def test_an_election_that_loses_confirmed_events_is_told_and_mended(broker: Broker, capsys):
    prefix = f"t{uuid.uuid4().hex[:8]}"
    options = ["--kafka", f"kafka://{broker.address}", "--prefix", prefix]
    assert main(["topics", "apply", *options]) == 0
    _alter(broker, f"{prefix}.feedback", {"unclean.leader.election.enable": "true"})
    assert main(["topics", "check", *options]) == 1
    assert f"{prefix}.feedback: unclean.leader.election.enable is true, false is wanted" in capsys.readouterr().err
    assert main(["topics", "apply", *options]) == 0


def _alter(broker: Broker, topic: str, configs: dict[str, str]) -> None:
    from kafka import KafkaAdminClient
    from kafka.admin import ConfigResource, ConfigResourceType

    admin = KafkaAdminClient(bootstrap_servers=broker.address)
    admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs)])
    admin.close()


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


def test_a_job_makes_topics_as_a_services_file_says_and_may_run_again(broker: Broker, capsys, tmp_path: Path):
    from services.topics.__main__ import main as run

    file = tmp_path / "topics.toml"
    file.write_text(f'[log]\nurl = "kafka://{broker.address}"\ntopic_prefix = "t{uuid.uuid4().hex[:8]}"\n')
    assert run(["--config", str(file)]) == 0
    assert capsys.readouterr().out.count("is created") == 5
    assert run(["--config", str(file)]) == 0
    assert capsys.readouterr().out == "the topics are as they must be\n"
    file.write_text("")
    assert run(["--config", str(file)]) == 2
    assert "log.url names no Kafka" in capsys.readouterr().err


def test_what_the_brokers_cannot_do_is_told(broker: Broker, capsys):
    options = ["--kafka", f"kafka://{broker.address}", "--prefix", f"t{uuid.uuid4().hex[:8]}", "--replication", "3"]
    assert main(["topics", "apply", *options]) == 1
    assert "replication" in capsys.readouterr().err.lower()


def test_without_a_cluster_there_is_nothing_to_look_at(capsys):
    assert main(["topics", "check"]) == 2
    assert "give --kafka kafka://host:port" in capsys.readouterr().err
