"""The chat service put together: parts wired, ports opened, and on SIGTERM or Ctrl-C everything stopped in order.

No new requests, those in progress get `drain_s`, the log is written out, the engine ends. Feedback is taken from the
first moment on, while the engine loads.
"""

import asyncio
import signal
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from prometheus_client import CollectorRegistry

from rlhf_online import process
from rlhf_online.config import ChatSettings
from rlhf_online.engine import child
from rlhf_online.engine.host import EngineHost
from rlhf_online.errors import RlhfError
from rlhf_online.eventlog import log_folder, open_sink
from rlhf_online.eventlog.base import Sink
from rlhf_online.feedback.outcomes import OutcomeBoard
from rlhf_online.keystore import open_for_log
from rlhf_online.metrics import ChatMetrics, MachineMetrics
from rlhf_online.salt import open_person_hash
from rlhf_online.state import StateDir
from rlhf_online.versions import open_registry
from rlhf_online.versions.registry import Registry
from services.chat.access.authorization import Authorization
from services.chat.access.keys import Keys
from services.chat.access.limits import Limits
from services.chat.access.origins import Origins
from services.chat.access.secrets import Secrets
from services.chat.annotation.adding import Adding
from services.chat.annotation.database import QueueDatabase
from services.chat.annotation.guidelines import GuidelinesFile
from services.chat.annotation.queue import Queue
from services.chat.annotation.service import Annotation
from services.chat.annotation.votes import QueueVotes
from services.chat.canary import Canaries
from services.chat.comparisons.questions import UniformQuestions, read_prompts
from services.chat.comparisons.service import Comparisons
from services.chat.completions.engine import Engine
from services.chat.completions.gateway import Gateway
from services.chat.completions.in_flight import InFlight
from services.chat.completions.rollouts import Rollouts
from services.chat.completions.sampling_request import PUBLIC_MODEL
from services.chat.console.alarm import PredictionAlarm
from services.chat.console.gauges import Gauges
from services.chat.console.opinions import Opinions
from services.chat.console.panel import Panel
from services.chat.console.service import Console
from services.chat.console.tally import Tally
from services.chat.conversations.people import People
from services.chat.conversations.service import Conversations
from services.chat.conversations.store import ConversationStore
from services.chat.event_writer import EventWriter
from services.chat.exporter import Exporter
from services.chat.feedback.checks import FeedbackChecks
from services.chat.feedback.history import VoteHistory
from services.chat.feedback.own_votes import OwnVotes
from services.chat.feedback.service import FeedbackService
from services.chat.learning import Learning
from services.chat.status import StatusFile
from services.chat.transport.chat import Chat
from services.chat.transport.connections import Connection, Connections, HttpConfig, HttpServer
from services.chat.transport.grpc_server import GrpcServer, port_taken
from services.chat.transport.routes import build
from services.chat.transport.tls import Certificates, SecureServer
from services.chat.version_watch import VersionWatch
from services.chat.versions import Versions

if TYPE_CHECKING:
    from rlhf_online.keystore.keyring import Keyring

BACKLOG = 2048
FOR_VOTES = 8
"""One connection in so many is none of chat's: votes are taken however many people wait for answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    http: int
    grpc: int


def wire(settings: ChatSettings, state: StateDir, registry: Registry, engine: Engine, sink: Sink) -> Chat:
    """The service around an engine and a log. Raises SecretLost, and ConfigError where it would be open to others."""
    folder = log_folder(settings.log, state.log)
    prompts = read_prompts(settings.comparison_prompts)
    person_hash = open_person_hash(state, folder)
    content_keys = open_for_log(settings.keystore, state.root, folder)
    MachineMetrics(state.root, collector := CollectorRegistry())
    writer = EventWriter(sink, metrics := ChatMetrics(collector), content_keys)
    flight = InFlight(engine, adapters=settings.engine.tuning == "lora")
    flight.attach()
    connections, at_once = _at_once(settings)
    queue = Queue(database := QueueDatabase(state.annotation))
    checks = FeedbackChecks((PUBLIC_MODEL, Path(settings.engine.model).name), queue)
    checks.recall(folder, content_keys)
    limits = Limits(settings.limits, metrics.access.limited)
    gateway = Gateway(engine, flight, writer, checks, person_hash, metrics, at_once, limits)
    keys = Keys(settings.keys_file or state.keys)
    authorization = Authorization(keys, state.operator_token(), person_hash)
    authorization.check_host(settings.host)
    secrets = Secrets(state, keys)
    exporter = Exporter(engine, flight, sink, metrics, state, secrets, registry)
    watch = VersionWatch(engine)
    engine.on_change.extend((writer.changed, exporter.changed, watch.changed))
    store = _conversations(settings, state, folder, content_keys)
    models = Tally(folder, content_keys), Opinions(folder, content_keys)
    learning = Learning(registry, state)
    conversations = Conversations(store, writer, person_hash)
    history, comparisons = VoteHistory(folder, content_keys), Comparisons(gateway, checks.comparisons, settings)
    adding = Adding(queue, QueueVotes(database, folder, content_keys), history, comparisons)
    return Chat(
        settings=settings,
        gateway=gateway,
        feedback=FeedbackService(writer, checks, person_hash, metrics, settings.objectives, settings.reasons, limits),
        votes=OwnVotes(history, OutcomeBoard(registry.store), registry, person_hash),
        rollouts=Rollouts(
            gateway,
            max_tokens=settings.limits.max_tokens,
            max_model_len=settings.engine.max_model_len,
            max_num_seqs=child.at_once(settings.engine),
        ),
        comparisons=comparisons,
        conversations=conversations,
        people=People(store, writer, registry),
        annotation=Annotation(adding, GuidelinesFile(settings.annotation_guidelines), person_hash),
        questions=UniformQuestions(prompts, conversations),
        versions=Versions(registry),
        watch=watch,
        learning=learning,
        canaries=Canaries(registry, state),
        console=_console(registry, engine, learning, state, models, metrics),
        authorization=authorization,
        keys=keys,
        origins=Origins(settings.host, settings.allowed_hosts, settings.allowed_origins),
        exporter=exporter,
        collector=collector,
        secrets=secrets,
        connections=connections,
    )


def _conversations(settings: ChatSettings, state: StateDir, log: Path, keys: "Keyring | None") -> ConversationStore:
    return ConversationStore(
        state.conversations,
        log,
        keep_days=settings.keep_conversations_days,
        keep_gib=settings.keep_conversations_gib,
        keys=keys,
    )


def _at_once(settings: ChatSettings) -> tuple[int, int]:
    """How many connections of a kind, and requests for answers, the process's open files allow."""
    kinds = 4 if settings.tls.cert_file else 3  # HTTP, gRPC, requests to the engine, and TLS handshakes
    connections = process.connection_budget(process.open_files(), kinds=kinds)
    at_once = min(wanted := settings.limits.max_concurrent, connections - connections // FOR_VOTES)
    if at_once < wanted:
        structlog.get_logger().warning("few open files allowed: raise ulimit -n", at_once=at_once, wanted=wanted)
    return connections, at_once


def _console(
    registry: Registry,
    engine: Engine,
    learning: Learning,
    state: StateDir,
    models: tuple[Tally, Opinions],
    metrics: ChatMetrics,
) -> Console:
    tally, opinions = models
    panel = Panel(registry, engine, learning, state, tally, opinions, metrics.votes.to_live)
    return Console(panel, tally, opinions, PredictionAlarm(metrics.prediction, state), Gauges(metrics))


async def serve(chat: Chat, stop: asyncio.Event, opened: Callable[[Ports], Awaitable[None]]) -> None:
    """Open the ports, tell `opened`, and serve until `stop`; then let requests finish. Raises RlhfError."""
    settings, metrics = chat.settings, chat.gateway.metrics
    certificates = Certificates(settings.tls, metrics) if settings.tls.cert_file else None
    listeners = [listen(settings.host, settings.http_port)]
    if settings.local_socket is not None:
        listeners.append(listen_locally(settings.local_socket))
    config = HttpConfig(
        build(chat),
        loop="uvloop",
        http=Connection,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",  # what is no request is answered and counted: no line of the log is due to who sends it
        access_log=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=settings.http_keep_alive_s,
        timeout_graceful_shutdown=settings.drain_s,
    )
    config.connections = Connections(chat.connections, metrics.access.closed)
    http = SecureServer(config, certificates, chat.connections) if certificates else HttpServer(config)
    grpc = GrpcServer(chat)
    console, turn = chat.console, asyncio.Lock()
    models = (chat.votes.history, chat.conversations.store, chat.annotation.votes, console.tally, console.opinions)
    follow = (chat.keys.follow(), console.follow(), *(model.follow(turn) for model in models))
    followers = [asyncio.create_task(each) for each in follow]
    try:
        grpc_port = await grpc.start(
            settings.host, settings.grpc_port, certificates.server_credentials() if certificates else None
        )
        serving = asyncio.create_task(http.serve(sockets=listeners))
        await opened(Ports(http=listeners[0].getsockname()[1], grpc=grpc_port))
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait((serving, stopped), return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        chat.watch.close()
        chat.console.close()
        http.should_exit = True
        await asyncio.gather(serving, grpc.stop(settings.drain_s))
    finally:
        for listener in listeners:
            listener.close()
        for follower in followers:
            follower.cancel()
        await asyncio.wait(followers)
        await grpc.stop(0)
        for model in models:
            await asyncio.to_thread(model.close)
        chat.gateway.connections.close()


def listen(host: str, port: int) -> socket.socket:
    """A bound TCP socket. Raises RlhfError if the address is taken or not of this machine."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        if isinstance(error, PermissionError):
            raise RlhfError(f"cannot listen on {host}:{port}: not permitted; set another http_port") from error
        raise port_taken(host, port, "http_port") from error
    listener.setblocking(False)
    return listener


def listen_locally(path: Path) -> socket.socket:
    """A bound unix socket, closed to other users; one that an earlier life left is replaced. Raises RlhfError."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.unlink(missing_ok=True)
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise RlhfError(f"cannot listen on {path}: {error.strerror or error}; set another local_socket") from error
    listener.setblocking(False)
    return listener


async def run(settings: ChatSettings) -> None:
    """The whole service, until a signal. Raises RlhfError."""
    state = StateDir(settings.state_dir)
    registry = open_registry(state.versions, settings=settings.versions)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    sink = open_sink(settings.log, state.log)
    try:
        host = EngineHost(settings.engine, settings.swap, registry, state)
        status = StatusFile(host, state)
        host.on_change.append(status.changed)
        keeping = asyncio.create_task(status.keep())
        engine: asyncio.Task[None] | None = None

        async def opened(ports: Ports) -> None:
            nonlocal engine
            engine = asyncio.create_task(host.run())
            engine.add_done_callback(lambda _: stop.set())
            process.write_ready_file(settings.ready_file, http=ports.http, grpc=ports.grpc)
            structlog.get_logger().info("listening", host=settings.host, http=ports.http, grpc=ports.grpc)

        try:
            await serve(wire(settings, state, registry, host, sink), stop, opened)
        finally:
            keeping.cancel()
            await host.close()
            if engine is not None:
                await engine
    finally:
        await asyncio.to_thread(sink.close)
