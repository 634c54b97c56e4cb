"""What services/chat tells: requests and tokens, votes, the log, the engine and its versions."""

import math

from prometheus_client import CollectorRegistry

from rlhf_online.metrics import labels
from rlhf_online.metrics.buckets import ANSWER_S, FAST_S, TOKEN_S
from rlhf_online.metrics.catalogue import Catalogue
from rlhf_online.metrics.shared import GrpcMetrics, click_to_live


class ChatMetrics:
    """What services/chat counts. Large because every metric of the service is an attribute."""

    def __init__(self, registry: CollectorRegistry) -> None:
        made = Catalogue(registry)
        self.requests = made.counter(
            "rlhf_chat_requests",
            "Chat requests by how they ended; cross_origin: of any kind, by other sites.",
            labels.REQUEST_OUTCOME,
        )
        self.tokens = made.counter("rlhf_chat_tokens", "Tokens written in answers.")
        self.prompt_tokens = made.counter("rlhf_chat_prompt_tokens", "Tokens of the prompts of these answers.")
        self.active = made.gauge("rlhf_chat_requests_in_progress", "Chat requests in progress.", unit="requests")
        self.waiting = made.gauge(
            "rlhf_chat_requests_waiting",
            "Of the requests in progress, those that have no token yet: queued in the engine, or held by a swap.",
            unit="requests",
        )
        self.resent = made.counter(
            "rlhf_chat_resent", "Requests sent to the engine again after it had ended.", unit="requests"
        )
        self.uncertain = made.counter("rlhf_chat_uncertain_answers", "Answers across a swap without a known boundary.")
        self.latency = made.histogram(
            "rlhf_chat_latency_seconds", "From a request's arrival to its last byte.", ANSWER_S
        )
        self.first_token = made.histogram("rlhf_chat_first_token_seconds", "From arrival to the first token.", ANSWER_S)
        self.token_time = made.histogram(
            "rlhf_chat_time_per_output_token_seconds",
            "Mean time between a request's tokens, from its first token to its last.",
            TOKEN_S,
        )
        self.longest_gap = made.histogram(
            "rlhf_chat_longest_token_gap_seconds",
            "Longest time that a request waited between two pieces of its answer: a stall, a swap's pause among them.",
            ANSWER_S,
        )
        self.internal_errors = made.counter(
            "rlhf_chat_internal_errors", "Requests that ended with a defect of the service."
        )
        self.rollouts = made.counter(
            "rlhf_rollout_requests", "Rollout requests by how they ended.", labels.ROLLOUT_OUTCOME
        )
        self.rollout_tokens = made.counter("rlhf_rollout_tokens", "Tokens written for the trainer.")
        self.service_up = made.gauge(
            "rlhf_service_up", "1 while `rlhf-online up` sees this service ready.", labels.SERVICE, unit="0 or 1"
        )
        self.service_restarts = made.gauge(
            "rlhf_service_restarts", "Starts of this service after it had ended.", labels.SERVICE, unit="starts"
        )
        self.grpc = GrpcMetrics("chat", registry)
        self.access = AccessMetrics(registry)
        self.votes = VoteMetrics(registry)
        self.log = LogMetrics(registry)
        self.serving = ServingMetrics(registry)
        self.prediction = PredictionMetrics(registry)
        parts = (self.grpc, self.access, self.votes, self.log, self.serving, self.prediction)
        self.entries = [*made.entries, *(entry for part in parts for entry in part.entries)]


class AccessMetrics:
    """Who gets in, and who does not."""

    def __init__(self, registry: CollectorRegistry) -> None:
        made = Catalogue(registry)
        self.closed = made.counter(
            "rlhf_chat_connections_closed",
            "HTTP connections closed on clients that do not play along.",
            labels.CLOSED,
            unit="connections",
        )
        self.limited = made.counter(
            "rlhf_chat_limited",
            "Requests and votes that a limit of a key or person refused.",
            labels.WHOSE,
            labels.LIMIT,
            unit="requests",
        )
        self.certificates = made.counter("rlhf_chat_certificates", "Readings of the TLS files.", labels.LOADED)
        self.certificate_expiry = made.gauge(
            "rlhf_chat_certificate_expiry_timestamp_seconds",
            "When the certificate that is served, or one of its chain, ends; NaN without TLS.",
        )
        self.certificate_expiry.set(math.nan)
        self.secrets_intact = made.gauge(
            "rlhf_chat_secrets_intact", "1 while the state folder holds the secrets in use.", unit="0 or 1"
        )
        self.entries = made.entries


class VoteMetrics:
    """Votes as they are taken, and what became of them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        made = Catalogue(registry)
        self.taken = made.counter(
            "rlhf_feedback",
            "Votes by kind and how they ended.",
            labels.FEEDBACK_KIND,
            labels.FEEDBACK_OUTCOME,
            unit="votes",
        )
        self.waiting = made.gauge(
            "rlhf_votes_waiting", "Votes taken here of which nothing has become yet: not joined, not learned from.",
            unit="votes",
        )  # fmt: skip
        self.oldest = made.gauge("rlhf_votes_waiting_seconds", "Age of the oldest of these, 0 without any.")
        self.to_live = click_to_live(made)
        self.entries = made.entries


class LogMetrics:
    """The local log, and its way to Kafka."""

    def __init__(self, registry: CollectorRegistry) -> None:
        made = Catalogue(registry)
        self.append = made.histogram("rlhf_log_append_seconds", "From an append to its acknowledgement.", FAST_S)
        self.failures = made.counter("rlhf_log_failures", "Events that the log did not acknowledge.", unit="events")
        self.backlog = made.gauge("rlhf_log_backlog_records", "Events that Kafka has not confirmed.", unit="records")
        self.backlog_age = made.gauge(
            "rlhf_log_backlog_seconds", "Age of the oldest event that Kafka has not confirmed."
        )
        self.shipped = made.counter("rlhf_log_shipped_records", "Events that Kafka has confirmed.")
        self.deliveries_failed = made.counter(
            "rlhf_log_delivery_failures", "Deliveries to Kafka that were made again.", unit="deliveries"
        )
        self.refused = made.counter(
            "rlhf_log_refused",
            "Events that Kafka refused for good, or damaged ones: see refused.jsonl.",
            unit="events",
        )
        self.entries = made.entries


class ServingMetrics:
    """The engine, the versions that it serves and is given, and how this pod keeps up. Large because each metric is an
    attribute."""

    def __init__(self, registry: CollectorRegistry) -> None:
        made = Catalogue(registry)
        self.swaps = made.counter("rlhf_swaps", "Attempts to load a new version, by outcome.", labels.SWAPPED)
        self.swap_pause = made.histogram("rlhf_swap_pause_seconds", "How long a swap paused the engine.", FAST_S)
        self.engine_restarts = made.counter("rlhf_engine_restarts", "Engine processes started after one had ended.")
        self.engine_ready = made.gauge("rlhf_engine_ready", "1 while the engine serves a version.", unit="0 or 1")
        self.version = made.gauge("rlhf_serving_version_info", "1 for the serving version.", labels.VERSION)
        self.since = made.gauge(
            "rlhf_serving_since_timestamp_seconds", "Since when the serving version serves here; 0 before the first."
        )
        self.versions = made.gauge(
            "rlhf_versions", "Versions in the store, by what they are.", labels.KIND, labels.STATE, unit="versions"
        )
        self.version_lag = made.gauge(
            "rlhf_version_lag_seconds", "Since when another version is live than serves here."
        )
        self.could_not_serve = made.gauge(
            "rlhf_version_not_servable",
            "1 while this pod could not serve the live version, or a canary.",
            unit="0 or 1",
        )
        self.behind = made.gauge(
            "rlhf_pod_behind", "1 while this pod is not ready since it lags behind others.", unit="0 or 1"
        )
        self.store_silent = made.gauge(
            "rlhf_version_store_silent_seconds", "Since a question to the versions' store had no answer."
        )
        self.damaged_records = made.gauge(
            "rlhf_damaged_records", "Records of the versions that cannot be read: see the log.", unit="records"
        )
        self.entries = made.entries


class PredictionMetrics:
    """How the gate's predictions meet what people say (`prediction`); NaN before there are enough versions."""

    def __init__(self, registry: CollectorRegistry) -> None:
        made = Catalogue(registry)
        self.correlation = made.gauge(
            "rlhf_gate_prediction_correlation",
            "Pearson's r of the predicted win rates and people's.",
            unit="-1 to 1",
        )
        self.gap = made.gauge(
            "rlhf_gate_prediction_gap",
            "People's win rate less the predicted one, mean over versions.",
            unit="-1 to 1",
        )
        self.versions = made.gauge("rlhf_gate_prediction_versions", "Versions that both are made of.", unit="versions")
        self.alarm = made.gauge(
            "rlhf_gate_prediction_alarm", "1 while the gate's predictions and people have parted.", unit="0 or 1"
        )
        self.entries = made.entries
