"""How gRPC servers treat clients that hold a connection open, for an answer of minutes or from one call to the next.

Clients, and proxies between, ping every ten seconds or more to learn whether the other side is still there. By its own
defaults a gRPC server ends a connection on which it gets more than some pings in five minutes ("too_many_pings"). Nor
does it limit how many connections there are, and each is an open file of its process.
"""

from pydantic import Field

from rlhf_online.config.base import Section

HANDSHAKE_MS = 10_000
IDLE_MS = 300_000
"""A connection without a call is closed after that; clients open another when they need it."""
MAX_CALLS = 8192
"""Calls at once, of all connections: beyond that RESOURCE_EXHAUSTED."""


class GrpcSettings(Section):
    """`[grpc]` of a service."""

    min_ping_interval_s: float = Field(
        default=5.0, ge=0, description="A client may ping so often, with a call or without; else it is disconnected."
    )
    keepalive_s: float = Field(
        default=60.0, gt=0, description="After such a silence a client is pinged; without an answer it is disconnected."
    )

    def server_options(self, max_message_bytes: int, connections: int) -> list[tuple[str, int]]:
        """The options of a server that takes messages of at most so many bytes, over at most so many connections."""
        return [
            ("grpc.max_receive_message_length", max_message_bytes),
            ("grpc.so_reuseport", 0),  # a second server on the port is an error, not a silent half of the traffic
            ("grpc.http2.min_ping_interval_without_data_ms", round(self.min_ping_interval_s * 1000)),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.keepalive_time_ms", round(self.keepalive_s * 1000)),
            ("grpc.http2.max_pings_without_data", 0),  # no limit: an answer may wait for its first token for long
            ("grpc.max_allowed_incoming_connections", connections),
            ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS),
            ("grpc.max_connection_idle_ms", IDLE_MS),
            ("grpc.server.max_pending_requests", MAX_CALLS),
            ("grpc.server.max_pending_requests_hard_limit", MAX_CALLS),
        ]
