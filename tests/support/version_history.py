"""A registry as a service has it after some days: live, rejected, and rolled back ones."""

import math
import random

from rlhf_online.versions.manifest import Manifest
from rlhf_online.versions.registry import Registry

REJECTED_EACH, FAILED_EACH = 5, 7
"""Every so many policy versions."""
OBJECTIVES = '{"objectives": ["helpful", "harmless"]}'


def fill(registry: Registry, policies: int, *, seed: int = 0, start_ms: int = 1_764_000_000_000) -> None:
    """So many policy versions, and a reward version for every second one, twelve minutes apart."""
    rng = random.Random(seed)
    reward, parent = "", ""
    for i in range(policies):
        created_ms = start_ms + 720_000 * i
        if i % 2 == 0:
            reward = registry.reserve("reward")
            (registry.stage(reward) / "reward.json").write_text(OBJECTIVES)
            n = min(40 + 10 * i, 600)
            accuracy, half = 0.55 + 0.25 * (1 - math.exp(-i / 20)) + rng.gauss(0, 0.01), 0.98 / math.sqrt(n)
            figures = {
                "accuracy": accuracy, "accuracy_low": accuracy - half, "accuracy_high": accuracy + half,
                "accuracy_n": n,
                "thumb_auc": accuracy + 0.05, "thumb_auc_low": accuracy - half, "thumb_auc_high": accuracy + 0.09,
                "thumb_n": n, "ece": 0.2 * math.exp(-i / 15) + 0.02,
            }  # fmt: skip
            registry.publish(Manifest(version=reward, tuning="full", created_ms=created_ms, figures=figures))
            registry.promote(reward)
        policy = registry.reserve("policy")
        registry.stage(policy)
        kl = 0.3 * math.sqrt(i)
        manifest = Manifest(
            version=policy,
            tuning="lora",
            parent=parent,
            reward_version=reward if i else "",
            kl=kl,
            created_ms=created_ms,
        )
        registry.publish(manifest)
        if i == 0:
            registry.promote(policy)
            parent = policy
            continue
        score = 0.4 * math.log1p(i) + rng.gauss(0, 0.1)
        rejected = i % REJECTED_EACH == 3
        better = -0.1 if rejected else rng.uniform(0.05, 0.3)
        gate = {
            "score": score, "live_score": score - better, "samples": 64, "kl": kl,
            "win_rate": 0.41 if rejected else rng.uniform(0.52, 0.68),
            "length": 38 + rng.gauss(0, 3), "live_length": 39,
        }  # fmt: skip
        if rejected:
            registry.mark(policy, "rejected", reason="win_rate .41 is below .5", gate=gate)
            continue
        registry.promote(policy, gate=gate)
        if i % FAILED_EACH == FAILED_EACH - 1:
            registry.rollback("policy", reason="people liked it less")
        else:
            parent = policy
