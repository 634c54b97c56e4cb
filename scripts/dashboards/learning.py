"""How both models learn: the reward model's quality, the policy's steps, and what a cycle's time goes into."""

from scripts.dashboards.spec import COUNTED, SPREAD, Dashboard, Panel, Row, above, below, quantiles

CYCLE = Row(
    "Does it go on?",
    (
        Panel(
            title="Since the trainer made progress",
            what="Time since it last read the log, made a step or ended a phase.",
            good="Seconds; up to the length of one step of the slowest phase.",
            do=(
                "Minutes: what does it wait for (`rlhf-online status`)? The reward service, chat for rollouts, the "
                "store, the lease."
            ),
            queries={"{{pod}}": "max by (pod) (time() - rlhf_trainer_progress_timestamp_seconds{})"},
            unit="s",
            kind="stat",
            limits=below(120, 600),
            width=6,
            runbooks=("RlhfTrainerStalled",),
        ),
        Panel(
            title="Since the last cycle ended",
            what="Time since a training cycle ended, however it did.",
            good="Shorter than it takes people to give `trainer.min_votes` votes, and a cycle to learn from them.",
            do="Are there votes? “Votes by what became of them” shows how many are pending.",
            queries={"{{pod}}": "max by (pod) (time() - rlhf_trainer_cycle_timestamp_seconds{})"},
            unit="s",
            kind="stat",
            width=6,
            runbooks=("RlhfTrainerStalled",),
        ),
        Panel(
            title="What a cycle's time goes into",
            what=(
                "Share of time in each phase: reward (the reward model's update), held_back, rollouts, policy, gate, "
                "publishing; the rest waits for votes."
            ),
            good="Rollouts and policy have the most; some is left.",
            do="Nothing left: the trainer is the bottleneck, see “Capacity”.",
            queries={"{{phase}}": "sum by (phase) (rate(rlhf_trainer_phase_seconds_sum{}[10m]))"},
            unit="percentunit",
            stacked=True,
            width=12,
        ),
        Panel(
            title="Click to live, by stage",
            what=(
                "Median time from a vote's click to each stage: accepted, joined with its answer, trained on, scored, "
                "gated, and swapped: the next answer is by weights that have learned from it. Each stage counts from "
                "the click."
            ),
            good="“swapped” within a few cycles.",
            do="The stage at which the lines part is the slow one.",
            queries={
                "{{stage}}": f"histogram_quantile(0.5, sum by"
                f" (le, stage) (rate(rlhf_click_to_live_seconds_bucket{{}}{COUNTED})))",
            },
            unit="s",
            log=True,
            least=None,
            width=12,
        ),
        Panel(
            title="Click to live, whole way",
            what="From a vote's click until a version that has learned from it answers.",
            good="As short as the operator promises.",
            do="Fewer votes a cycle (`trainer.min_votes`), or a faster trainer.",
            queries=quantiles("rlhf_click_to_live_seconds", 'stage="swapped"'),
            unit="s",
            width=12,
        ),
    ),
)

REWARD = Row(
    "Is the reward model right?",
    (
        Panel(
            title="On held-out votes",
            what=(
                "Share of comparisons ordered as people did, and the area under the curve for thumbs (0"
                " without any); of the reward "
                "model that trains the policy."
            ),
            good="Well above 0.5, steady.",
            do="Falling: people's taste has changed, or votes are spoiled (`rlhf-online trace --votes VERSION`).",
            queries={
                "accuracy": 'max(rlhf_trainer_reward_held_out{figure="accuracy"})',
                "thumbs, AUC": 'max(rlhf_trainer_reward_held_out{figure="thumb_auc"})',
            },
            unit="percentunit",
            limits=above(0.5, 0.6),
            most=1,
        ),
        Panel(
            title="The held-back one, by which the gate judges",
            what="The same of the reward model that the policy never met.",
            good="As good as the other one.",
            do="Much worse: it learns from a share of the votes; with few votes the gate's word is worth less.",
            queries={
                "accuracy": 'max(rlhf_trainer_held_back_reward_held_out{figure="accuracy"})',
                "thumbs, AUC": 'max(rlhf_trainer_held_back_reward_held_out{figure="thumb_auc"})',
            },
            unit="percentunit",
            limits=above(0.5, 0.6),
            most=1,
        ),
        Panel(
            title="Calibration",
            what="Expected calibration error: how far what it says of its certainty is from how often it is right.",
            good="Below 0.1.",
            do="Higher: its certainty means little, and so do win rates near one half. More epochs make it worse.",
            queries={
                "reward model": 'max(rlhf_trainer_reward_held_out{figure="ece"})',
                "held-back": 'max(rlhf_trainer_held_back_reward_held_out{figure="ece"})',
            },
            unit="none",
            limits=below(0.1, 0.2),
        ),
        Panel(
            title="Where scores stand",
            what=(
                "Where the scores that the reward service gives stand among those of its reference answers: of the last"
                " minutes' scores the lowest tenth, the median and the highest tenth."
            ),
            good="10 %, 50 %, 90 % without drift; higher as the policy learns.",
            do="All near 100 %: the model no longer tells answers apart, or is exploited. Read answers.",
            queries=quantiles("rlhf_reward_score_quantile", at=SPREAD),
            unit="percentunit",
            most=1,
        ),
        Panel(
            title="Drift of the scores",
            what="Population stability index of the last answers' scores against those before.",
            good="Below 0.1: the same distribution. To 0.25: it moves.",
            do="Above 0.25 it is another distribution: read answers before you trust the mean score.",
            queries={"PSI": "max(rlhf_trainer_score_psi{})"},
            unit="none",
            limits=below(0.1, 0.25),
        ),
        Panel(
            title="Where its heads disagree",
            what="Median and 90 % of the spread of an answer's scores over the reward model's heads.",
            good="Steady.",
            do=(
                "It rises: the policy writes what the reward model has not seen. The gate's check “disagreement” "
                "watches this."
            ),
            queries=quantiles("rlhf_reward_spread", at={"median": 0.5, "90 %": 0.9}),
            unit="none",
        ),
        Panel(
            title="What objectives count",
            what="The weight of each objective in a cycle's scores.",
            good="As `rlhf-online reward-weights` was told.",
            do="Weights are changed by that command, from the next cycle on.",
            queries={"{{objective}}": "max by (objective) (rlhf_trainer_objective_weight{})"},
            unit="none",
            width=24,
        ),
    ),
)

POLICY = Row(
    "Does the policy learn without running away?",
    (
        Panel(
            title="KL",
            what="Nats an answer, to the reference and of the last update; and what the gate allows.",
            good="To the reference below the limit; the update's a fraction of a nat to two.",
            do=(
                "A large step is taken back by itself (`trainer.policy.max_step_kl`). At the limit: refresh the "
                "reference."
            ),
            queries={
                "to the reference": "max(rlhf_trainer_kl{})",
                "of the last update": "max(rlhf_trainer_step_kl{})",
                "limit": "max(rlhf_trainer_kl_limit{})",
            },
            unit="none",
            runbooks=("RlhfKlOverLimit",),
        ),
        Panel(
            title="Clipped",
            what="Share of tokens whose ratio the last update clipped.",
            good="Below 0.2.",
            do=(
                "Above 0.3 steps are too long: a lower learning rate or fewer epochs. No value: the algorithm clips "
                "nothing."
            ),
            queries={"clipped": "max(rlhf_trainer_clip_fraction{})"},
            unit="percentunit",
            limits=below(0.2, 0.3),
            most=1,
        ),
        Panel(
            title="Entropy",
            what="Of the policy's next token, in nats, mean over the last update's tokens.",
            good="Falling slowly.",
            do="It drops: answers become the same. Lower the learning rate, raise the KL coefficient.",
            queries={"entropy": "max(rlhf_trainer_entropy_nats{})"},
            unit="none",
        ),
        Panel(
            title="Gradient norm",
            what="Before clipping, mean over the steps of the last update.",
            good="Steady.",
            do="Spikes: spoiled rewards, or a learning rate that is too high.",
            queries={"norm": "max(rlhf_trainer_grad_norm{})"},
            unit="none",
        ),
        Panel(
            title="Advantages",
            what="Of the last update's tokens, before they are whitened: mean, spread, ends.",
            good="A spread well above 0.",
            do="A spread of 0 teaches nothing: all answers of a prompt are worth the same.",
            queries={"{{figure}}": "max by (figure) (rlhf_trainer_advantage{})"},
            unit="none",
            least=None,
        ),
        Panel(
            title="Mismatch of engine and trainer",
            what=(
                "k3 of the log-probabilities that the engine sampled with and those that the trainer computes, mean "
                "over tokens."
            ),
            good="Below 0.001 at lag 0, answers of the live version; more for older ones.",
            do=(
                "Higher at lag 0: other precision or another chat template in the engine; correction by importance "
                "weights hides it only so far."
            ),
            queries={"lag {{lag}}": "max by (lag) (rlhf_trainer_mismatch_k3{})"},
            unit="none",
            limits=below(0.01, 0.1),
            runbooks=("RlhfMismatch",),
        ),
        Panel(
            title="Ratios outside ±0.1",
            what=(
                "Share of the tokens that the trainer finds more than 10 % likelier, or less likely, than the engine "
                "that sampled them, by versions promoted since."
            ),
            good="Below 0.02 at lag 0 in float32, below 0.15 in bfloat16; more for older ones.",
            do="As beside. High at lag 2 and more alone: cycles are short, or steps are long.",
            queries={"lag {{lag}}": "max by (lag) (rlhf_trainer_mismatch_outside{})"},
            unit="percentunit",
            runbooks=("RlhfMismatch",),
            width=6,
        ),
        Panel(
            title="Staleness of rollouts",
            what="How many versions old the answers are that the policy learns from: median and 99 %.",
            good="0 to 2.",
            do=(
                "More is left out (`trainer.rollout.max_staleness`): cycles are too short for the rollouts, or"
                " people's answers come "
                "late."
            ),
            queries=quantiles("rlhf_trainer_rollout_staleness", at={"median": 0.5, "99 %": 0.99}),
            unit="none",
            width=6,
        ),
        Panel(
            title="Answers left out",
            what="Answers that the policy did not learn from, by reason, since the beginning.",
            good="Few.",
            do=(
                "“stale”: too old. “support”, “logprobs”: sampled so that a gradient would be wrong. “singleton”: an "
                "algorithm that compares answers got one of its prompt."
            ),
            queries={"{{reason}}": "max by (reason) (rlhf_trainer_rollouts_left_out{})"},
            unit="none",
            stacked=True,
            width=6,
        ),
        Panel(
            title="Updates",
            what="Policy updates a minute, kept, undone or skipped.",
            good="Kept.",
            do="Undone: the update's KL went beyond `trainer.policy.max_step_kl`. Lower the learning rate.",
            queries={"{{outcome}}": f"sum by (outcome) (rate(rlhf_trainer_updates_total{{}}{COUNTED})) * 60"},
            unit="none",
            kind="bars",
            stacked=True,
            width=6,
        ),
    ),
)

WATCH = Row(
    "Does anything go wrong that a score does not show?",
    (
        Panel(
            title="The watch: how near to an alarm",
            what="Evidence of each monitor, on its own scale: at 1 it raises its alarm; no line where it cannot tell.",
            good="Below 1.",
            do="The monitor's runbook.",
            queries={"{{monitor}}": "max by (monitor) (rlhf_watch_evidence{})"},
            unit="none",
            limits=below(1, 1),
            width=16,
            log=True,
            least=None,
            runbooks=(
                "RlhfPreferencesDrift",
                "RlhfVotesTampered",
                "RlhfVotesPoisoned",
                "RlhfOverOptimised",
                "RlhfAnswersCreep",
                "RlhfSegmentWorse",
                "RlhfSycophancy",
            ),
        ),
        Panel(
            title="Votes let go of",
            what="Votes of before people changed their minds, which are neither replayed nor measured on any more.",
            good="0.",
            do="Is it a change of mind? See the runbook.",
            queries={"votes": 'sum(increase(rlhf_trainer_skipped_total{reason="drifted"}[1d]))'},
            unit="none",
            kind="stat",
            width=8,
            runbooks=("RlhfPreferencesDrift",),
        ),
    ),
)

DASHBOARD = Dashboard(
    uid="rlhf-learning",
    title="rlhf-online · Learning",
    what="Both models: do they go on learning, is the reward model right, does the policy learn without running away?",
    rows=(CYCLE, REWARD, POLICY, WATCH),
)
