"""Every metric's name, unit, sentence and labels, once: one class a service, made on the registry that it exposes.

`catalogue` says how a metric is made and described, `labels` what their labels may be; docs/metrics.md lists them all.
"""

from rlhf_online.metrics.chat import ChatMetrics, PredictionMetrics
from rlhf_online.metrics.exposition import exposition, serve, show_version
from rlhf_online.metrics.machine import MachineMetrics
from rlhf_online.metrics.reward import RewardMetrics
from rlhf_online.metrics.shared import GrpcMetrics
from rlhf_online.metrics.trainer import TrainerMetrics

__all__ = [
    "ChatMetrics",
    "GrpcMetrics",
    "MachineMetrics",
    "PredictionMetrics",
    "RewardMetrics",
    "TrainerMetrics",
    "exposition",
    "serve",
    "show_version",
]
