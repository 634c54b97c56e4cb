"""See `rlhf_online.documented`."""

from rlhf_online.documented import documented

__all__ = ["documented"]
