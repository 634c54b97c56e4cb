"""Kafka: each broker's address, the credentials, the topics, and the clock behind them."""

import socket
import ssl
import time
from typing import TYPE_CHECKING

from rlhf_online.doctor.clock import clock
from rlhf_online.doctor.finding import Finding, ok, refuse, warn
from rlhf_online.errors import LogError

if TYPE_CHECKING:
    from rlhf_online.eventlog.kafka import Cluster

CONNECT_S = 3.0


def kafka(cluster: "Cluster") -> list[Finding]:
    """From the wire up; what needs a step that failed is not tried."""
    addresses = [_address(server) for server in cluster.servers]
    if all(finding.severity == "refuse" for finding in addresses):
        return addresses
    # With others that answer the services start all the same.
    found = [warn(f.about, f.what, f.todo) if f.severity == "refuse" else f for f in addresses]
    from rlhf_online.eventlog.kafka import topics
    from rlhf_online.eventlog.kafka.examine import clock_s

    about = str(cluster)
    try:
        differences = topics.check(cluster)
        before = time.time()
        theirs = clock_s(cluster)
        now = (before + time.time()) / 2
    except LogError as error:
        speaks_tls = any(map(_speaks_tls, cluster.servers))
        if speaks_tls != cluster.settings.tls:
            what = (
                "speaks TLS, and log.kafka.tls is false" if speaks_tls else "speaks no TLS, and log.kafka.tls is true"
            )
            return [*found, refuse(about, what, f"set log.kafka.tls = {str(speaks_tls).lower()}, or use another port")]
        return [
            *found,
            refuse(about, _why(cluster, error), "see log.kafka: tls, ca_file, mechanism, username, password_file"),
        ]
    found.append(ok(about, "lets these credentials in" if cluster.settings.mechanism else "answers"))
    apply = "rlhf-online topics apply, with the same settings"
    for line in differences:
        missing = line.endswith(" is missing")
        found.append(
            warn("topics", line, f"{apply}, or start the services") if missing else refuse("topics", line, apply)
        )
    if not differences:
        found.append(ok("topics", f"those of {cluster.prefix} are as they must be"))
    if theirs is not None:
        found.append(clock(about, theirs, now))
    return found


def _why(cluster: "Cluster", error: LogError) -> str:
    """What it says; where it took the connection and then said nothing, what it may have minded."""
    if "does not answer" in str(error) and cluster.settings.mechanism:
        told = f"log.kafka.mechanism = {cluster.settings.mechanism!r}"
        return f"takes connections and closes them when we log in by {told}, which it may not know"
    return str(error)


def _address(server: str) -> Finding:
    host, _, port = server.rpartition(":")
    about = f"broker {server}"
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()
    except (socket.gaierror, UnicodeError) as error:  # the latter: it is no name
        why = error.strerror if isinstance(error, OSError) else "it is no host's name"
        return refuse(about, f"{host} has no address here ({why})", "correct log.url, or the name service")
    except OSError as error:
        todo = "start it, open the way to it (NetworkPolicy, firewall), or correct log.url"
        return refuse(about, f"takes no connection ({error.strerror or 'no answer in time'})", todo)
    return ok(about, "takes connections")


def _speaks_tls(server: str) -> bool:
    """Whether it begins a handshake; whom it shows is another question, and nothing is sent to it."""
    host, _, port = server.rpartition(":")
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S) as line:
            with context.wrap_socket(line, server_hostname=host.strip("[]")):
                return True
    except ssl.SSLError as error:
        return "CERTIFICATE_REQUIRED" in str(error) or "HANDSHAKE_FAILURE" in str(error)
    except OSError:
        return False
