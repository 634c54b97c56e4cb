"""How the canary fares, for people: the record, and what the trainer counted last."""

from typing import Any

from rlhf_online.canary.record import under_way
from rlhf_online.state import StateDir
from rlhf_online.versions.catalogue import Catalogue
from rlhf_online.versions.manifest import Kind

FIGURES = ("answers", "people", "better", "worse", "preference_low", "preference_high")
SHARES = ("aborted_share", "empty_share", "slow_share", "thumbs_down_share")


def report(catalogue: Catalogue, state: StateDir, kind: Kind = "policy") -> dict[str, Any]:
    """Of the canary of that kind, by the names of `services.chat.canary.CanaryState`; `version` is empty where there is
    none, and figures are None before the trainer has told of it. Raises OSError."""
    canary = under_way(catalogue, kind)
    told = state.read_status("trainer")
    counted = told.get("canary") if kind == "policy" else told.get("audience_canaries", {}).get(kind)
    if canary is None or not isinstance(counted, dict) or counted.get("version") != canary.version:
        counted = {}
    values = canary.to_json() if canary is not None else {}
    empty = {
        "version": "",
        "live": "",
        "share": 0.0,
        "steps": (),
        "step": 0,
        "began_ms": 0,
        "since_ms": 0,
        "reason": "",
    }
    return empty | values | {name: counted.get(name) for name in (*FIGURES, *SHARES)}
