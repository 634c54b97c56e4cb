"""All that is a person's, erased at once, also in Kafka, and in a bucket of checkpoints and keys."""

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from rlhf_online.config import KeystoreSettings, LogSettings
from rlhf_online.eventlog import kafka_cluster
from rlhf_online.eventlog.base import Source, has_reached
from rlhf_online.eventlog.gap import Place
from rlhf_online.events import Completion, Erasure, Feedback, Shredded
from rlhf_online.keystore import open_keyring
from rlhf_online.keystore.keyring import Keyring
from rlhf_online.keystore.places import BucketKeys
from rlhf_online.keystore.vault import KEK
from rlhf_online.training.bucket_checkpoints import BucketCheckpoints
from rlhf_online.training.checkpoint import CheckpointPart, Checkpoints
from rlhf_online.training.ledger import Ledger
from rlhf_online.versions.bucket import Bucket
from rlhf_online.wire import decode
from tests.services.chat.conversations.test_people import ASKED, BETTER, BOBS, REASON, erase, person, talk
from tests.support.chat_service import Service, running
from tests.support.intakes import new_intake
from tests.support.kafka_broker import Broker, needed
from tests.support.object_server import BUCKET, ObjectServer, environment, object_server
from tests.support.planted import forms, holding
from tests.support.waiting import eventually
from tests.training.test_bucket_checkpoints import Alone

pytestmark = needed()


@pytest.fixture(autouse=True)
def collect() -> Iterator[None]:
    yield
    gc.collect()


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    broker = Broker(tmp_path_factory.mktemp("kafka"))
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectServer]:
    with object_server() as server:
        for name, value in environment(server.port).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv(KEK, "a secret of the operator's")
        yield server


def words(*said: str) -> list[bytes]:
    """As they may stand anywhere, also as the tokens that the intake makes of them."""
    return [form for word in said for form in forms(word, list(word.encode()))]


class Kept:
    """A chat service whose log is in Kafka, and what a trainer keeps of it in a bucket."""

    def __init__(self, folder: Path, broker: Broker, service: Service, sink: Any, prefix: str, url: str) -> None:
        self.folder, self.service, self.broker = folder, service, broker
        self.sink, self.prefix, self.url = sink, prefix, url
        self.bucket = Bucket(f"s3://{BUCKET}")

    def keys(self) -> Keyring | None:
        return open_keyring(KeystoreSettings(url=self.url), self.folder, fresh_s=0.0)

    async def shipped(self, count: int) -> None:
        await eventually(lambda: self.sink.shipped >= count, 90, f"{count} records to be shipped")

    def checkpoint(self) -> None:
        """A trainer has read all of Kafka, and commits what it holds."""
        with_keys = self.keys()
        there = BucketCheckpoints(self.bucket, "a trainer")
        checkpoints = Checkpoints(self.folder / "trainer", 2, Alone(), there, with_keys)
        source = self.source()
        intake = new_intake(
            source, Ledger(), checkpoints.answers_folder, prompt_ids=lambda messages, tools: (1, 2), keys=with_keys
        )
        while intake.read():
            pass
        state = {"intake": intake.to_json(), "buffer": intake.policy_inputs.buffer.to_json()}
        part = CheckpointPart({}, intake.to_json())
        answers = {"answers": intake.join.answers.seal()}
        checkpoints.save(state, {"intake": part}, answers, Place(source.identity(), {}))
        source.close()

    def source(self) -> Source:
        from rlhf_online.eventlog.kafka import KafkaSource

        return KafkaSource(_cluster(self.broker, self.prefix))

    def holding(self, patterns: list[bytes]) -> set[str]:
        """Where one of them is: "kafka", "bucket", "state"."""
        names = [f"{below}/{each.name}" for below in ("checkpoints", "keys") for each in self.bucket.listed(below)]
        assert names
        objects = [self.bucket.get(name) for name in names]
        found = {"bucket" for each in objects if each is not None and any(one in each.data for one in patterns)}
        topics = list((self.broker.log.parent / "data").glob(f"{self.prefix}*"))
        assert topics, "a folder a partition"
        places = {"state": [self.service.state.root], "kafka": topics}
        return found | {
            name for name, folders in places.items() if any(holding(folder, patterns) for folder in folders)
        }


def _cluster(broker: Broker, prefix: str) -> Any:
    found = kafka_cluster(LogSettings(url=f"kafka://{broker.address}", topic_prefix=prefix))
    assert found is not None
    return found


@asynccontextmanager
async def kept(folder: Path, broker: Broker, prefix: str, url: str) -> AsyncIterator[Kept]:
    from rlhf_online.eventlog.kafka import KafkaSink

    sink = await asyncio.to_thread(KafkaSink, folder / "state" / "log", _cluster(broker, prefix))
    try:
        async with running(folder, log=sink, keystore={"url": url}) as service:
            yield Kept(folder, broker, service, sink, prefix, url)
    finally:
        await asyncio.to_thread(sink.close)


async def test_without_keys_the_search_finds_what_was_planted_in_kafka_and_in_the_bucket(
    tmp_path: Path, broker: Broker, bucket: ObjectServer
) -> None:
    async with kept(tmp_path, broker, "plain", "") as everywhere:
        await talk(everywhere.service)
        await everywhere.shipped(4)
        await asyncio.to_thread(everywhere.checkpoint)
        assert everywhere.holding(words(ASKED, REASON, BETTER)) == {"kafka", "bucket", "state"}


async def test_with_keys_no_byte_says_it_and_after_an_erasure_nothing_opens_it(
    tmp_path: Path, broker: Broker, bucket: ObjectServer
) -> None:
    async with kept(tmp_path, broker, "sealed", f"s3://{BUCKET}/keys") as everywhere:
        await talk(everywhere.service)
        await everywhere.shipped(4)
        await asyncio.to_thread(everywhere.checkpoint)
        assert everywhere.holding(words(ASKED, REASON, BETTER, BOBS)) == set()

        ann = person(everywhere.service)
        entry = BucketKeys(Bucket(f"s3://{BUCKET}/keys")).read(ann)
        assert entry is not None and entry.key
        stored = [entry.key.encode()]
        assert everywhere.holding(stored) == {"bucket"}, "the search finds the key before"
        status, erased = await erase(everywhere.service)
        assert status == 200 and erased["shredded"], erased
        assert everywhere.holding(stored) == set()

        await everywhere.shipped(6)
        source, keys, position, events = everywhere.source(), everywhere.keys(), {}, list[object]()
        while not has_reached(position, source.end()):
            records, position = await asyncio.to_thread(source.read, position, 100)
            events += [decode(record.payload, keys).event for record in records]
        source.close()
        gone = [each.kind for each in events if isinstance(each, Shredded)]
        assert sorted(each.__name__ for each in gone) == ["Completion", "Feedback", "Feedback"]
        [bobs] = [each for each in events if isinstance(each, Completion)]
        assert BOBS in bobs.messages[0].content and any(isinstance(each, Erasure) for each in events)
        assert not any(isinstance(each, Feedback) for each in events)
