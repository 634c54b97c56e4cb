"""The trainer's loop: votes in, versions out, one cycle after another.

    log ──read──▶ intake ──votes──▶ reward update ──▶ COMMIT 1 ──▶ reward-000007 published, live
                    │                                                │  until the reward service serves it
                    └──live answers──▶ rollouts ◀──fresh── engine    ▼
                                          └─────────────────────▶ scores ──▶ PPO ──▶ gate ──▶ COMMIT 2
                                                                                                 │
                             policy-000012 published and promoted (or rejected, with the reason) ◀┘

What waits, and for what: the loop for `min_votes` votes in the log; the second half for the reward service to serve
the reward version of commit 1, then for the engine to serve the live policy version; every step for a neighbour that is
away (`retrier`). Nothing else blocks, and while anything is awaited nothing that was read is lost. While the reward
model is not good enough (`gate.doubt`) cycles end after their first half. With `policy_updates` above 1 as many cycles
consist of the second half alone.

Why a kill anywhere trains exactly once. A commit is one atomic checkpoint: log position, join, buffer, ledger, both
models with their optimisers. Votes are given their disposition in the ledger in memory, and learned from in memory; if
the process dies before commit 1, models, ledger and position are all those of the commit before, and the same votes are
read and learned from again, by weights that have not seen them. After commit 1 they are in the ledger for good, and
a restart goes on with the second half. No version is published before the commit that names it, so there is never one
that learned from votes which the ledger does not hold. What follows a commit, publishing and promoting, may be repeated
freely: names are never given twice, publishing what is there changes nothing, and a version that has left the state
"candidate" is left alone. A name that was reserved and not committed stays unused.

The policy in memory has the weights of `progress.policy_version`. When the live version is another one (an operator
rolled back, or the engine refused a version) the policy is loaded from that before it learns on, and committed, so that
before every update the last checkpoint holds the weights that serve: an update that the gate rejects is taken back from
there. The reward model keeps what it learned either way. A reference that an operator has refreshed is taken up there
too: a new line of versions begins, whose KL counts from it.
"""

import random
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import structlog

from rlhf_online import gate
from rlhf_online.config import TrainerSettings
from rlhf_online.errors import LogUnavailable, PositionLost
from rlhf_online.eventlog.gap import Place
from rlhf_online.registry import Kind, Registry
from rlhf_online.rewards.weights import Weights
from rlhf_online.rollout.buffer import ScoredRollout
from rlhf_online.training import recovery
from rlhf_online.training.checkpoint import Checkpoint, Checkpoints, Part
from rlhf_online.training.experience import TEMPERATURE, Experience, Scores
from rlhf_online.training.intake import Intake
from rlhf_online.training.learners import Learners
from rlhf_online.training.lease import Lease
from rlhf_online.training.ledger import Ledger
from rlhf_online.training.policy_update import GROUPED, PolicyReport
from rlhf_online.training.progress import Pending, Progress
from rlhf_online.training.publication import Publisher
from rlhf_online.training.reporter import Reporter
from rlhf_online.training.retrier import Retrier, Stopped

IDLE_POLL_S = 0.25
REWARD_SERVED_WITHIN_S = 10.0
PROBES = 8
COMMIT_RECORDS = 50_000
"""Records read without a cycle after which a checkpoint is written, so that a restart does not read them again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a trainer is made of; `services.trainer.wiring` builds them."""

    settings: TrainerSettings
    lease: Lease
    registry: Registry
    checkpoints: Checkpoints
    ledger: Ledger
    intake: Intake
    learners: Learners
    publisher: Publisher
    experience: Experience
    rewards: Scores
    weights: Callable[[], Weights]
    """What each objective counts now, as the operator says."""
    reporter: Reporter
    retrier: Retrier


class Trainer:
    """One trainer, one thread. `progress` is where it begins; `resume` must come before the first cycle."""

    def __init__(self, parts: Parts, progress: Progress) -> None:
        self.progress = progress
        self.parts = parts
        self._log = structlog.get_logger()

    # Running

    def run(self) -> None:
        """Run cycles until the trainer is asked to stop.

        Raises PositionLost and the like: loud stops; Fenced when another trainer has taken over.
        """
        try:
            while True:
                if not self.run_once():
                    self.parts.retrier.sleep(IDLE_POLL_S)
        except Stopped:
            self._log.info("stopped", cycle=self.progress.cycle)
        except Exception:
            # A successor clears away what this one was writing, and any step may then fail: Fenced is the reason.
            with suppress(OSError):
                self.parts.lease.check()
            raise

    def run_once(self) -> bool:
        """One cycle, if there are votes enough for it (or a cycle was cut short); False if there are not."""
        self.parts.retrier.call("asking for the lease", self.parts.lease.check)
        if self.progress.stage == "votes":
            self._read()
            needed = self.parts.settings.min_votes if self.progress.reward_version else self.parts.settings.cold_votes
            if self.parts.intake.waiting < needed:
                if self.parts.intake.uncommitted >= COMMIT_RECORDS:
                    self._commit_intake()
                return False
            self._learn_votes()
        self._improve_policy()
        return True

    def resume(self, checkpoint: Checkpoint | None) -> None:
        """Go on from a checkpoint: restore everything, and finish what it had committed to publish.

        Raises PositionLost for a checkpoint of another log, VersionCorrupt for one of other models.
        """
        parts = self.parts
        if checkpoint is not None:
            stored = Progress.from_json(checkpoint.state["progress"])
            parts.intake.restore(checkpoint.part("intake").values, checkpoint.sealed["answers"])
            recovery.check_log_position(stored, self.progress.log_identity, parts.intake, parts.checkpoints.folder)
            recovery.check_lineage(stored, parts.registry.references())
            self.progress = stored
            parts.intake.buffer.restore(checkpoint.state["buffer"])
            parts.experience.curriculum.restore(checkpoint.state.get("curriculum", []))
            parts.learners.restore_reward(checkpoint.part("reward"))
            parts.learners.restore_policy(checkpoint.part("policy"))
            self._log.info("resumed", checkpoint=checkpoint.number, cycle=stored.cycle, stage=stored.stage)
        self._release()
        self._report()
        if (pending := self.progress.pending) is not None:
            parts.retrier.call("publishing a version", lambda: parts.publisher.settle(pending, staged=False))

    # First half: the reward model learns from votes

    def _read(self) -> None:
        parts = self.parts
        try:
            if parts.retrier.call("reading the log", parts.intake.read):
                self._report()
        except PositionLost:
            # What was read before the gap is kept: the checkpoint stands at the gap, where `gap accept` looks.
            self._commit_intake()
            raise
        parts.reporter.metrics.lag.set(parts.retrier.call("reading the log", lambda: parts.intake.lag))

    def _learn_votes(self) -> None:
        parts, progress = self.parts, self.progress
        with parts.reporter.phase("reward"):
            votes, held_out = parts.intake.take()
            parts.learners.reward.forget(parts.intake.revoked)
            parts.intake.revoked = []
            report = parts.learners.reward.update(votes, held_out, parts.intake.reference)
            progress.weights = parts.retrier.call("reading the objectives' weights", parts.weights)
            taught = sum(progress.weights[name] > 0 for name in parts.learners.reward.taught)
            progress.figures = report.measured.figures() | {"taught": taught}
            progress.reward_version = self._reserve("reward")
            progress.position = dict(parts.intake.position)
            progress.stage, progress.updates_left = "policy", parts.settings.policy_updates
            self._commit(intake=True, reward=True)
        parts.reporter.reward(report, progress.weights)
        self._report()

    # Second half: the policy learns from the reward model

    def _improve_policy(self) -> None:
        parts, progress = self.parts, self.progress
        with parts.reporter.phase("publishing"):
            self._serve_reward()
        prompts, doubt = parts.intake.prompts, gate.doubt(progress.figures, parts.settings.reward)
        if doubt or not prompts:
            progress.updates_left = 0
            self._conclude("cold" if doubt else "skipped", why=doubt or "no answer in the log may train the policy")
            return
        with parts.reporter.phase("rollouts"):
            self._serve_policy(prompts[-1])
            rng = random.Random(f"rollouts {parts.settings.seed} {progress.cycle}")
            samples = parts.settings.gate.samples
            grouped = parts.learners.policy.algorithm in GROUPED
            rollouts = parts.experience.gather(prompts, progress.policy_version, samples, rng, grouped=grouped)
            scored = parts.experience.score_rollouts(rollouts, progress.reward_version, progress.weights)
        with parts.reporter.phase("ppo"):
            parts.retrier.check()
            begun = parts.learners.init_value(progress.weights)
            labels = parts.learners.labels(parts.settings.rollout.per_cycle, rng, progress.weights)
            report = parts.learners.policy.update(scored, labels)
        self._count(report.left_out)
        self._report()
        if report.undone or not report.rollouts:
            outcome = "undone" if report.undone else "skipped"
            self._conclude(outcome, policy=begun, why=report.reason, **_facts(report))
            return
        with parts.reporter.phase("gate"):
            limit = parts.settings.rollout.max_tokens
            pending = self._examine(gate.baseline(scored, progress.policy_version, TEMPERATURE, samples, limit))
        with parts.reporter.phase("publishing"):
            state = self._publish(pending)
        outcome = "promoted" if state in ("live", "retired") else "rejected"
        self._conclude_published(outcome, pending, report)

    def _count(self, left_out: Mapping[str, int]) -> None:
        """How many answers an update did not learn from, and why; the counts go on over restarts."""
        counts = self.progress.left_out
        if left_out:
            self._log.warning("answers left out of the policy update", **left_out)
        for reason, number in left_out.items():
            counts[reason] = counts.get(reason, 0) + number

    def _serve_reward(self) -> None:
        """Publish the committed reward version and wait until the reward service scores with it.

        A version that the service refused, or that is not the newest, is published again under a new name.
        """
        parts, progress = self.parts, self.progress

        def served() -> bool:
            if not parts.publisher.reward(progress):
                return False
            parts.rewards.wait_for_version(progress.reward_version, REWARD_SERVED_WITHIN_S)
            return True

        while not parts.retrier.call("waiting for the reward service", served):
            progress.reward_version = self._reserve("reward")
            self._commit()
        self._report()

    def _serve_policy(self, prompt: tuple[int, ...]) -> None:
        """Have the live weights in memory, and wait until the engine serves them.

        If an operator has chosen another reference, a new line of versions begins here, at the live one.
        """
        parts, progress = self.parts, self.progress
        while True:
            live, reference = parts.registry.live("policy"), parts.registry.references()[-1]
            assert live is not None, "a live policy version never goes away"
            if (live, reference) != (progress.policy_version, progress.reference):
                new_line = reference != progress.reference
                if live != progress.policy_version:
                    self._log.warning("the live version is another one", live=live, in_memory=progress.policy_version)
                if new_line:
                    self._log.warning(
                        "a new line begins: KL counts anew", reference=reference, before=progress.reference
                    )
                path = parts.registry.path
                parts.learners.follow(path(live), path(reference), new_line=new_line)
                progress.policy_version, progress.reference = live, reference
                self._commit(policy=True)
            if parts.experience.wait_until_served(live, prompt):
                return

    def _examine(self, live: list[ScoredRollout]) -> Pending:
        """The candidate in memory against the live version: its verdict, and what its manifest will say."""
        parts, progress = self.parts, self.progress
        settings, learners = parts.settings, parts.learners
        seed, limit = settings.seed + progress.cycle, settings.rollout.max_tokens
        verdict = gate.examine(
            live,
            settings.gate,
            max_tokens=limit,
            sample=lambda prompts: learners.sample(prompts, max_tokens=limit, temperature=TEMPERATURE, seed=seed),
            score=lambda pairs: parts.experience.score(pairs, progress.reward_version, progress.weights),
            kl_of=learners.kl,
        )
        return Pending(
            version=self._reserve("policy"),
            tuning=settings.tuning,
            parent=progress.policy_version,
            reward_version=progress.reward_version,
            kl=verdict.figures["kl"],
            position=dict(progress.position),
            probe=learners.probe(parts.intake.prompts[-PROBES:], max_tokens=limit, seed=seed),
            passed=verdict.passed,
            reasons=verdict.reasons,
            figures=verdict.figures,
            reference=progress.reference,
            weights=dict(progress.weights),
        )

    def _publish(self, pending: Pending) -> str:
        """Commit the verdict, then act on it; a rejected update is taken back first. Returns the version's state."""
        parts, progress = self.parts, self.progress
        if pending.passed:
            progress.policy_version = pending.version
        else:
            parts.retrier.call("writing a version", lambda: parts.publisher.stage_rejected(pending))
            before = parts.checkpoints.last
            assert before is not None, "the first half has committed"
            parts.learners.restore_policy(before.part("policy"))
        progress.pending = pending
        self._next_cycle(policy=pending.passed)
        staged = not pending.passed
        return parts.retrier.call("publishing a version", lambda: parts.publisher.settle(pending, staged=staged))

    def _conclude(self, outcome: str, *, policy: bool = False, **facts: object) -> None:
        """End a cycle that gave no version; `policy` says that the policy's part has changed all the same."""
        self._next_cycle(policy=policy)
        self._finish(outcome, **facts)

    def _conclude_published(self, outcome: str, pending: Pending, report: PolicyReport) -> None:
        metrics = self.parts.reporter.metrics
        metrics.kl.set(pending.kl)
        metrics.win_rate.set(pending.figures.get("win_rate", 0.0))
        metrics.step_kl.set(report.step_kl)
        metrics.reward.set(report.score)
        if outcome == "promoted":
            self.parts.reporter.set(kl=pending.kl)
        facts = _facts(report) | {
            "kl": pending.kl,
            "gate": pending.figures,
            "win_rate": pending.figures.get("win_rate"),
        }
        self._finish(outcome, policy_version=pending.version, reasons=list(pending.reasons), **facts)

    def _finish(self, outcome: str, **facts: object) -> None:
        self._report()
        progress, reporter = self.progress, self.parts.reporter
        common = {"cycle": progress.cycle, "reward_version": progress.reward_version, "position": progress.position}
        reporter.cycle(outcome, **{**common, "reward_accuracy": reporter.accuracy, **facts})

    def _reserve(self, kind: Kind) -> str:
        return self.parts.retrier.call("naming a version", lambda: self.parts.registry.reserve(kind))

    # Committing

    def _next_cycle(self, *, policy: bool = False) -> None:
        progress = self.progress
        progress.cycle += 1
        progress.updates_left = max(0, progress.updates_left - 1)
        progress.stage = "policy" if progress.updates_left else "votes"
        self._commit(policy=policy)

    def _commit_intake(self) -> None:
        """Keep what was read, without a cycle."""
        self.progress.position = dict(self.parts.intake.position)
        self._commit(intake=True)

    def _commit(self, *, intake: bool = False, reward: bool = False, policy: bool = False) -> None:
        """Write a checkpoint, for as long as it takes; the flags say which parts have changed since the last one."""
        parts = self.parts
        first = parts.checkpoints.last is None

        def save() -> None:
            contents: dict[str, Part | None] = {
                "intake": Part({}, parts.intake.to_json()) if intake or first else None,
                "reward": parts.learners.reward_part() if reward or first else None,
                "policy": parts.learners.policy_part() if policy or first else None,
            }
            state = {
                "progress": self.progress.to_json(),
                "buffer": parts.intake.buffer.to_json(),
                "curriculum": parts.experience.curriculum.to_json(),
            }
            sealed = {
                "ledger": parts.ledger.seal(parts.checkpoints.ledger_folder),
                "answers": parts.intake.join.answers.seal(),
            }
            place = Place(self.progress.log_identity, self.progress.position)
            parts.checkpoints.save(state, contents, sealed, place)

        parts.retrier.call("setting dead letters aside", parts.intake.set_aside)
        parts.retrier.call("writing a checkpoint", save)
        self._release()

    def _release(self) -> None:
        """Tell the log what no checkpoint needs any more; a failure only keeps it there for longer."""
        try:
            self.parts.intake.release(self.parts.checkpoints.position())
        except LogUnavailable as error:
            self._log.warning("the log was not told what is consumed", why=str(error))

    def _report(self) -> None:
        parts, progress = self.parts, self.progress
        counts = parts.ledger.counts()
        votes = {name: counts[name] for name in counts if name != "rollout"}
        parts.reporter.votes(votes | {"pending": parts.intake.pending})
        parts.reporter.dead_letters(parts.intake.dead_letters)
        buffer = parts.intake.buffer
        left_out = Counter(stale=buffer.dropped_stale, full=buffer.dropped_full)
        left_out.update(parts.intake.left_out)
        left_out.update(progress.left_out)
        parts.reporter.left_out(left_out)
        parts.reporter.versions(progress.policy_version, progress.reward_version)
        parts.reporter.set(cycle=progress.cycle)


def _facts(report: PolicyReport) -> dict[str, Any]:
    return report.stats | {
        "algorithm": report.algorithm,
        "kl_before": report.kl,
        "kl_coef": report.kl_coef,
        "step_kl": report.step_kl,
        "score": report.score,
        "length": report.length,
        "behaviour_k3": report.behaviour_k3,
        "rollouts": report.rollouts,
    }
