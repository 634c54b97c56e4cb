"""What is asked: people, what they do, and on what it runs."""

import math
from dataclasses import dataclass, fields
from typing import Literal

from rlhf_online.sizing.factors import GPUS


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What is asked for. Each field's default says whose it is in `DEMANDS`."""

    people: int = 1000
    messages: float = 3.7
    votes: float = 0.02
    prompt_tokens: float = 210
    answer_tokens: float = 215
    peak: float = 3.0
    weights_billion: float = 8.0
    cache_kib: float = 128.0
    tuning: Literal["lora", "full"] = "lora"
    gpu: str = "h200"
    engine_tokens_s: float = 0.0
    versions_a_day: float = 12.0
    retention_days: float = 30.0
    replication: int = 3
    outage_days: float = 1.0


DEMANDS = {
    "people": "who use it in a week",
    "messages": "a person and day (NBER working paper 34255: 18 billion a week by 700 million people)",
    "votes": "a message (assumed: docs/results.md, bench online, has one to three in a hundred)",
    "prompt_tokens": "of an answer's prompt, with what was said before (arXiv 2309.11998: 69.5 a message, two turns)",
    "answer_tokens": "of an answer (arXiv 2309.11998: 214.5)",
    "peak": "busiest hour over the mean (assumed: measure it)",
    "weights_billion": "of the policy and of the reward model's trunk, billions",
    "cache_kib": "KiB of key-value cache a token (Llama 3 8B: 2 × 32 layers × 8 heads × 128 × 2 bytes)",
    "tuning": "what is trained: an adapter, or all weights, of both models",
    "gpu": f"one of {', '.join(GPUS)}",
    "engine_tokens_s": "tokens a second of one engine at the latency that you want; 0: reckoned from the GPU",
    "versions_a_day": "policy updates a day",
    "retention_days": "how long Kafka keeps events (log.kafka.retention_days)",
    "replication": "replicas of a topic (log.kafka.replication)",
    "outage_days": "how long Kafka may be away with nothing lost",
}


def check(demand: Demand) -> None:
    """Raises ValueError for a value of no sense."""
    for field in fields(demand):
        value = getattr(demand, field.name)
        may_be_none = field.name in ("engine_tokens_s", "votes", "versions_a_day", "outage_days", "retention_days")
        if isinstance(value, int | float) and not (0 < value < math.inf or (may_be_none and value == 0)):
            raise ValueError(f"{field.name}: {'0 or more' if may_be_none else 'more than 0'} was expected, got {value}")
    if demand.peak < 1:
        raise ValueError(f"peak: the busiest hour has at least as much as the mean, 1 or more, got {demand.peak}")
    if demand.gpu not in GPUS:
        raise ValueError(f"gpu: expected one of {', '.join(GPUS)}, got {demand.gpu!r}")
