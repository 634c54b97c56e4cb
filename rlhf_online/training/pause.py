"""Whether an operator has paused learning: asked before each update, and before a policy version is committed."""

from rlhf_online import learning
from rlhf_online.training.parts import TrainerParts

WHY = "learning is paused: `rlhf-online learning resume` goes on"


def asked(parts: TrainerParts) -> bool:
    """True while it is paused. A record that cannot be read now is waited for. Raises Stopped."""
    store = parts.registry.store
    paused = parts.retrier.call("reading whether learning is paused", lambda: learning.read(store).paused)
    parts.reporter.paused(paused)
    return paused
