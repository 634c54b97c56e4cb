"""Which conversations are held out for evaluation. Pure."""

import hashlib


def is_held_out(conversation_id: str, share: float) -> bool:
    """True for `share` (0 … 1) of all conversations, the same ones everywhere and always: never learned from."""
    digest = hashlib.sha256(conversation_id.encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64
