"""Metrics that several services make, each in its own registry."""

from prometheus_client import CollectorRegistry, Histogram

from rlhf_online.metrics import labels
from rlhf_online.metrics.buckets import CLICK_S
from rlhf_online.metrics.catalogue import Catalogue


class GrpcMetrics:
    """What a service's gRPC server counts."""

    def __init__(self, service: str, registry: CollectorRegistry) -> None:
        made = Catalogue(registry)
        self.unknown_methods = made.counter(
            f"rlhf_{service}_grpc_unknown_methods", "Calls of methods that are not served.", unit="calls"
        )
        self.restarts = made.counter(f"rlhf_{service}_grpc_restarts", "gRPC servers started because one had ended.")
        self.entries = made.entries


def click_to_live(made: Catalogue) -> Histogram:
    """A vote's way. Chat sees the vote accepted and what it taught served, the trainer all in between."""
    return made.histogram(
        "rlhf_click_to_live_seconds",
        "From a person's click until their vote was `accepted` (it is on disk), `joined` with its answer, `trained` "
        "(the reward model has learned from it), `scored` (answers that the policy learns from have its scores), "
        "`gated` (such a policy has passed the gate), and `swapped` (it serves): each from the click on, so that "
        "the last is the whole way. Chat tells accepted and swapped, the trainer the others.",
        CLICK_S,
        labels.STAGE,
    )
