"""TLS and mutual TLS for HTTP and gRPC: one pair of files, read anew for a new connection once they have changed.

Both transports ask `Certificates` at each handshake, so a renewed certificate is served without a restart, and
connections that are open keep theirs. Files that do not fit together (a renewal writes one after the other) change
nothing: the last good ones are served on, which is logged and counted once for each state of the files.

A handshake over HTTP may last as long as a request.
"""

import asyncio
import os
import socket
import ssl
import threading
from pathlib import Path

import grpc
import structlog

from rlhf_online import certificate_end
from rlhf_online.config import TlsSettings
from rlhf_online.errors import ConfigError
from rlhf_online.metrics import ChatMetrics
from services.chat.transport import connections
from services.chat.transport.connections import Connection, HttpConfig, HttpServer

ACCEPT_AGAIN_S = 0.05


class Certificates:
    """The files' newest good content. gRPC asks from threads of its own."""

    def __init__(self, settings: TlsSettings, metrics: ChatMetrics) -> None:
        """Raises ConfigError if the files cannot be used."""
        self._settings = settings
        self._metrics = metrics.access
        self._lock = threading.Lock()
        self._files = self._state()
        self._load()

    def context(self) -> ssl.SSLContext:
        """Of the newest files that can be used."""
        with self._lock:
            self._follow()
            return self._http

    def server_credentials(self) -> grpc.ServerCredentials:
        """gRPC's, which follow the files."""
        return grpc.dynamic_ssl_server_credentials(self._grpc, self._configuration, bool(self._settings.client_ca_file))

    def _configuration(self) -> grpc.ServerCertificateConfiguration:
        with self._lock:
            self._follow()
            return self._grpc

    def _follow(self) -> None:
        if (files := self._state()) != self._files:
            self._files = files
            self._reload()

    def _reload(self) -> None:
        try:
            self._load()
        except ConfigError as error:
            self._metrics.certificates.labels(outcome="refused").inc()
            structlog.get_logger().warning("certificate not replaced, the last good one is served", error=str(error))
        else:
            structlog.get_logger().info("certificate replaced", cert_file=self._settings.cert_file)

    def _load(self) -> None:
        """Raises ConfigError."""
        self._http, self._grpc, pem = _read(self._settings)
        self._metrics.certificate_expiry.set(certificate_end.earliest(pem))
        self._metrics.certificates.labels(outcome="loaded").inc()

    def _state(self) -> list[tuple[int, ...]]:
        """Differs once a file was written or replaced, also behind a link."""
        return [_stat(path) for path in _files(self._settings)]


class SecureServer(HttpServer):
    """HTTP within TLS: hands are shaken with at most `at_once` clients; one more ends the handshake that lasts longest.

    That is on the first of its sockets; others are this user's own, and in the clear.
    Left to uvicorn, a client that connects and says nothing would hold a file for a minute, and be counted nowhere.
    """

    def __init__(self, config: HttpConfig, certificates: Certificates, at_once: int) -> None:
        super().__init__(config)
        self._http = config
        self._certificates = certificates
        self._at_once = at_once
        self._accepting: asyncio.Task[None] | None = None
        self._shaking: dict[asyncio.Task[None], None] = {}

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        listener, *in_the_clear = sockets or []
        await super().startup(in_the_clear)
        self._accepting = asyncio.create_task(self._accept(listener))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for task in (self._accepting, *self._shaking):
            if task is not None:
                task.cancel()
        await super().shutdown(sockets)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                client, _ = await loop.sock_accept(listener)
            except OSError:  # it has gone already, or no file can be opened now
                await asyncio.sleep(ACCEPT_AGAIN_S)
                continue
            client.setblocking(False)
            task = loop.create_task(self._shake_hands(client))
            self._shaking[task] = None
            task.add_done_callback(lambda done: self._shaking.pop(done, None))
            if len(self._shaking) > self._at_once:
                next(iter(self._shaking)).cancel()

    async def _shake_hands(self, client: socket.socket) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                self._connection,
                client,
                ssl=self._certificates.context(),
                ssl_handshake_timeout=connections.REQUEST_S,
            )
        except (OSError, asyncio.CancelledError):  # ssl.SSLError and TimeoutError are of the former
            self._http.connections.count("no_handshake")
            client.close()

    def _connection(self) -> asyncio.Protocol:
        return Connection(self._http, self.server_state, self.lifespan.state)


def _files(settings: TlsSettings) -> list[Path]:
    return [Path(name) for name in (settings.cert_file, settings.key_file, settings.client_ca_file) if name]


def _stat(path: Path) -> tuple[int, ...]:
    try:
        status = os.stat(path)
    except OSError:
        return ()
    return status.st_ino, status.st_mtime_ns, status.st_size


def _read(settings: TlsSettings) -> tuple[ssl.SSLContext, grpc.ServerCertificateConfiguration, bytes]:
    """For HTTP, for gRPC, and the certificates' PEM. Raises ConfigError, in one sentence."""
    for path in _files(settings):
        try:
            path.read_bytes()
        except OSError as error:
            raise ConfigError(f"tls: {path} cannot be read ({error.strerror}): name a PEM file") from error
    cert, key, authorities = settings.cert_file, settings.key_file or settings.cert_file, settings.client_ca_file
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(cert, key, password=_encrypted)
    except (ssl.SSLError, ConfigError) as error:
        raise ConfigError(f"tls: {cert} and {key} cannot be used: {_reason(error)}") from error
    if authorities:
        try:
            context.load_verify_locations(authorities)
        except ssl.SSLError as error:
            raise ConfigError(f"tls: {authorities} cannot be used: it holds no certificate in PEM") from error
        context.verify_mode = ssl.CERT_REQUIRED
    pair = (Path(key).read_bytes(), Path(cert).read_bytes())
    trusted = Path(authorities).read_bytes() if authorities else None
    return context, grpc.ssl_server_certificate_configuration([pair], trusted), pair[1]


def _encrypted() -> str:
    raise ConfigError("the key is encrypted: decrypt it")


def _reason(error: Exception) -> str:
    if isinstance(error, ConfigError):
        return str(error)
    reason = getattr(error, "reason", None)
    if reason == "KEY_VALUES_MISMATCH":
        return "the key is not that of the certificate"
    return "they are no certificate and key in PEM" + (f" ({reason})" if reason else "")
