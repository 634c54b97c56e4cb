"""A Kafka cluster: where it is, who we are to it, and clients that leave nothing behind when it does not answer."""

import os
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kafka.errors import KafkaError, SaslAuthenticationFailedError, UnsupportedSaslMechanismError
from kafka.net.compat import KafkaNetClient  # pyright: ignore[reportMissingImports]
from kafka.net.manager import KafkaConnectionManager  # pyright: ignore[reportMissingImports]
from kafka.net.sasl.oauth import AbstractTokenProvider  # pyright: ignore[reportMissingImports]
from kafka.net.selector import NetworkSelector  # pyright: ignore[reportMissingImports]

from rlhf_online.config import KafkaSettings
from rlhf_online.errors import ConfigError, LogUnavailable

PASSWORD_VARIABLE = "RLHF_KAFKA_PASSWORD"
UNTRUSTED = "CERTIFICATE_VERIFY_FAILED"

# A bootstrap is two or more round trips, of seconds each to a Kafka far away; while one runs, nothing can be stopped.
_CLIENT: dict[str, Any] = {
    "reconnect_backoff_max_ms": 500,
    "bootstrap_timeout_ms": 10_000,
    "request_timeout_ms": 10_000,
}


@dataclass(frozen=True, slots=True)
class Cluster:
    """The brokers at `servers` ("host:port"), of which the topics that begin with `prefix` are ours."""

    servers: Sequence[str]
    prefix: str
    settings: KafkaSettings

    def __str__(self) -> str:
        return f"Kafka at {', '.join(self.servers)}"

    def check(self) -> None:
        """Raises ConfigError for an invalid file or a missing credential."""
        security(self.settings)

    def open(self, kind: Any, **options: Any) -> Any:
        """A client of kafka-python's class `kind`, connected. Raises KafkaError, LogUnavailable.

        A credential's file that `check` has seen may be gone while somebody replaces it: that passes, as a Kafka does
        that is away. When no broker answers, the constructors raise and leave their network thread and its descriptors
        behind; in a long outage these would add up, so they are ended here. What they raise is a time-out whatever the
        reason; where a broker has refused us, or we it, that is raised instead.
        """
        selectors: list[NetworkSelector] = []
        managers: list[BackoffManager] = []

        def new_client(**configs: Any) -> KafkaNetClient:
            selectors.append(NetworkSelector(**configs))
            managers.append(BackoffManager(selectors[-1], **configs))
            return KafkaNetClient(net=selectors[-1], manager=managers[-1], **configs)

        try:
            wanted = {**_CLIENT, **security(self.settings), **options}
        except ConfigError as error:
            raise LogUnavailable(f"{self} is not asked: {error}") from error
        try:
            return kind(bootstrap_servers=list(self.servers), kafka_client=new_client, **wanted)
        except KafkaError as error:
            for selector in selectors:
                selector.close()
            refusal = next((manager.refusal for manager in managers if manager.refusal), None)
            if refusal is not None:
                raise refusal from error
            raise

    def unavailable(self, error: KafkaError) -> LogUnavailable:
        """What a caller is told."""
        if isinstance(error, SaslAuthenticationFailedError):
            return LogUnavailable(f"{self} refuses log.kafka.username and its password (or its token): correct them")
        if isinstance(error, UnsupportedSaslMechanismError):
            return LogUnavailable(
                f"{self} does not know log.kafka.mechanism = {self.settings.mechanism!r}: use another"
            )
        if UNTRUSTED in str(error):
            return LogUnavailable(
                f"{self} shows a certificate that log.kafka.ca_file ({self.settings.ca_file or 'the system'}) does not "
                f"vouch for ({_verification(error)}): name the authority's file"
            )
        return LogUnavailable(
            f"{self} does not answer ({type(error).__name__}): start it, or mend log.url and log.kafka"
        )


class BackoffManager(KafkaConnectionManager):
    """kafka-python's keeper of connections, but one that is closed before it is of use counts as a failed one.

    kafka-python takes it for a good one and tries again at once, and so without end: with an address that accepts and
    closes (a load balancer without a broker behind it) it used a whole core. And it keeps to itself that a broker did
    not let us in, or showed a certificate that nobody vouches for: `refusal` is the last such error. Wrong credentials
    end a bootstrap, which would try them again all its time, and have accounts locked.
    """

    refusal: KafkaError | None = None

    def get_connection(self, *args: Any, **kwargs: Any) -> Any:
        connection = super().get_connection(*args, **kwargs)
        connection.init_future.add_errback(self._failed)
        return connection

    def _failed(self, error: BaseException) -> None:
        refused = isinstance(error, SaslAuthenticationFailedError | UnsupportedSaslMechanismError)
        if isinstance(error, KafkaError) and (refused or UNTRUSTED in str(error)):
            self.refusal = error
            self.closed = self.closed or (refused and not self.bootstrapped)

    def reset_backoff(self, node_id: Any) -> None:
        connection = self._conns.get(node_id)
        if connection is not None and connection.connected:
            super().reset_backoff(node_id)
        else:
            self.update_backoff(node_id)


def _verification(error: KafkaError) -> str:
    """What OpenSSL says of the certificate: 'self-signed certificate', 'certificate is not yet valid'."""
    return str(error).partition("verify failed: ")[2].partition(" (_ssl")[0] or "it cannot be verified"


def force_close(producer: Any) -> None:
    """End a producer of kafka-python, whatever has become of its deliveries.

    `close` by itself would wait for deliveries that may never end, raise, and leave the sender's thread running.
    """
    producer._sender.force_close()  # noqa: SLF001  # there is no public way
    producer.close(timeout=5)


def security(settings: KafkaSettings) -> dict[str, Any]:
    """kafka-python's options for TLS and SASL. Raises ConfigError for an invalid file or a missing credential."""
    protocol = f"{'SASL_' if settings.mechanism else ''}{'SSL' if settings.tls else 'PLAINTEXT'}"
    options: dict[str, Any] = {"security_protocol": protocol}
    if settings.tls:
        options["ssl_context"] = _tls(settings)
    match settings.mechanism:
        case "":
            pass
        case "OAUTHBEARER":
            if settings.token_file is None:
                raise ConfigError("log.kafka.token_file: OAUTHBEARER needs a file that holds the bearer token")
            _secret(settings.token_file, "log.kafka.token_file")
            options |= {"sasl_mechanism": "OAUTHBEARER", "sasl_oauth_token_provider": TokenFile(settings.token_file)}
        case mechanism:
            options |= {
                "sasl_mechanism": mechanism,
                "sasl_plain_username": _username(settings),
                "sasl_plain_password": _password(settings),
            }
    return options


class TokenFile(AbstractTokenProvider):
    """Bearer tokens from a file, which is read anew for each connection: whoever rotates it need not tell us."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def token(self) -> str:  # pyright: ignore[reportIncompatibleMethodOverride]  # the base class's returns nothing
        return _secret(self._path, "log.kafka.token_file")


def _tls(settings: KafkaSettings) -> ssl.SSLContext:
    """Certificates and host names are always verified."""
    try:
        context = ssl.create_default_context(cafile=settings.ca_file)
        if settings.cert_file is not None:
            context.load_cert_chain(settings.cert_file, settings.key_file)
        return context
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"log.kafka: ca_file {settings.ca_file}, cert_file {settings.cert_file} or key_file {settings.key_file} "
            f"cannot be used ({error}): they must be readable PEM files"
        ) from error


def _username(settings: KafkaSettings) -> str:
    if not settings.username:
        raise ConfigError(f"log.kafka.username: {settings.mechanism} needs one")
    return settings.username


def _password(settings: KafkaSettings) -> str:
    if settings.password_file is not None:
        return _secret(settings.password_file, "log.kafka.password_file")
    if password := os.environ.get(PASSWORD_VARIABLE):
        return password
    raise ConfigError(
        f"log.kafka: {settings.mechanism} needs a password: name its file in password_file, or set {PASSWORD_VARIABLE}"
    )


def _secret(path: Path, setting: str) -> str:
    try:
        secret = path.read_text().strip()
    except (OSError, ValueError) as error:
        # Somebody may have written the secret itself there, which is no path from the root.
        shown = path if path.is_absolute() else "the file that it names"
        raise ConfigError(f"{setting}: {shown} cannot be read ({type(error).__name__})") from error
    if not secret:
        raise ConfigError(f"{setting}: {path} is empty")
    return secret
