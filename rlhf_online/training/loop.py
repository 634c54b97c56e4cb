"""The trainer's loop: votes in, versions out, one cycle after another.

    log ──read──▶ intake ──votes──▶ reward update ──▶ COMMIT 1 ──▶ reward-000007 published, live
                    │      (held back: the gate's)                   │  until the reward service serves it
                    └──live answers──▶ rollouts ◀──fresh── engine    ▼
                                          └─────────────────────▶ scores ─▶ policy ─▶ gate ─▶ COMMIT 2
                                                                                                 │
                             policy-000012 published and promoted (or rejected, with the reason) ◀┘

What waits, and for what: the loop for `min_votes` votes in the log; the second half for the reward service to serve
the reward version of commit 1, then for the engine to serve the live policy version; every step for a service that is
away (`retrier`). Nothing else blocks, and while anything is awaited nothing that was read is lost. While the reward
model is not good enough (`gate.readiness`) cycles end after their first half. With `policy_updates` above 1 as many
cycles have only the second half. After it the policies of audiences learn, one by one (`training.audiences`).

Why a kill anywhere trains exactly once. A commit is one atomic checkpoint: log position, join, buffer, ledger, both
models with their optimisers. Votes are given their disposition in the ledger in memory, and learned from in memory; if
the process dies before commit 1, models, ledger and position are all those of the commit before, and the same votes are
read and learned from again, by weights that have not seen them. After commit 1 they are in the ledger for good, and
a restart goes on with the second half. No version is published before the commit that names it, so there is never one
that learned from votes which the ledger does not hold. What follows a commit, publishing and promoting, may be repeated
freely: names are never given twice, publishing what is there changes nothing, and a version that has left the state
"candidate" is left alone. A name that was reserved and not committed stays unused.

With canaries (`[canary] steps`) a version that passed the gate is promoted, or taken back, only once people have spoken
(`training.canary`). While one is under way votes are read and the reward model learns from them; the policy, which has
the canary's weights in memory already, waits: cycles end after their first half. Nothing but the record in the store
and the tally in the checkpoint, which stands at the checkpoint's log position, is needed to go on after a kill, or with
another trainer.

While an operator has paused learning (`rlhf_online.learning`) votes are read, joined and kept, and no update begins. An
update of the policy that was under way is taken back before it is committed, and its cycle ends; the reward model's,
which holds votes, is completed.

The policy in memory has the weights of `progress.policy_version`. When the live version is another one (an operator
rolled back, or the engine refused a version) the policy is loaded from that before it learns on, and committed, so that
before every update the last checkpoint holds the weights that serve: an update that the gate rejects is taken back from
there. The reward model keeps what it learned either way. A reference that an operator has refreshed is taken up there
too: from then on KL counts from it.
"""

import random
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace

import structlog

from rlhf_online.errors import PositionLost
from rlhf_online.feedback import standing
from rlhf_online.rollout.types import ScoredRollout
from rlhf_online.training import attribution, audiences, canary, pause, resume_checks, watching
from rlhf_online.training.checkpoint import Checkpoint
from rlhf_online.training.commit import commit, commit_intake, mark_consumed, take_back_policy
from rlhf_online.training.cycle_report import end_cycle, end_published_cycle, show, update_facts
from rlhf_online.training.judging import judge_candidate, learning_blocked
from rlhf_online.training.parts import TrainerParts
from rlhf_online.training.policy_update import PolicyReport
from rlhf_online.training.progress import JudgedVersion, Progress
from rlhf_online.training.retrier import Stopped
from rlhf_online.training.serving import serve_policy, serve_reward
from rlhf_online.training.update_metrics import show_answers, show_joined, show_mismatch, show_update
from rlhf_online.versions.manifest import Kind

IDLE_POLL_S = 0.25
COMMIT_RECORDS = 50_000
"""Records read without a cycle after which a checkpoint is written, so that a restart does not read them again."""


class Trainer:
    """One trainer, one thread. `progress` is where it begins; `resume` must come before the first cycle."""

    def __init__(self, parts: TrainerParts, progress: Progress) -> None:
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
        """One cycle, if there are votes enough for it (or a cycle was cut short) and learning is not paused; False if
        there is none."""
        self.parts.retrier.call("asking for the lease", self.parts.lease.check)
        begins = self.progress.next_update == "reward" and not self.progress.audiences_left
        if begins:
            self.read_log()
            needed = self.parts.settings.min_votes if self.progress.reward_version else self.parts.settings.cold_votes
            enough = self.parts.intake.votes.trainable >= needed or self.parts.intake.full
            if pause.asked(self.parts) or not enough:
                if self.parts.intake.uncommitted >= COMMIT_RECORDS:
                    commit_intake(self.parts, self.progress)
                return False
        with self.parts.reporter.traces.cycle("" if begins else self.progress.traceparent):
            if begins:
                self.learn_votes()
            if not self.progress.audiences_left:
                self.improve_policy()
            audiences.improve(self.parts, self.progress)
        return True

    def resume(self, checkpoint: Checkpoint | None) -> None:
        """Go on from a checkpoint: restore everything, and finish what it had committed to publish.

        Raises PositionLost for a checkpoint of another log, VersionCorrupt for one of other models.
        """
        parts = self.parts
        if checkpoint is not None:
            stored = Progress.from_json(checkpoint.state["progress"])
            intake = checkpoint.part("intake", parts.learners.tokenizer.answer_ids)
            parts.intake.restore(intake.values, checkpoint.sealed["answers"])
            resume_checks.check_log_position(stored, self.progress.log_identity, parts.intake, parts.checkpoints.folder)
            resume_checks.check_lineage(stored, parts.registry.references())
            self.progress = stored
            parts.intake.policy_inputs.buffer.restore(checkpoint.state["buffer"])
            parts.experience.curriculum.restore(checkpoint.state.get("curriculum", []))
            parts.learners.restore_reward(checkpoint.part("reward"))
            if parts.held_back is not None and checkpoint.has("held_back"):
                parts.held_back.restore(checkpoint.part("held_back"))
            parts.learners.restore_policy(checkpoint.part("policy"))
            self._log.info("resumed", checkpoint=checkpoint.number, cycle=stored.cycle, next_update=stored.next_update)
        parts.retrier.call("telling what became of votes", parts.outcomes.publish)
        mark_consumed(parts)
        show(parts, self.progress)
        if (judged := self.progress.judged) is not None:
            parts.retrier.call("publishing a version", lambda: parts.publisher.publish_policy(judged, staged=False))
            self.progress.judged = replace(judged, report={})
        audiences.finish(parts, self.progress)

    # First half: the reward model learns from votes

    def read_log(self) -> None:
        """Read what the log holds, and do with the canaries what follows from it. Raises PositionLost."""
        parts = self.parts
        kinds = canary.kinds(parts, self.progress.audiences)
        for kind in kinds:
            canary.follow(parts, kind)
        try:
            if parts.retrier.call("reading the log", parts.intake.read):
                show(parts, self.progress)
            parts.reporter.metrics.progress.set_to_current_time()
            if not parts.intake.full:
                parts.reporter.metrics.intake.caught_up()
            show_joined(parts.reporter, parts.intake.joined_ms)
            parts.intake.joined_ms = []
            parts.outcomes.show()
        except PositionLost:
            # What was read before the gap is kept: the checkpoint stands at the gap, where `gap accept` looks.
            commit_intake(parts, self.progress)
            raise
        erased = parts.intake.votes.erasures.new
        parts.retrier.call("erasing examples of reports", lambda: parts.publisher.reports.erase(erased))
        if erased:
            parts.reporter.name_nobody()
            gone, store = parts.intake.votes.erasures.new_people, parts.registry.store
            parts.retrier.call("forgetting whose votes count otherwise", lambda: standing.forget(store, gone))
        parts.reporter.metrics.intake.lag.set(parts.retrier.call("reading the log", lambda: parts.intake.lag))
        for kind in kinds:
            canary.act(parts, kind)

    def learn_votes(self) -> None:
        """Update the reward models on the votes that wait, and make commit 1."""
        parts, progress = self.parts, self.progress
        with parts.reporter.phase("reward"):
            taken = parts.intake.votes.take()
            progress.traceparent = parts.reporter.traces.took(taken.traces)
            revoked, erased = parts.intake.votes.take_revoked(), parts.intake.votes.erasures.take_new()
            parts.learners.forget(revoked, erased)
            reference = parts.intake.policy_inputs.reference_answers
            report = parts.learners.learn(taken.learned, taken.held_out, reference, parts.reporter.step)
            rules = parts.retrier.call("reading the rules", parts.rules)
            progress.rules = rules.text
            progress.weights = parts.retrier.call("reading the objectives' weights", lambda: parts.weights(rules))
            trained = sum(progress.weights[name] > 0 for name in parts.learners.reward.trained_objectives)
            progress.figures = report.measured.figures() | {"trained_objectives": trained}
            progress.trained_on = attribution.by_reward(report, after=progress.reward_version)
        progress.held_back = {}
        if parts.held_back is not None:
            with parts.reporter.phase("held_back"):
                parts.held_back.forget(revoked, erased)
                apart = parts.held_back.update(taken.held_back, taken.held_out, reference, parts.reporter.step)
                trained = parts.held_back.trained_objectives(progress.weights)
                progress.held_back = apart.measured.figures() | {"trained_objectives": trained}
            parts.reporter.held_back(apart)
        with parts.reporter.phase("reward"):
            progress.reward_version = self._reserve("reward")
            progress.position = dict(parts.intake.position)
            progress.next_update, progress.updates_left = "policy", parts.settings.policy_updates
            for vote in taken.learned:
                word = "trained" if vote.event_id in report.learned else "kept"
                parts.ledger.tell(vote.event_id, vote.person, word, progress.reward_version)
            commit(parts, progress, intake=True, reward=True)
        parts.reporter.traces.learned(progress.reward_version)
        parts.reporter.reward(report, progress.weights)
        store = parts.registry.store
        parts.retrier.call("noting whose votes count otherwise", lambda: standing.write(store, report.standing))
        watching.watch_voters(parts)
        parts.reporter.clicks.trained(vote.created_ms for vote in taken.learned if vote.event_id in report.learned)
        show(parts, progress)

    # Second half: the policy learns from the reward model

    def improve_policy(self) -> None:
        """Update the policy, let the gate judge it, make commit 2, and publish what came of it."""
        parts, progress = self.parts, self.progress
        with parts.reporter.phase("publishing"):
            serve_reward(parts, progress)
            show(parts, progress)
        if pause.asked(parts):
            progress.updates_left = 0
            self._end_without_version("paused", why=pause.WHY)
            return
        if (why := canary.waits_for(parts)) is not None:
            progress.updates_left = 0
            self._end_without_version("waiting", why=why)
            return
        prompts = parts.intake.policy_inputs.prompts
        blocked = learning_blocked(parts, progress)
        if blocked or not prompts:
            progress.updates_left = 0
            self._end_without_version(
                "cold" if blocked else "skipped", why=blocked or "no answer in the log may train the policy"
            )
            return
        with parts.reporter.phase("rollouts"):
            serve_policy(parts, progress, prompts[-1])
            rng = random.Random(f"rollouts {parts.settings.seed} {progress.cycle}")
            scored = self._gather(prompts, rng)
        with parts.reporter.phase("policy"):
            report, value_initialised = self._update(scored, rng)
        if report.undone or not report.rollouts:
            outcome = "undone" if report.undone else "skipped"
            self._end_without_version(outcome, policy=value_initialised, why=report.reason, **update_facts(report))
            return
        with parts.reporter.phase("gate"):
            learned = attribution.by_policy(parts, report, scored, after=progress.policy_version)
            judged = judge_candidate(parts, progress, scored)
            judged = replace(judged, trained_on=learned, traceparent=progress.traceparent)
        if pause.asked(parts):
            take_back_policy(parts)
            self._end_without_version("paused", why=pause.WHY, **update_facts(report))
            return
        with parts.reporter.phase("publishing"):
            state = self._publish(judged)
        outcome = "promoted" if state in ("live", "retired") else "canary" if state == "canary" else "rejected"
        end_published_cycle(parts, progress, outcome, judged, report)

    def _gather(self, prompts: list[tuple[int, ...]], rng: random.Random) -> list[ScoredRollout]:
        parts, progress = self.parts, self.progress
        grouped = parts.learners.policy.algorithm.needs.groups
        rollouts = parts.experience.gather(
            prompts, progress.policy_version, parts.settings.gate.samples, rng, grouped=grouped
        )
        version, weights = progress.reward_version, progress.weights
        scored = parts.experience.score_rollouts(rollouts, version, weights, progress.rules)
        show_answers(parts.reporter, scored, parts.experience.spreads, parts.experience.staleness)
        return scored

    def _update(self, scored: list[ScoredRollout], rng: random.Random) -> tuple[PolicyReport, bool]:
        """The update's report, and whether the value head was initialised for it."""
        parts, progress = self.parts, self.progress
        parts.retrier.check()
        value_initialised = parts.learners.init_value(progress.weights)
        labels = parts.learners.labels(parts.settings.rollout.per_cycle, rng, progress.weights)
        report = parts.learners.update_policy(scored, labels, parts.reporter.step)
        self._count_left_out(report.left_out)
        show_update(parts.reporter.metrics.policy, report)
        show_mismatch(parts.reporter.metrics.mismatch, report, parts.experience.staleness)
        show(parts, progress)
        return report, value_initialised

    def _count_left_out(self, left_out: Mapping[str, int]) -> None:
        """Answers that an update did not learn from, by reason; the counts go on over restarts."""
        counts = self.progress.left_out
        if left_out:
            self._log.warning("answers left out of the policy update", **left_out)
        for reason, number in left_out.items():
            counts[reason] = counts.get(reason, 0) + number

    def _publish(self, judged: JudgedVersion) -> str:
        """Commit the verdict, then act on it; a rejected update is taken back first. Returns the version's state."""
        parts, progress = self.parts, self.progress
        if judged.passed:
            progress.policy_version = judged.version
            watching.watch_line(parts, progress, judged)
            watching.watch_sycophancy(parts)
        else:
            parts.retrier.call("writing a version", lambda: parts.publisher.stage_weights(judged))
            take_back_policy(parts)
        progress.judged = judged
        self._next_cycle(policy=judged.passed, audiences_learn=True)
        staged = not judged.passed
        state = parts.retrier.call(
            "publishing a version", lambda: parts.publisher.publish_policy(judged, staged=staged)
        )
        progress.judged = replace(judged, report={})  # it stands in the store, where people's erasures reach it
        return state

    def _end_without_version(self, outcome: str, *, policy: bool = False, **facts: object) -> None:
        """End a cycle that gave no version; `policy` says that the policy's part has changed all the same."""
        self._next_cycle(policy=policy, audiences_learn=outcome in ("undone", "waiting"))
        end_cycle(self.parts, self.progress, outcome, **facts)

    def _next_cycle(self, *, policy: bool, audiences_learn: bool) -> None:
        progress = self.progress
        progress.audiences_left = audiences.due(self.parts, progress) if audiences_learn else []
        progress.cycle += 1
        progress.updates_left = max(0, progress.updates_left - 1)
        progress.next_update = "policy" if progress.updates_left else "reward"
        commit(self.parts, progress, policy=policy)

    def _reserve(self, kind: Kind) -> str:
        return self.parts.retrier.call("naming a version", lambda: self.parts.registry.reserve(kind))
