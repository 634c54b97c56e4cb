"""After a disaster learning goes on, and the books balance: docs/recovery.md says what is lost, and how to go on.

The trainer's node, or the store of versions, is gone, with an older copy of it or without; Kafka is lost, and made
anew.
"""

import gc
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rlhf_online.backup import backup
from rlhf_online.config import LogSettings
from rlhf_online.errors import PositionLost
from rlhf_online.eventlog import gap, kafka_cluster, open_sink, open_source
from rlhf_online.events import Envelope
from rlhf_online.training.ledger import Ledger
from rlhf_online.wire import encode
from tests.faults import auditor
from tests.support.intakes import new_intake
from tests.support.kafka_broker import Broker, needed
from tests.support.logged import completion, thumb
from tests.support.trainer_world import world
from tests.support.waiting import until


@dataclass(frozen=True, slots=True)
class Lived:
    """A state folder after two cycles, a copy of it that was made after the first, and the votes that it holds."""

    root: Path
    accepted: list[str]
    conversations: int


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Lived:
    root = tmp_path_factory.mktemp("lived")
    with world(root) as tiny:
        tiny.chat(14)
        with tiny.trainer() as trainer:
            assert trainer.run_once()
        backup(tiny.state, root / "copy", log=tiny.state.log, versions=True)
        tiny.chat(14)
        with tiny.trainer() as trainer:
            assert trainer.run_once()
        assert tiny.registry.live("policy") == "policy-000002"
        return Lived(root, tiny.accepted, tiny.conversations)


def gone(lost: str) -> Callable[[Path], None]:
    return lambda root: shutil.rmtree(root / "state" / lost)


def older(lost: str) -> Callable[[Path], None]:
    def bring_back(root: Path) -> None:
        shutil.rmtree(root / "state" / lost)
        shutil.copytree(root / "copy" / lost, root / "state" / lost)

    return bring_back


@pytest.mark.parametrize(
    ("disaster", "live", "taken"),
    [
        pytest.param(
            older("checkpoints"), "policy-000002", 14, id="trainer's node lost, an older copy of its checkpoints"
        ),
        pytest.param(gone("checkpoints"), "policy-000002", 0, id="trainer's node lost, no copy"),
        pytest.param(older("versions"), "policy-000001", 28, id="store lost, an older copy"),
        pytest.param(gone("versions"), "policy-000000", 28, id="store lost, no copy"),
    ],
)
def test_what_is_left_serves_and_learning_goes_on_with_every_vote_in_the_books_once(
    lived: Lived, tmp_path: Path, disaster: Callable[[Path], None], live: str, taken: int
) -> None:
    shutil.copytree(lived.root, tmp_path, dirs_exist_ok=True)
    disaster(tmp_path)
    with world(tmp_path) as tiny:
        assert tiny.registry.live("policy") == live, "what the store still has serves"
        tiny.accepted, tiny.conversations = list(lived.accepted), lived.conversations
        tiny.chat(14)
        with tiny.trainer() as trainer:
            counts = trainer.parts.ledger.counts()
            assert counts["trained"] + counts["held_out"] == taken, "as of the checkpoint that is there"
            assert trainer.run_once()
        found = tiny.registry.live("policy")
        assert found is not None and found > live, "a version that comes from what serves"
        came_from = found
        while came_from > live:
            came_from = tiny.registry.manifest(came_from).parent
        assert came_from == live
        counts = {name: len(digests) for name, digests in tiny.ledger().items()}
        assert counts["trained"] + counts["held_out"] == len(tiny.accepted)
        report = auditor.audit(tiny.state.root, tiny.accepted)
    assert report.problems == []


class TestKafkaLost:
    """With the brokers' disks all that was shipped is gone; the spools have it still, while nothing bounds them."""

    pytestmark = needed()

    @pytest.fixture
    def broker(self, tmp_path: Path) -> Iterator[Broker]:
        broker = Broker(tmp_path / "kafka")
        broker.start()
        yield broker
        broker.stop()
        gc.collect()

    def test_spools_that_are_shipped_again_bring_back_what_was_not_read_and_nothing_twice(
        self, broker: Broker, tmp_path: Path
    ) -> None:
        settings, spool = LogSettings(url=f"kafka://{broker.address}"), tmp_path / "log"
        cluster = kafka_cluster(settings)
        assert cluster is not None
        ledger, answers = Ledger(), tmp_path / "answers"
        source = open_source(settings, spool)
        intake = new_intake(source, ledger, answers)
        with_answers = [completion(f"c{number}") for number in range(40)]
        votes = [thumb(f"c{number}", event_id=f"v{number}") for number in range(40)]

        def ship(*events: Envelope) -> None:
            sink = open_sink(settings, spool)
            try:
                for future in [sink.append(encode(event)) for event in events]:
                    future.result(30)
                until(lambda: sink.shipping().backlog == 0, 60, "all to be shipped")
            finally:
                sink.close()

        ship(*with_answers[:30], *votes[:30])
        intake.read()
        assert intake.votes.trainable == 30
        identity, position = source.identity(), dict(intake.position)
        ship(*with_answers[30:], *votes[30:])  # which the trainer has not read when Kafka is lost

        _lose(cluster)
        lost = open_source(settings, spool)
        place = gap.Place(identity, position)
        assert lost.resume_position(place.identity, place.position)[1], "the trainer stops, and says what is missing"
        with pytest.raises(PositionLost):
            lost.read(position, 10)

        (spool / "shipped.json").unlink()
        ship()
        intake.position, missing = lost.resume_position(place.identity, place.position)
        assert all("deleted and made anew" in line for line in missing)
        intake._source = lost  # noqa: SLF001  # as after a restart
        intake.read()
        assert intake.votes.trainable == 40 and intake.pending == 40
        assert intake.duplicates == 60, "what had been read came again, and was known"
        source.close()
        lost.close()


def _lose(cluster: Any) -> None:
    """Delete the topics with all in them, and make them anew, as on new brokers."""
    from kafka import KafkaAdminClient

    from rlhf_online.eventlog.kafka import topics

    admin = cluster.open(KafkaAdminClient)
    try:
        admin.delete_topics([topic.name for topic in topics.wanted(cluster.prefix, cluster.settings)])
    finally:
        admin.close()
    until(lambda: len(topics.check(cluster)) == 5, 60, "the topics to be gone")
    topics.apply(cluster)
