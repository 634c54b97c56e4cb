"""The trainer's part in canaries: it counts what the log says of each, and decides (`rlhf_online.canary`).

Everybody's and those of audiences are counted apart, each by the votes on answers of its own two versions: what an
audience's people say is about its own canary. The trainer is the one to do so since it has the lease and reads the
votes of all pods, in order, and nothing twice. Before the log is read the tallies are those of the canaries which the
store names; what was counted of them stands in the checkpoint with the log position, so that a restarted trainer, which
reads again what came after, counts it once. What a decision does to the store may be repeated: whoever was killed
before or after comes to the same decision from the same votes.
"""

import contextlib
from collections.abc import Iterable

import structlog

from rlhf_online.canary import record
from rlhf_online.canary.decision import Decision, decide, evidence
from rlhf_online.canary.record import ALL_BUT_CANARIES, Canary
from rlhf_online.canary.tally import Tally
from rlhf_online.errors import InvalidInput, UnknownVersion
from rlhf_online.events import now_ms
from rlhf_online.training.parts import TrainerParts
from rlhf_online.training.update_metrics import show_canary, show_no_canary
from rlhf_online.versions.manifest import Kind, audience_kind, audience_of, kind_of


def kinds(parts: TrainerParts, audiences: Iterable[str]) -> list[Kind]:
    """Those that may have a canary: everybody's, and those of `audiences` whose policy has learned."""
    learned = map(audience_kind, audiences) if parts.settings.canary.enabled else ()
    return list(dict.fromkeys(["policy", *parts.intake.canaries, *learned]))


def follow(parts: TrainerParts, kind: Kind = "policy") -> Canary | None:
    """Count for the canary of that kind that is under way from here on; before the log is read. Raises Stopped."""
    canary = parts.retrier.call("reading which version is the canary", lambda: record.under_way(parts.registry, kind))
    tally = parts.intake.canaries.get(kind)
    if tally is not None and (canary is None or canary.version != tally.version):
        ended = tally.version
        parts.retrier.call("ending the canary", lambda: _end_unless_ended(parts, ended))
    if canary is None:
        if tally is not None:
            del parts.intake.canaries[kind]
            _tell_of_none(parts, kind)
        return None
    if tally is None or (tally.version, tally.live) != (canary.version, canary.live):
        tally = parts.intake.canaries[kind] = Tally(canary.version, canary.live)
    tally.step(canary.since_ms)
    return canary


def act(parts: TrainerParts, kind: Kind = "policy") -> None:
    """Do what follows from what was counted, if anything does; after the log was read. Raises Stopped, Fenced."""
    canary = under_way = follow(parts, kind)
    if under_way is None:
        return
    decision = decide(parts.intake.canaries[kind], under_way, parts.settings.canary, now_ms())
    if decision.action != "hold":
        structlog.get_logger().info(
            "canary", action=decision.action, version=under_way.version, share=under_way.share, why=decision.reason
        )
        parts.retrier.call("changing the canary", lambda: _carry_out(parts, under_way, decision))
        parts.reporter.metrics.canary.decisions.labels(decision.action.replace(" ", "_")).inc()
        canary = follow(parts, kind)
    if canary is not None:
        _tell(parts, canary, decision)


def waits_for(parts: TrainerParts, kind: Kind = "policy") -> str | None:
    """Why the policy of that kind does not learn now, None if no canary is under way. Raises Stopped."""
    if (canary := follow(parts, kind)) is None:
        return None
    whose = f" --audience {audience}" if (audience := audience_of(kind)) else ""
    return f"{canary.version} is a canary: `rlhf-online canary status{whose}` tells how it fares"


def give_up(parts: TrainerParts, kind: Kind, why: str) -> None:
    """Nobody gets the canary of that kind any more, if there is one. Raises Stopped."""
    if (canary := follow(parts, kind)) is not None:
        parts.retrier.call("ending the canary", lambda: record.end(parts.registry, canary, why))
        follow(parts, kind)


def _tell(parts: TrainerParts, canary: Canary, decision: Decision) -> None:
    """Metrics are of everybody's: those of one audience would be taken for it."""
    kind = kind_of(canary.version)
    found, answers = evidence(parts.intake.canaries[kind]), parts.intake.canaries[kind].answers
    told = canary.to_json() | found.to_json() | {"answers": answers}
    if audience_of(kind):
        parts.reporter.audience_canary(kind, told)
    else:
        show_canary(parts.reporter.metrics.canary, canary, found, answers)
        parts.reporter.set(canary=told, waiting_for=f"the canary: {decision.reason}")


def _tell_of_none(parts: TrainerParts, kind: Kind) -> None:
    if audience_of(kind):
        parts.reporter.audience_canary(kind, None)
    else:
        show_no_canary(parts.reporter.metrics.canary)
        parts.reporter.set(canary=None, waiting_for="")


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
    parts.registry.prune(kind_of(canary.version), parts.settings.keep_versions)
