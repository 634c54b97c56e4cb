"""Adapters of the tiny model, each of which says something else than the base model."""

from pathlib import Path

import torch

from rlhf_online.models.policy import Policy
from rlhf_online.models.trunk import Lora
from rlhf_online.versions.manifest import Kind, Manifest, ProbeSequence
from rlhf_online.versions.registry import Registry

# Several sequences at once, as a trainer's probe has: vLLM computes their next tokens in one batch.
PROMPTS = tuple((1, 20 + row, 3) for row in range(16))


def adapter(base: Path, seed: int, layers: int = 0) -> Policy:
    """A policy whose adapter, of the topmost `layers` or of all, says something else than the base model."""
    policy = Policy.load(base, tuning="lora", lora=Lora(4, layers), seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.parameters().values():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.15)
    return policy


def publish(
    registry: Registry, policy: Policy, *, probe_error: float = 0.0, promote: bool = True, kind: Kind = "policy"
) -> str:
    """A version with the policy's adapter and probe (off by `probe_error`), live unless told otherwise."""
    version = registry.reserve(kind)
    policy.write_version(registry.stage(version))
    answers = policy.sample(PROMPTS, max_tokens=20, temperature=1.0, seed=0, eos_ids=[2])
    sequences = [prompt + answer for prompt, answer in zip(PROMPTS, answers, strict=True)]
    probe = tuple(
        ProbeSequence(token_ids=item.token_ids, logprobs=tuple(x + probe_error for x in item.logprobs))
        for item in policy.probe(sequences)
    )
    registry.publish(Manifest(version=version, tuning="lora", probe=probe))
    if promote:
        registry.promote(version, reason="a test")
    return version
