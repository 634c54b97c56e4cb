"""The trainer's part in a canary: it counts what the log says of it, and decides (`rlhf_online.canary`).

It is the one to do so since it has the lease and reads the votes of all pods, in order, and nothing twice. Before the
log is read the tally is that of the canary which the store names; what was counted of it stands in the checkpoint with
the log position, so that a restarted trainer, which reads again what came after, counts it once. What a decision does
to the store may be repeated: whoever was killed before or after comes to the same decision from the same votes.
"""

import contextlib

import structlog

from rlhf_online.canary import record
from rlhf_online.canary.decision import Decision, decide, evidence
from rlhf_online.canary.record import ALL_BUT_CANARIES, Canary
from rlhf_online.canary.tally import Tally
from rlhf_online.errors import InvalidInput, UnknownVersion
from rlhf_online.events import now_ms
from rlhf_online.training.parts import TrainerParts
from rlhf_online.training.update_metrics import show_canary, show_no_canary


def follow(parts: TrainerParts) -> Canary | None:
    """Count for the canary that is under way from here on; before the log is read. Raises Stopped."""
    canary = parts.retrier.call("reading which version is the canary", lambda: record.under_way(parts.registry))
    ended = parts.intake.canary.version
    if ended and (canary is None or canary.version != ended):
        parts.retrier.call("ending the canary", lambda: _end_unless_ended(parts, ended))
    if canary is None:
        if ended:
            parts.intake.canary = Tally()
            show_no_canary(parts.reporter.metrics.canary)
            parts.reporter.set(canary=None, waiting_for="")
        return None
    if (parts.intake.canary.version, parts.intake.canary.live) != (canary.version, canary.live):
        parts.intake.canary = Tally(canary.version, canary.live)
    parts.intake.canary.step(canary.since_ms)
    return canary


def act(parts: TrainerParts) -> None:
    """Do what follows from what was counted, if anything does; after the log was read. Raises Stopped, Fenced."""
    canary = under_way = follow(parts)
    if under_way is None:
        return
    decision = decide(parts.intake.canary, under_way, parts.settings.canary, now_ms())
    if decision.action != "hold":
        structlog.get_logger().info(
            "canary", action=decision.action, version=under_way.version, share=under_way.share, why=decision.reason
        )
        parts.retrier.call("changing the canary", lambda: _carry_out(parts, under_way, decision))
        parts.reporter.metrics.canary.decisions.labels(decision.action.replace(" ", "_")).inc()
        canary = follow(parts)
    if canary is not None:
        found, answers = evidence(parts.intake.canary), parts.intake.canary.answers
        show_canary(parts.reporter.metrics.canary, canary, found, answers)
        told = canary.to_json() | found.to_json() | {"answers": answers}
        parts.reporter.set(canary=told, waiting_for=f"the canary: {decision.reason}")


def waits_for(parts: TrainerParts) -> str | None:
    """Why the policy does not learn now, None if no canary is under way. Raises Stopped."""
    canary = follow(parts)
    return None if canary is None else f"{canary.version} is a canary: `rlhf-online canary status` tells how it fares"


def _end_unless_ended(parts: TrainerParts, version: str) -> None:
    """One whose live version is live no more is still called a canary, and would keep its weights for good."""
    with contextlib.suppress(UnknownVersion):
        reason = "it is the canary no more: another version became the live one, or its record was lost"
        parts.registry.mark(version, "rejected", reason=reason, unless=ALL_BUT_CANARIES)


def _carry_out(parts: TrainerParts, canary: Canary, decision: Decision) -> None:
    """Raises OSError. Whoever changed something meanwhile was quicker, and what they did holds."""
    match decision.action:
        case "advance":
            record.advance(parts.registry, canary, decision.reason)
        case "take back":
            record.end(parts.registry, canary, decision.reason)
        case "promote":
            try:
                parts.registry.promote(canary.version, reason=decision.reason, over=canary.live)
            except InvalidInput as error:
                structlog.get_logger().warning("canary not promoted", version=canary.version, why=str(error))
                return
        case "hold":
            return
    parts.registry.prune("policy", parts.settings.keep_versions)
