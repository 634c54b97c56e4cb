"""Real Kafka brokers for tests, a single one or a cluster: Java and Maven fetch and run them; nothing else is needed.

The jars are kept in the repository's ignored `build/kafka-libs`; data and log of each broker stand in its own folder.
"""

import base64
import fcntl
import os
import secrets
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.ports import reserve

LIBS = Path(__file__).parents[2] / "build" / "kafka-libs"

_POM = """\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>rlhf</groupId><artifactId>kafka-libs</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>4.3.1</version></dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
  </dependencies>
</project>
"""


def needed() -> list[pytest.MarkDecorator]:
    """The marks of tests that speak to a broker."""
    return [
        # kafka-python reads its schemas by functions of the standard library that Python 3.11 and 3.12 call deprecated.
        pytest.mark.filterwarnings("ignore:(read|open)_text is deprecated:DeprecationWarning"),
        # It leaves the sockets of refused connections to the garbage collector.
        pytest.mark.filterwarnings(
            "ignore:Exception ignored in. <(socket|ssl):pytest.PytestUnraisableExceptionWarning"
        ),
        pytest.mark.skipif(bool(missing_tools()), reason=missing_tools() or "-"),
    ]


def missing_tools() -> str:
    """Why no broker can run here; "" if one can."""
    missing = [tool for tool in ("java", "mvn") if shutil.which(tool) is None]
    return f"a real Kafka broker needs {' and '.join(missing)}" if missing else ""


def fetch() -> Path:
    """The folder of the jars, filled on first use; processes that come together wait for each other."""
    LIBS.mkdir(parents=True, exist_ok=True)
    with (LIBS / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (LIBS / "complete").exists():
            (LIBS / "pom.xml").write_text(_POM)
            command = ["mvn", "-q", "-B", "dependency:copy-dependencies", f"-DoutputDirectory={LIBS / 'jars'}"]
            subprocess.run(command, cwd=LIBS, check=True, timeout=600, stdin=subprocess.DEVNULL)
            (LIBS / "complete").touch()
    return LIBS / "jars"


@dataclass(frozen=True, slots=True)
class Credentials:
    """A person whom a secured broker lets in by SCRAM-SHA-512; `ca_file` (PEM) vouches for the broker."""

    username: str
    password: str
    ca_file: Path


@dataclass(frozen=True, slots=True)
class Quorum:
    """What the nodes of a cluster have in common: its id, and the port of each node's controller, the first's first."""

    cluster_id: str
    controllers: tuple[int, ...]


def quorum(nodes: int) -> Quorum:
    cluster_id = base64.urlsafe_b64encode(b"\0" + secrets.token_bytes(15)).decode().rstrip("=")
    return Quorum(cluster_id, tuple(reserve() for _ in range(nodes)))


class Broker:
    """One broker and controller on loopback, its data in `folder`. The ports are its own, over restarts, too.

    With `secure` it speaks TLS and lets in nobody but `credentials`. `advertised` is the port that it sends its clients
    to, a proxy's, say. It is a cluster of its own, unless it is given the `node` that it is, from 1 on, of a `quorum`.
    """

    def __init__(
        self, folder: Path, *, secure: bool = False, advertised: int = 0, node: int = 1, of: Quorum | None = None
    ) -> None:
        self._folder = folder
        self._jars = fetch()
        self._process: subprocess.Popen[bytes] | None = None
        self._begun = 0
        of = of or quorum(1)
        self.port, inner = reserve(), reserve()
        folder.mkdir(parents=True, exist_ok=True)
        self.credentials = Credentials("trainer", secrets.token_hex(8), folder / "ca.pem") if secure else None
        lines = _listeners(node, of, self.port, advertised or self.port, inner, "SASL_SSL" if secure else "PLAINTEXT")
        lines += [f"log.dirs={folder / 'data'}", *_COMMON]
        known: list[str] = []
        if self.credentials is not None:
            lines += _security(folder)
            known = ["--add-scram", f"SCRAM-SHA-512=[name=trainer,password={self.credentials.password}]"]
        (folder / "server.properties").write_text("\n".join(lines))
        given = ["-t", of.cluster_id, "-c", "server.properties", *known]
        with self.log.open("ab") as log:
            subprocess.run(
                [*self._java(), "kafka.tools.StorageTool", "format", *given],
                cwd=folder,
                check=True,
                timeout=120,
                stdout=log,
                stderr=log,
            )

    @property
    def log(self) -> Path:
        return self._folder / "broker.log"

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def running(self) -> bool:
        return self._process is not None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start and wait until it takes requests."""
        self.launch()
        self.wait()

    def launch(self) -> None:
        """Start; a node takes requests once most of its quorum are there."""
        self._begun = self.log.stat().st_size
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._java(), "kafka.Kafka", "server.properties"], cwd=self._folder, stdout=log, stderr=log
            )

    def wait(self, timeout_s: float = 120.0) -> None:
        """Until it takes requests."""
        assert self._process is not None
        deadline = time.monotonic() + timeout_s
        while b"Kafka Server started" not in self.log.read_bytes()[self._begun :]:
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"the broker did not start: {self.log.read_text()[-2000:]}")
            time.sleep(0.1)

    def stop(self) -> None:
        """End it in good order."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()
            self._process = None

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """SIGSTOP: its connections stay open, and nothing is answered."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    def _java(self) -> list[str]:
        options = ["-Xms64m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        return ["java", *options, "-cp", f"{self._jars}{os.sep}*"]


def _security(folder: Path) -> list[str]:
    """Make the broker a key and a certificate that vouches for itself; the properties that use them."""
    store, password = folder / "broker.p12", secrets.token_hex(8)
    given = ["-keystore", str(store), "-storepass", password, "-alias", "broker"]
    key = ["-genkeypair", "-keyalg", "RSA", "-storetype", "PKCS12", "-dname", "CN=broker", "-validity", "2"]
    for command in (
        [*key, "-ext", "san=ip:127.0.0.1", "-ext", "bc:c", *given],
        ["-exportcert", "-rfc", "-file", str(folder / "ca.pem"), *given],
    ):
        subprocess.run(["keytool", *command], check=True, timeout=60, capture_output=True)
    return [
        "sasl.enabled.mechanisms=SCRAM-SHA-512",
        "listener.name.client.scram-sha-512.sasl.jaas.config="
        "org.apache.kafka.common.security.scram.ScramLoginModule required;",
        f"ssl.keystore.location={store}",
        f"ssl.keystore.password={password}",
        "ssl.keystore.type=PKCS12",
        "",
    ]


def _listeners(node: int, of: Quorum, port: int, advertised: int, inner: int, protocol: str) -> list[str]:
    """Who the node is, and where clients, the other brokers and the other controllers reach it."""
    controller = of.controllers[node - 1]
    voters = ",".join(f"{number}@127.0.0.1:{each}" for number, each in enumerate(of.controllers, 1))
    return [
        f"node.id={node}",
        f"listeners=CLIENT://127.0.0.1:{port},INNER://127.0.0.1:{inner},CONTROLLER://127.0.0.1:{controller}",
        f"advertised.listeners=CLIENT://127.0.0.1:{advertised},INNER://127.0.0.1:{inner}",
        f"controller.quorum.voters={voters}",
        f"listener.security.protocol.map=CONTROLLER:PLAINTEXT,INNER:PLAINTEXT,CLIENT:{protocol}",
    ]


_COMMON = [
    "process.roles=broker,controller",
    "controller.listener.names=CONTROLLER",
    "inter.broker.listener.name=INNER",
    "offsets.topic.replication.factor=1",
    "transaction.state.log.replication.factor=1",
    "transaction.state.log.min.isr=1",
    "share.coordinator.state.topic.replication.factor=1",
    "share.coordinator.state.topic.min.isr=1",
    "group.initial.rebalance.delay.ms=0",
    "auto.create.topics.enable=false",
    "auto.leader.rebalance.enable=false",  # leaders move when a test moves them
    "broker.session.timeout.ms=2000",
    "broker.heartbeat.interval.ms=500",
    "",
]
