"""Every metric's name, once: one class a service, built on the registry that the service exposes.

Labels are of small, fixed sets (outcomes, kinds, phases) or a version's name; never a person, a conversation or text.
"""

import math
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server
from prometheus_client.core import GaugeMetricFamily

from rlhf_online.errors import InvalidInput

FAST_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
ANSWER_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
PHASE_S = (0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
VOLUMES = ("log", "versions", "checkpoints")
"""Folders of the state folder that may be file systems of their own."""


class MachineMetrics:
    """What each service tells of the machine that it runs on, read at each scrape."""

    def __init__(self, state: Path, registry: CollectorRegistry) -> None:
        self._state = state
        clock = Gauge("rlhf_time_seconds", "The service's clock, seconds since 1970.", registry=registry)
        clock.set_function(time.time)
        registry.register(self)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The state folder's file system as `folder="state"`, and those mounted below it by their folders' names."""
        free = GaugeMetricFamily("rlhf_state_free_bytes", "What a service may still write there.", labels=["folder"])
        size = GaugeMetricFamily("rlhf_state_size_bytes", "How large that file system is.", labels=["folder"])
        seen: set[int] = set()
        for folder in ("state", *VOLUMES):
            path = self._state if folder == "state" else self._state / folder
            with suppress(OSError):  # not there yet
                if (device := path.stat().st_dev) not in seen:
                    seen.add(device)
                    found = os.statvfs(path)
                    free.add_metric([folder], found.f_bavail * found.f_frsize)
                    size.add_metric([folder], found.f_blocks * found.f_frsize)
        yield free
        yield size


class GrpcMetrics:
    """What a service's gRPC server counts."""

    def __init__(self, service: str, registry: CollectorRegistry) -> None:
        self.unknown_methods = Counter(
            f"rlhf_{service}_grpc_unknown_methods", "Calls of methods that are not served.", registry=registry
        )
        self.restarts = Counter(
            f"rlhf_{service}_grpc_restarts", "gRPC servers started because one had ended.", registry=registry
        )


class ChatMetrics:
    """What services/chat counts. Large because every metric of the service is an attribute."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(name, text, labels, registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(name, text, buckets=buckets, registry=registry)

        self.requests = counter(
            "rlhf_chat_requests",
            "Chat requests by how they ended; cross_origin: of any kind, by other sites.",
            "outcome",
        )
        self.tokens = counter("rlhf_chat_tokens", "Tokens written in answers.")
        self.active = gauge("rlhf_chat_requests_in_progress", "Chat requests in progress.")
        self.resent = counter("rlhf_chat_resent", "Requests sent to the engine again after it had ended.")
        self.uncertain = counter("rlhf_chat_uncertain_answers", "Answers across a swap without a known boundary.")
        self.latency = histogram("rlhf_chat_latency_seconds", "From a request's arrival to its last byte.", ANSWER_S)
        self.first_token = histogram("rlhf_chat_first_token_seconds", "From arrival to the first token.", ANSWER_S)
        self.feedback = counter("rlhf_feedback", "Votes by kind and how they ended.", "kind", "outcome")
        self.log_append = histogram("rlhf_log_append_seconds", "From an append to its acknowledgement.", FAST_S)
        self.log_failures = counter("rlhf_log_failures", "Events that the log did not acknowledge.")
        self.backlog = gauge("rlhf_log_backlog_records", "Events that Kafka has not confirmed.")
        self.backlog_age = gauge("rlhf_log_backlog_seconds", "Age of the oldest event that Kafka has not confirmed.")
        self.deliveries_failed = counter("rlhf_log_delivery_failures", "Deliveries to Kafka that were made again.")
        self.refused = counter(
            "rlhf_log_refused", "Events that Kafka refused for good, or damaged ones: see refused.jsonl."
        )
        self.closed = counter(
            "rlhf_chat_connections_closed", "HTTP connections closed on clients that do not play along.", "reason"
        )
        self.limited = counter("rlhf_chat_limited", "What a limit of a key or person refused.", "whose", "limit")
        self.certificates = counter("rlhf_chat_certificates", "Readings of the TLS files.", "outcome")
        self.certificate_expiry = gauge(
            "rlhf_chat_certificate_expiry_timestamp_seconds",
            "When the certificate that is served, or one of its chain, ends; NaN without TLS.",
        )
        self.certificate_expiry.set(math.nan)
        self.grpc = GrpcMetrics("chat", registry)
        self.internal_errors = counter("rlhf_chat_internal_errors", "Requests that ended with a defect of the service.")
        self.rollouts = counter("rlhf_rollout_requests", "Rollout requests by how they ended.", "outcome")
        self.rollout_tokens = counter("rlhf_rollout_tokens", "Tokens written for the trainer.")
        self.swaps = counter("rlhf_swaps", "Attempts to load a new version, by outcome.", "outcome")
        self.swap_pause = histogram("rlhf_swap_pause_seconds", "How long a swap paused the engine.", FAST_S)
        self.engine_restarts = counter("rlhf_engine_restarts", "Engine processes started after one had ended.")
        self.engine_ready = gauge("rlhf_engine_ready", "1 while the engine serves a version.")
        self.serving = gauge("rlhf_serving_version_info", "1 for the serving version.", "version")
        self.version_lag = gauge("rlhf_version_lag_seconds", "Since when another version is live than serves here.")
        self.could_not_serve = gauge("rlhf_version_not_servable", "1 while this pod could not serve the live version.")
        self.behind = gauge("rlhf_pod_behind", "1 while this pod is not ready since it lags behind others.")
        self.store_silent = gauge(
            "rlhf_version_store_silent_seconds",
            "Since a question to the versions' store had no answer.",
        )
        self.secrets_intact = gauge("rlhf_chat_secrets_intact", "1 while the state folder holds the secrets in use.")
        self.damaged_records = gauge(
            "rlhf_damaged_records", "Records of the versions that cannot be read: see the log."
        )
        self.prediction = PredictionMetrics(registry)
        self.service_up = gauge("rlhf_service_up", "1 while `rlhf-online up` sees this service ready.", "service")
        self.service_restarts = gauge("rlhf_service_restarts", "Starts of this service after it had ended.", "service")


class PredictionMetrics:
    """How the gate's predictions meet what people say (`prediction`); NaN before there are enough versions."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.correlation = Gauge(
            "rlhf_gate_prediction_correlation",
            "Pearson's r of the predicted win rates and people's.",
            registry=registry,
        )
        self.gap = Gauge(
            "rlhf_gate_prediction_gap",
            "People's win rate less the predicted one, mean over versions.",
            registry=registry,
        )
        self.versions = Gauge("rlhf_gate_prediction_versions", "Versions that both are made of.", registry=registry)
        self.alarm = Gauge(
            "rlhf_gate_prediction_alarm", "1 while the gate's predictions and people have parted.", registry=registry
        )


class RewardMetrics:
    """What services/reward counts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter("rlhf_reward_requests", "Score requests by outcome.", ["outcome"], registry=registry)
        self.items = Counter("rlhf_reward_items", "Answers scored.", registry=registry)
        self.rejected = Counter("rlhf_reward_nonfinite", "Scores that were not finite.", registry=registry)
        self.cut = Counter("rlhf_reward_cut_prompts", "Answers whose prompt was cut to the context.", registry=registry)
        self.batch_size = Histogram(
            "rlhf_reward_batch_size", "Answers of one forward pass.", buckets=SIZES, registry=registry
        )
        self.latency = Histogram(
            "rlhf_reward_latency_seconds", "From a request's arrival to its scores.", buckets=FAST_S, registry=registry
        )
        self.queue = Gauge("rlhf_reward_queue", "Answers waiting for a forward pass.", registry=registry)
        self.grpc = GrpcMetrics("reward", registry)
        self.serving = Gauge("rlhf_reward_version_info", "1 for the version loaded.", ["version"], registry=registry)


class TrainerMetrics:
    """What services/trainer counts. Large because every metric of the service is an attribute."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(name, text, labels, registry=registry)

        self.cycles = Counter("rlhf_trainer_cycles", "Training cycles by outcome.", ["outcome"], registry=registry)
        self.votes = gauge("rlhf_trainer_votes", "Votes, as the ledger says.", "disposition")
        self.dead_letters = gauge("rlhf_trainer_dead_letters", "Records and votes that cannot be used.", "reason")
        self.phase = Histogram(
            "rlhf_trainer_phase_seconds", "Time of a cycle's phases.", ["phase"], buckets=PHASE_S, registry=registry
        )
        self.progress = gauge(
            "rlhf_trainer_progress_timestamp_seconds",
            "When the trainer last read the log, made a step or ended a phase; not while it waits for what is away.",
        )
        self.kl = gauge("rlhf_trainer_kl", "KL of the policy to its reference, nats an answer.")
        self.kl_limit = gauge("rlhf_trainer_kl_limit", "Above which KL the gate refuses a candidate (gate.kl.max).")
        self.step_kl = gauge("rlhf_trainer_step_kl", "KL of the last update, nats an answer.")
        self.reward = gauge("rlhf_trainer_reward", "Mean score of the last update's rollouts.")
        self.accuracy = gauge("rlhf_trainer_reward_accuracy", "Share of held-out comparisons ordered rightly.")
        self.held_out = gauge(
            "rlhf_trainer_reward_held_out",
            "The reward model on held-out votes: accuracy, ece, thumb_auc, …, with the ends of 95 % intervals.",
            "figure",
        )
        self.held_back = gauge(
            "rlhf_trainer_held_back_reward_held_out",
            "The same of the held-back reward model, by which the gate judges.",
            "figure",
        )
        self.gate_share = gauge(
            "rlhf_trainer_gate_share",
            "What the gate takes of a cycle's time, 0 … 1, the held-back model's update included.",
        )
        self.reliability = gauge(
            "rlhf_trainer_signal_reliability", "How far implicit signals are believed, 0 … 1.", "signal"
        )
        self.weights = gauge(
            "rlhf_trainer_objective_weight", "What an objective counts in this cycle's scores.", "objective"
        )
        self.skipped = Counter(
            "rlhf_trainer_skipped", "What nothing could be learned from, by reason.", ["reason"], registry=registry
        )
        self.cut = Counter(
            "rlhf_trainer_cut_prompts",
            "Answers whose prompt lost its beginning to the reward model's context.",
            registry=registry,
        )
        self.win_rate = gauge("rlhf_trainer_win_rate", "Wins of the last candidate over the live one.")
        self.proxy_gap = gauge(
            "rlhf_trainer_proxy_gap",
            "What the last candidate gained by its own reward model beyond what it gained by the held-back one, in "
            "standard deviations; NaN where that could not be told.",
        )
        self.proxy_gap.set(math.nan)
        self.proxy_gap_limit = gauge(
            "rlhf_trainer_proxy_gap_limit", "Above which gap the gate refuses a candidate (gate.proxy_gap.max)."
        )
        self.undone = Counter("rlhf_trainer_undone_updates", "Policy updates taken back.", registry=registry)
        self.left_out = gauge(
            "rlhf_trainer_rollouts_left_out",
            "Answers that the policy did not learn from: too old, too many, or unusable.",
            "reason",
        )
        self.paused = gauge("rlhf_trainer_paused", "1 while an operator has paused learning.")
        self.lag = gauge("rlhf_trainer_log_lag", "Records of the log not read yet.")
        self.serving = gauge("rlhf_trainer_version_info", "1 for the versions in memory.", "policy", "reward")


def show_version(gauge: Gauge, *version: str) -> None:
    """Make `version` the only child of an info gauge that is 1."""
    gauge.clear()
    if any(version):
        gauge.labels(*version).set(1)


def serve(collectors: CollectorRegistry, host: str, port: int) -> int:
    """Expose `collectors` over HTTP in a thread; the port, chosen by the system for 0. Raises InvalidInput."""
    try:
        server, _ = start_http_server(port, host, registry=collectors)
    except OSError as error:
        raise InvalidInput(
            f"port {port} on {host} cannot be opened ({error}): stop what uses it, or set metrics_port to another"
        ) from error
    return server.server_port
