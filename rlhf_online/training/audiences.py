"""The policies of audiences: each learns after the common one, is judged by itself, and is a version of its own kind.

    audiences_left ──▶ the first of them: its part of the checkpoint is the policy in memory
        ▲                  ──▶ answers that its own version gave, scored by its weights ──▶ policy update ──▶ gate
        │                                                                                                      │
        └────────── the common policy is in memory again ◀── published, live or rejected ◀── COMMIT ◀──────────┘

With canaries a version that passed the gate is put before a share of the audience's requests first, if there is one of
its own that answers the others; while that is under way this audience waits, and no other.

A commit names those that are still to learn in the cycle, and the verdict that is still to be published: after a kill
the same audience's update is made again, or its version published, and no other's. Nothing here changes the common
policy, which is what the last checkpoint says of it; nor does what stops one audience stop another.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import structlog

from rlhf_online.errors import InvalidInput, UnknownVersion, VersionCorrupt
from rlhf_online.events import now_ms
from rlhf_online.rewards import audiences
from rlhf_online.rewards.weights import Weights
from rlhf_online.rollout.types import ScoredRollout
from rlhf_online.training import attribution, canary, pause
from rlhf_online.training.checkpoint import CheckpointPart
from rlhf_online.training.commit import commit, part_of, take_back_policy
from rlhf_online.training.experience import POLL_S, SERVED_WITHIN_S
from rlhf_online.training.judging import judge_candidate, learning_blocked
from rlhf_online.training.parts import TrainerParts
from rlhf_online.training.policy_update import PolicyReport
from rlhf_online.training.progress import JudgedVersion, Progress
from rlhf_online.training.serving import follow
from rlhf_online.training.update_metrics import count_verdict
from rlhf_online.versions.manifest import audience_kind, audience_of, kind_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """An audience that learns. `answers`: the version that answers it, an own one or the common one; `live`: the live
    version of its kind, which may have failed, "" for none."""

    name: str
    weights: Weights
    answers: str
    live: str

    @property
    def own(self) -> bool:
        return self.answers == self.live


def due(parts: TrainerParts, progress: Progress) -> list[str]:
    """The audiences that learn in this cycle; what is kept of others is let go of. None while their record is damaged:
    that stops nobody else. Raises Stopped."""
    if parts.settings.tuning != "lora":
        return []
    try:
        known = parts.retrier.call("reading the audiences", lambda: audiences.read(parts.registry.store))
    except InvalidInput as error:
        structlog.get_logger().warning("audiences do not learn", why=str(error))
        return []
    for name in progress.audiences.keys() - known:
        canary.give_up(parts, audience_kind(name), "its audience was removed")
    progress.audiences = {name: version for name, version in progress.audiences.items() if name in known}
    parts.reporter.metrics.gate.keep(["policy", *map(audience_kind, known)])
    return [*known]


def improve(parts: TrainerParts, progress: Progress) -> None:
    """Each of `audiences_left` learns once. Raises Stopped, Fenced."""
    told: dict[str, Any] = {}
    while progress.audiences_left:
        name = progress.audiences_left[0]
        with parts.reporter.phase("audiences"):
            told[name] = _improve(parts, progress, name)
        told[name]["seconds"] = parts.reporter.seconds.pop("audiences")  # the cycle's own have been told
        structlog.get_logger().info("audience", audience=name, **told[name])
        parts.reporter.set(audiences=dict(told))


def finish(parts: TrainerParts, progress: Progress) -> None:
    """Publish what was judged, if a kill came between. Raises Stopped, Fenced."""
    if (judged := progress.judged_audience) is None:
        return
    name, versions = audience_of(kind_of(judged.version)), parts.registry.versions
    published = parts.retrier.call("reading the versions", lambda: judged.version in versions(kind_of(judged.version)))
    if published or not judged.passed:
        _publish(parts, judged)
    elif progress.audiences.get(name) == judged.version:
        with _in_memory(parts, progress, name, judged.version):
            _publish(parts, judged)


def _improve(parts: TrainerParts, progress: Progress, name: str) -> dict[str, Any]:
    """Its update, up to a version or to why there is none."""
    try:
        if why := canary.waits_for(parts, audience_kind(name)):
            return _end(parts, progress, why=why)
        turn = parts.retrier.call("reading an audience", lambda: _turn(parts, progress, name))
        apart, view = _apart(parts, progress, turn)
        if why := pause.WHY if pause.asked(parts) else learning_blocked(apart, view) or _not_served(apart, turn):
            return _end(parts, progress, why=why)
        with _in_memory(parts, progress, name, turn.answers):
            rng = random.Random(f"rollouts {parts.settings.seed} {progress.cycle} {name}")
            scored = _gather(apart, view, turn, rng)
            parts.learners.init_value(turn.weights)
            labels = parts.learners.labels(parts.settings.rollout.per_cycle, rng, turn.weights)
            report = parts.learners.update_policy(scored, labels, parts.reporter.step)
            if report.undone or not report.rollouts:
                return _end(parts, progress, why=report.reason)
            return _judge(apart, progress, view, turn, scored, report)
    except (InvalidInput, VersionCorrupt) as error:
        # It was removed, its weights are of another model's objectives, nobody holds its version, or that is damaged.
        return _end(parts, progress, why=str(error))


def _turn(parts: TrainerParts, progress: Progress, name: str) -> Turn:
    """Raises InvalidInput, OSError."""
    registry = parts.registry
    known = audiences.read(registry.store)
    if name not in known:
        raise InvalidInput(f"{name} is no audience any more")
    objectives = parts.learners.reward.model.objectives
    rules = [of for of in progress.weights if of not in objectives]
    common = registry.live("policy")
    assert common is not None, "a live policy version never goes away"
    return Turn(
        name=name,
        weights=audiences.complete(known[name], progress.weights, objectives, rules),
        answers=audiences.live(registry, name) or common,
        live=registry.live(audience_kind(name)) or "",
    )


def _apart(parts: TrainerParts, progress: Progress, turn: Turn) -> tuple[TrainerParts, Progress]:
    """All as the common policy's update sees it, with the audience's weights, version and answers in its place."""
    weights, apart = turn.weights, parts.held_back
    trained = sum(weights[name] > 0 for name in parts.learners.reward.trained_objectives)
    by_held_back = {} if apart is None else {"trained_objectives": apart.trained_objectives(weights)}
    view = replace(
        progress,
        policy_version=turn.answers,
        weights=weights,
        figures=progress.figures | {"trained_objectives": trained},
        held_back=progress.held_back | by_held_back,
    )
    return replace(parts, experience=parts.experience.of(turn.answers if turn.own else "")), view


def _not_served(parts: TrainerParts, turn: Turn) -> str:
    """Why nobody can be asked for answers by its version, "" once somebody can. One that has been live for longer than
    pods take to hold it is not waited for: no other learns meanwhile. Raises Stopped."""
    prompts, registry = parts.intake.policy_inputs.prompts, parts.registry
    if not prompts:
        return "no answer in the log may train the policy"
    ask = partial(parts.experience.sampler.serving, prompts[-1])
    since_ms = parts.retrier.call("reading a version's state", lambda: registry.status(turn.answers)).changed_ms
    waited_s = max(0.0, (now_ms() - since_ms) / 1000)
    while True:
        try:
            parts.retrier.call("asking whether an audience's version serves", ask)
            return ""
        except UnknownVersion as error:
            if waited_s >= SERVED_WITHIN_S:
                return str(error)
        parts.retrier.sleep(POLL_S)
        waited_s += POLL_S


def _gather(parts: TrainerParts, view: Progress, turn: Turn, rng: random.Random) -> list[ScoredRollout]:
    prompts, samples = parts.intake.policy_inputs.prompts, parts.settings.gate.samples
    grouped = parts.learners.policy.algorithm.needs.groups
    rollouts = parts.experience.gather(prompts, turn.answers, samples, rng, grouped=grouped)
    return parts.experience.score_rollouts(rollouts, view.reward_version, turn.weights, view.rules)


def _judge(
    parts: TrainerParts,
    progress: Progress,
    view: Progress,
    turn: Turn,
    scored: list[ScoredRollout],
    report: PolicyReport,
) -> dict[str, Any]:
    """The gate's verdict, committed, and what follows from it."""
    learned = attribution.by_policy(parts, report, scored, after=turn.answers)
    judged = judge_candidate(parts, view, scored, audience_kind(turn.name))
    judged = replace(judged, over=turn.live, trained_on=learned, traceparent=progress.traceparent)
    if pause.asked(parts):
        return _end(parts, progress, why=pause.WHY)
    if judged.passed:
        progress.audiences = {**progress.audiences, turn.name: judged.version}
    else:
        parts.retrier.call("writing a version", lambda: parts.publisher.stage_weights(judged))
    progress.judged_audience = judged
    told = _end(parts, progress, audience=turn.name if judged.passed else "")
    state = _publish(parts, judged, staged=not judged.passed)
    count_verdict(parts.reporter.metrics.gate, judged)
    progress.judged_audience = replace(judged, report={})  # it stands in the store, where erasures reach it
    figures = {name: judged.figures[name] for name in ("win_rate", "kl") if name in judged.figures}
    return told | {"state": state, "version": judged.version, "why": "; ".join(judged.reasons), **figures}


def _publish(parts: TrainerParts, judged: JudgedVersion, *, staged: bool = False) -> str:
    publish = partial(parts.publisher.publish_policy, judged, staged=staged)
    return parts.retrier.call("publishing an audience's version", publish)


def _end(parts: TrainerParts, progress: Progress, *, audience: str = "", why: str = "") -> dict[str, Any]:
    """Its turn is over: committed, with its policy where that is to stay."""
    progress.audiences_left = progress.audiences_left[1:]
    commit(parts, progress, audience=audience)
    return {"cycle": progress.cycle, "state": "", "version": "", "why": why}


@contextmanager
def _in_memory(parts: TrainerParts, progress: Progress, name: str, version: str) -> Iterator[None]:
    """While the block runs the policy in memory is the audience's, with the weights of `version`; one that has none yet
    begins as the common one, but for the value, which is of other scores."""
    last = parts.checkpoints.last
    assert last is not None, "the first half has committed"
    common = last.part("policy")
    if name in progress.audiences:
        part = last.part(part_of(name))
    else:
        part = CheckpointPart(common.tensors, {**common.values, "value_ready": False})
    begins = progress.audiences.get(name, progress.policy_version)
    try:
        _hold(parts, progress, begins, part)
        parts.learners.restore_policy(part)
        if begins != version:
            follow(parts, version, progress.reference)
        yield
    finally:
        _hold(parts, progress, progress.policy_version, common)
        take_back_policy(parts)


def _hold(parts: TrainerParts, progress: Progress, version: str, part: CheckpointPart) -> None:
    """Have a policy in memory that the part, of that version, fits: whoever promotes versions of his own making may
    give everybody and an audience adapters of different ranks."""
    if not parts.learners.policy.policy.fits(part.tensors):
        follow(parts, version, progress.reference)
