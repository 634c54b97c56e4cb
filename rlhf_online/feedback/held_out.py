"""What a conversation's votes are for: three kinds that no conversation changes between. Pure.

learned      the reward model that the policy learns from learns from them
held_back    another reward model does, by which the gate judges what the policy has made of the first one
held_out     neither does: both are measured on them
"""

import hashlib
from typing import Literal

Use = Literal["learned", "held_back", "held_out"]


def use_of(conversation_id: str, *, held_out: float, held_back: float) -> Use:
    """`held_out` is a share (0 … 1) of all conversations, and `held_back` one of the others; the same ones everywhere
    and always, whatever the other share is."""
    if is_held_out(conversation_id, held_out):
        return "held_out"
    return "held_back" if _falls_below(f"held back {conversation_id}", held_back) else "learned"


def is_held_out(conversation_id: str, share: float) -> bool:
    """True for `share` (0 … 1) of all conversations, the same ones everywhere and always: never learned from."""
    return _falls_below(conversation_id, share)


def _falls_below(name: str, share: float) -> bool:
    digest = hashlib.sha256(name.encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64
