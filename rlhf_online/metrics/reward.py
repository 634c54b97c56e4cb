"""What services/reward tells: requests, scores and their distribution."""

from prometheus_client import CollectorRegistry

from rlhf_online.metrics import labels
from rlhf_online.metrics.buckets import FAST_S, SIZES, SPREADS, TENTHS
from rlhf_online.metrics.catalogue import Catalogue
from rlhf_online.metrics.shared import GrpcMetrics


class RewardMetrics:
    """What services/reward counts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        made = Catalogue(registry)
        self.requests = made.counter("rlhf_reward_requests", "Score requests by outcome.", labels.SCORED)
        self.items = made.counter("rlhf_reward_items", "Answers scored.", unit="answers")
        self.rejected = made.counter("rlhf_reward_nonfinite", "Scores that were not finite.", unit="scores")
        self.cut = made.counter(
            "rlhf_reward_cut_prompts", "Answers whose prompt was cut to the context.", unit="answers"
        )
        self.batch_size = made.histogram(
            "rlhf_reward_batch_size", "Answers of one forward pass.", SIZES, unit="answers"
        )
        self.latency = made.histogram("rlhf_reward_latency_seconds", "From a request's arrival to its scores.", FAST_S)
        self.scores = made.histogram(
            "rlhf_reward_score_quantile",
            "Where the scores given stand among those of the reference answers, were these normal: Φ(score). Without "
            "drift each bucket holds a tenth.",
            TENTHS,
            unit="0 to 1",
        )
        self.spreads = made.histogram(
            "rlhf_reward_spread",
            "How far the ensemble's members are apart about an answer.",
            SPREADS,
            unit="standard deviations of the reference answers' scores",
        )
        self.queue = made.gauge("rlhf_reward_queue", "Answers waiting for a forward pass.", unit="answers")
        self.serving = made.gauge("rlhf_reward_version_info", "1 for the version loaded.", labels.VERSION)
        self.grpc = GrpcMetrics("reward", registry)
        self.entries = [*made.entries, *self.grpc.entries]
