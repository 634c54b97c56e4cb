"""Three real Kafka nodes, each broker and controller: the smallest cluster that goes on without one of them.

Without two of them it does not: the controllers have lost their majority, and the topics their in-sync replicas.
"""

from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.kafka_broker import Broker, quorum
from tests.support.waiting import until

NODES = (1, 2, 3)


class Cluster:
    """The nodes 1, 2 and 3, their data below `folder`; started by `with`, and ended with it."""

    def __init__(self, folder: Path) -> None:
        of = quorum(len(NODES))
        self.nodes = {node: Broker(folder / f"node-{node}", node=node, of=of) for node in NODES}
        self._admin: Any = None

    def __enter__(self) -> Self:
        try:
            self.start(*NODES)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self.close()

    @property
    def address(self) -> str:
        """All nodes, as `log.url` names them."""
        return ",".join(node.address for node in self.nodes.values())

    @property
    def admin(self) -> Any:
        from kafka import KafkaAdminClient

        if self._admin is None:
            self._admin = KafkaAdminClient(bootstrap_servers=self.address.split(","))
        return self._admin

    def start(self, *nodes: int) -> None:
        """Start nodes and wait until they take requests."""
        for node in nodes:
            self.nodes[node].launch()
        for node in nodes:
            self.nodes[node].wait()

    def kill(self, *nodes: int) -> None:
        """SIGKILL."""
        self._forget()
        for node in nodes:
            self.nodes[node].kill()

    def pause(self, node: int) -> None:
        """SIGSTOP."""
        self._forget()
        self.nodes[node].pause()

    def restore(self) -> None:
        """Start again what was killed, let go on what was paused."""
        killed = [number for number, node in self.nodes.items() if not node.running]
        for number in NODES:
            if number not in killed:
                self.nodes[number].resume()
        self.start(*killed)

    def controller(self) -> int:
        """The node whose controller leads the others."""
        topics = self.admin.describe_metadata_quorum()["topics"]
        return int(topics[0]["partitions"][0]["leader_id"])

    def leaders(self, topic: str) -> list[int]:
        """The node that leads each partition of a topic."""
        [found] = self.admin.describe_topics([topic])
        partitions = sorted(found["partitions"], key=lambda each: each["partition_index"])
        return [partition["leader_id"] for partition in partitions]

    def lead(self, topic: str, node: int) -> None:
        """Make `node` the leader of every partition of a topic, in good order, as one does before maintenance."""
        from kafka.structs import TopicPartition

        partitions = [TopicPartition(topic, number) for number in range(len(self.leaders(topic)))]
        replicas = [node, *(other for other in NODES if other != node)]
        self.admin.alter_partition_reassignments(dict.fromkeys(partitions, replicas))
        preferred = 0
        self.admin.elect_leaders(preferred, {topic: [each.partition for each in partitions]}, raise_errors=False)
        until(lambda: set(self.leaders(topic)) == {node}, 60, f"node {node} to lead {topic}")

    def in_sync(self, topic: str) -> None:
        """Wait until every node has all of a topic: from then on any one of them may go."""

        def complete() -> bool:
            [found] = self.admin.describe_topics([topic])
            return all(len(partition["isr_nodes"]) == len(NODES) for partition in found["partitions"])

        until(complete, 60, f"all replicas of {topic} to be in sync")

    def close(self) -> None:
        self._forget()
        for node in self.nodes.values():
            node.kill()

    def _forget(self) -> None:
        """An admin client would go on asking a node that is gone."""
        if self._admin is not None:
            self._admin.close()
            self._admin = None
