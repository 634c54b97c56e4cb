"""What services/trainer tells: the log that it reads, both updates, the gate and the canary."""

import math
import time
from collections.abc import Collection
from itertools import product

from prometheus_client import CollectorRegistry

from rlhf_online.metrics import labels
from rlhf_online.metrics.buckets import PHASE_S, VERSIONS
from rlhf_online.metrics.catalogue import Catalogue
from rlhf_online.metrics.shared import click_to_live


class TrainerMetrics:
    """What services/trainer counts. Large because every metric of the service is an attribute."""

    def __init__(self, registry: CollectorRegistry) -> None:
        made = Catalogue(registry)
        self.registry = registry
        self.cycles = made.counter("rlhf_trainer_cycles", "Training cycles by outcome.", labels.CYCLE)
        self.cycle_end = made.gauge(
            "rlhf_trainer_cycle_timestamp_seconds", "When the last cycle ended; 0 before the first since the start."
        )
        self.phase = made.histogram("rlhf_trainer_phase_seconds", "Time of a cycle's phases.", PHASE_S, labels.PHASE)
        self.progress = made.gauge(
            "rlhf_trainer_progress_timestamp_seconds",
            "When the trainer last read the log, made a step or ended a phase; not while it waits for what is away.",
        )
        self.paused = made.gauge("rlhf_trainer_paused", "1 while an operator has paused learning.", unit="0 or 1")
        self.serving = made.gauge(
            "rlhf_trainer_version_info", "1 for the versions in memory.", labels.POLICY, labels.REWARD
        )
        self.to_live = click_to_live(made)
        self.intake = IntakeMetrics(registry)
        self.reward_model = RewardModelMetrics(registry)
        self.policy = PolicyMetrics(registry)
        self.mismatch = MismatchMetrics(registry)
        self.gate = GateMetrics(registry)
        self.canary = CanaryMetrics(registry)
        self.watch = WatchMetrics(registry)
        parts = (self.intake, self.reward_model, self.policy, self.mismatch, self.gate, self.canary, self.watch)
        self.entries = [*made.entries, *(entry for part in parts for entry in part.entries)]


class IntakeMetrics:
    """What was read of the log, and what became of it."""

    def __init__(self, registry: CollectorRegistry) -> None:
        made = Catalogue(registry)
        self.lag = made.gauge("rlhf_trainer_log_lag", "Records of the log not read yet.", unit="records")
        self.lag_s = made.gauge(
            "rlhf_trainer_log_lag_seconds",
            "Since when the trainer has not read the log to its end: what is not read yet is no older.",
        )
        self.caught_up()
        self.lag_s.set_function(lambda: time.monotonic() - self._caught_up_s)
        self.votes = made.gauge("rlhf_trainer_votes", "Votes, as the ledger says.", labels.DISPOSITION, unit="votes")
        self.joins = made.counter("rlhf_trainer_joins", "Votes joined with all answers that they judge.", unit="votes")
        self.orphans = made.counter(
            "rlhf_trainer_orphans", "Votes whose answer did not come to the log in time.", unit="votes"
        )
        self.dead_letters = made.gauge(
            "rlhf_trainer_dead_letters", "Records and votes that cannot be used.", labels.DEAD_LETTER, unit="records"
        )
        for disposition in labels.DISPOSITION.values:
            self.votes.labels(disposition)
        for reason in labels.DEAD_LETTER.values:
            self.dead_letters.labels(reason)
        self.entries = made.entries

    def caught_up(self) -> None:
        """The log has been read to its end."""
        self._caught_up_s = time.monotonic()


class RewardModelMetrics:
    """The reward model's updates, its evaluation, and the scores that it gives the policy's answers."""

    def __init__(self, registry: CollectorRegistry) -> None:
        made = Catalogue(registry)
        self.loss = made.gauge("rlhf_trainer_reward_loss", "Loss of the last update's best pass.", unit="nats a vote")
        self.accuracy = made.gauge(
            "rlhf_trainer_reward_accuracy", "Share of held-out comparisons ordered rightly.", unit="0 to 1"
        )
        self.held_out = made.gauge(
            "rlhf_trainer_reward_held_out",
            "The reward model on held-out votes: accuracy, ece, thumb_auc, …, with the ends of 95 % intervals.",
            labels.FIGURE,
            unit="0 to 1; `…_n` votes",
        )
        self.held_back = made.gauge(
            "rlhf_trainer_held_back_reward_held_out",
            "The same of the held-back reward model, by which the gate judges.",
            labels.FIGURE,
            unit="0 to 1; `…_n` votes",
        )
        self.reliability = made.gauge(
            "rlhf_trainer_signal_reliability",
            "How far implicit signals are believed, votes that no person gave (ai, below 0 where they say the contrary "
            "of people's), and people's comparisons beside a critic's notes (assisted) and without.",
            labels.SIGNAL,
            unit="-1 to 1",
        )
        self.people = made.gauge(
            "rlhf_trainer_people",
            "How people's votes count: who compares answers and is believed, or less than half (doubted); who votes "
            "more than their share (capped); who judges the same answers too much alike.",
            labels.STANDING,
            unit="people",
        )
        self.weights = made.gauge(
            "rlhf_trainer_objective_weight",
            "What an objective counts in this cycle's scores.",
            labels.OBJECTIVE,
            unit="weight",
        )
        self.skipped = made.counter(
            "rlhf_trainer_skipped", "What nothing could be learned from, by reason.", labels.SKIPPED, unit="votes"
        )
        self.cut = made.counter(
            "rlhf_trainer_cut_prompts",
            "Answers whose prompt lost its beginning to the reward model's context.",
            unit="answers",
        )
        self.spread = made.gauge(
            "rlhf_trainer_score_spread",
            "How far the ensemble's members are apart about the last cycle's answers, mean.",
            unit="standard deviations of the reference answers' scores",
        )
        self.psi = made.gauge(
            "rlhf_trainer_score_psi",
            "Drift of the score distribution: population stability index of the last answers' scores against those "
            "before (`training/score_drift.py`); below 0.1 none, above 0.25 much; NaN before there are enough.",
            unit="nats",
        )
        self.psi.set(math.nan)
        self.entries = made.entries


class PolicyMetrics:
    """The policy's updates. Figures are the last update's, NaN where its algorithm has no such thing. Large because
    each metric is an attribute."""

    def __init__(self, registry: CollectorRegistry) -> None:
        made = Catalogue(registry)
        self.updates = made.counter(
            "rlhf_trainer_updates", "Policy updates by algorithm, and how they ended.", labels.ALGORITHM, labels.UPDATE
        )
        self.undone = made.counter("rlhf_trainer_undone_updates", "Policy updates taken back.")
        self.kl = made.gauge("rlhf_trainer_kl", "KL of the last candidate to the reference.", unit="nats an answer")
        self.kl_limit = made.gauge(
            "rlhf_trainer_kl_limit", "Above which KL the gate refuses a candidate (gate.kl.max).", unit="nats an answer"
        )
        self.step_kl = made.gauge("rlhf_trainer_step_kl", "KL from before to after it.", unit="nats an answer")
        self.kl_coef = made.gauge("rlhf_trainer_kl_coef", "β, the weight of the KL to the reference.", unit="weight")
        self.reward = made.gauge(
            "rlhf_trainer_reward",
            "Mean score of its answers.",
            unit="standard deviations of the reference answers' scores",
        )
        self.answers = made.gauge("rlhf_trainer_rollouts", "Answers that it learned from.", unit="answers")
        self.loss = made.gauge("rlhf_trainer_policy_loss", "The policy's loss, mean over its steps.", unit="loss")
        self.clip_fraction = made.gauge(
            "rlhf_trainer_clip_fraction", "Share of the tokens whose ratio was clipped.", unit="0 to 1"
        )
        self.grad_norm = made.gauge(
            "rlhf_trainer_grad_norm", "Norm of the gradient before it is clipped, mean over its steps.", unit="norm"
        )
        self.entropy = made.gauge(
            "rlhf_trainer_entropy_nats",
            "Entropy of what its answers were sampled from, estimated by -log p of their tokens.",
            unit="nats a token",
        )
        self.advantage = made.gauge(
            "rlhf_trainer_advantage", "Advantages of its tokens, before whitening.", labels.ADVANTAGE, unit="reward"
        )
        self.behaviour_k3 = made.gauge(
            "rlhf_trainer_behaviour_k3",
            "KL between what its answers were sampled from and the policy as it begins, k3: staleness, or engine and "
            "trainer computing differently.",
            unit="nats a token",
        )
        self.staleness = made.histogram(
            "rlhf_trainer_rollout_staleness",
            "Versions promoted between the one that wrote an answer and the live one, of answers taken for updates.",
            VERSIONS,
            unit="versions",
        )
        self.left_out = made.gauge(
            "rlhf_trainer_rollouts_left_out",
            "Answers that the policy did not learn from: too old, too many, or unusable.",
            labels.LEFT_OUT,
            unit="answers",
        )
        self.entries = made.entries


class MismatchMetrics:
    """How far engine and trainer are apart about the last update's answers."""

    def __init__(self, registry: CollectorRegistry) -> None:
        made = Catalogue(registry)
        self.k3 = made.gauge(
            "rlhf_trainer_mismatch_k3",
            "KL between what the last update's answers were sampled from and what the trainer makes of them, k3, by "
            "how many versions were promoted since: at lag 0 engine and trainer computing differently; NaN where there "
            "were no such answers.",
            labels.LAG,
            unit="nats a token",
        )
        self.outside = made.gauge(
            "rlhf_trainer_mismatch_outside",
            "Share of the tokens that the policy makes more than 10 % likelier, or less likely, than they were sampled "
            "with, likewise.",
            labels.LAG,
            unit="0 to 1",
        )
        self.limit = made.gauge(
            "rlhf_trainer_mismatch_k3_limit",
            "Above which k3 at lag 0 engine and trainer disagree (rollout.max_mismatch).",
            unit="nats a token",
        )
        self.entries = made.entries


class GateMetrics:
    """Candidates before the gate: verdicts of every kind, figures of the common policy's alone."""

    def __init__(self, registry: CollectorRegistry) -> None:
        made = Catalogue(registry)
        self.candidates = made.counter(
            "rlhf_gate_candidates",
            "Candidates judged, everybody's and audiences', by verdict.",
            labels.JUDGED,
            labels.CANDIDATE,
        )
        self.verdicts = made.counter(
            "rlhf_gate_verdicts", "What each check said of them.", labels.JUDGED, labels.CHECK, labels.VERDICT
        )
        self._counted = (
            (self.candidates, [*product(labels.CANDIDATE.values)]),
            (self.verdicts, [*product(labels.CHECK.values, labels.VERDICT.values)]),
        )
        self._kinds: frozenset[str] = frozenset()
        self.keep(("policy",))
        self.figure = made.gauge(
            "rlhf_gate_figure",
            "What the checks measured of everybody's last one; a check's documentation says what it means.",
            labels.GATE_FIGURE,
            unit="the figure's own",
        )
        self.win_rate = made.gauge(
            "rlhf_trainer_win_rate", "Wins of everybody's last candidate over the live one.", unit="0 to 1"
        )
        self.proxy_gap = made.gauge(
            "rlhf_trainer_proxy_gap",
            "What everybody's last candidate gained by its own reward model beyond what it gained by the held-back "
            "one; NaN where that could not be told.",
            unit="standard deviations of the live version's scores",
        )
        self.proxy_gap.set(math.nan)
        self.proxy_gap_limit = made.gauge(
            "rlhf_trainer_proxy_gap_limit",
            "Above which gap the gate refuses a candidate (gate.proxy_gap.max).",
            unit="standard deviations of the live version's scores",
        )
        self.share = made.gauge(
            "rlhf_trainer_gate_share",
            "What the gate takes of a cycle's time, the held-back model's update included.",
            unit="0 to 1",
        )
        self.entries = made.entries

    def keep(self, kinds: Collection[str]) -> None:
        """Candidates of these kinds are judged from now on: each series of a new one stands at 0, so that its first
        verdict is seen; those of others go."""
        for metric, others in self._counted:
            for kind, values in product(self._kinds.difference(kinds), others):
                metric.remove(kind, *values)
            for kind, values in product(frozenset(kinds) - self._kinds, others):
                metric.labels(kind, *values)
        self._kinds = frozenset(kinds)


class CanaryMetrics:
    """The canary, and what people said of it so far: 0, and no version, where there is none."""

    def __init__(self, registry: CollectorRegistry) -> None:
        made = Catalogue(registry)
        self.version = made.gauge(
            "rlhf_canary_info", "1 for the canary, and what it is compared with.", labels.CANARY, labels.CANARY_OVER
        )
        self.began = made.gauge("rlhf_canary_began_timestamp_seconds", "When it became the canary.")
        self.share = made.gauge("rlhf_canary_share", "Share of the conversations that it answers.", unit="0 to 1")
        self.answers = made.gauge("rlhf_canary_answers", "Its answers since this step began.", unit="answers")
        self.people = made.gauge("rlhf_canary_people", "People counted, each once.", unit="people")
        self.evidence = made.gauge(
            "rlhf_canary_evidence",
            "Evidence that people find it better, or worse, than the live version: what a fair bet against that has "
            "made of 1.",
            labels.CANARY_SIDE,
            unit="ratio",
        )
        self.needed = made.gauge(
            "rlhf_canary_evidence_needed", "Evidence at which it is promoted, or taken back: 1/alpha.", unit="ratio"
        )
        self.preference = made.gauge(
            "rlhf_canary_preference",
            "Ends of the 95 % confidence sequence of people's preference for it; 0.5 is none.",
            labels.CANARY_END,
            unit="0 to 1",
        )
        self.guardrail = made.gauge(
            "rlhf_canary_guardrail_share",
            "Share of its answers that ended unfinished, held nothing, took too long, or of its thumbs that were down; "
            "NaN before there are any.",
            labels.GUARDRAIL,
            unit="0 to 1",
        )
        self.decisions = made.counter(
            "rlhf_canary_decisions",
            "What was done with canaries, everybody's and audiences', for what people said.",
            labels.CANARY_ACTION,
        )
        self.entries = made.entries


class WatchMetrics:
    """What the watch on what goes wrong says (docs/operate.md, "The watch")."""

    def __init__(self, registry: CollectorRegistry) -> None:
        made = Catalogue(registry)
        self.evidence = made.gauge(
            "rlhf_watch_evidence",
            "How near to its alarm each monitor is; 1 and more raises it, NaN where it cannot tell.",
            labels.MONITOR,
            unit="ratio",
        )
        for monitor in labels.MONITOR.values:
            self.evidence.labels(monitor).set(math.nan)
        self.entries = made.entries
