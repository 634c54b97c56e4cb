"""Is it learning, is it safe, is it fast: the page to open first."""

from scripts.dashboards.spec import COUNTED, ONE_IS_GOOD, Dashboard, Limits, Panel, Row, above, below, quantiles

LEARNING = Row(
    "Is it learning?",
    (
        Panel(
            title="Serves now",
            what="The version that writes the next answer, and on how many pods.",
            good="One name; a second one for a moment while a swap runs, or for as long as a canary does.",
            do="Two names that stay: see “Versions and gate”. None: no engine is ready, see “Chat”.",
            queries={"{{version}}": "count by (version) (rlhf_serving_version_info{})"},
            unit="none",
            kind="stat",
            limits=Limits("blue"),
            width=6,
            legend_only=True,
            runbooks=("RlhfVersionSkew",),
        ),
        Panel(
            title="Promoted",
            what="Versions that the gate let through, in the time that is shown.",
            good="Some, as long as people vote.",
            do=(
                "None though votes come: look at “What became of cycles”, then at the gate's checks in “Versions and "
                "gate”."
            ),
            queries={"promoted": 'round(sum(increase(rlhf_trainer_cycles_total{outcome="promoted"}[$__range])))'},
            unit="none",
            kind="stat",
            limits=Limits("blue"),
            width=4,
            runbooks=("RlhfGateRefusesEverything",),
        ),
        Panel(
            title="Votes learned from",
            what="Votes that the reward model has taken a step on, since the beginning.",
            good="It grows with every cycle.",
            do="It stands still: is learning paused, does the trainer lag behind the log (“Feedback and Kafka”)?",
            queries={"votes": 'sum(rlhf_trainer_votes{disposition="trained"})'},
            unit="short",
            kind="stat",
            limits=Limits("blue"),
            width=4,
            runbooks=("RlhfTrainerStalled", "RlhfConsumerLag"),
        ),
        Panel(
            title="Learning",
            what="Whether an operator has paused learning.",
            good="Goes on.",
            do=(
                "`rlhf-online learning status` tells who paused it; `rlhf-online learning resume` lets it go on. Votes "
                "wait."
            ),
            queries={"": "max(rlhf_trainer_paused{})"},
            unit="none",
            kind="stat",
            limits=Limits("green", ((1, "yellow"),)),
            names={0: ("goes on", "green"), 1: ("paused", "yellow")},
            width=4,
        ),
        Panel(
            title="Last candidate's wins",
            what=(
                "How often the last candidate's answer was better than the live version's to the same prompt, as the "
                "gate judges."
            ),
            good="Above 0.5.",
            do="Below it the gate refuses. Candidates that keep losing: the reward model may be wrong, see “Learning”.",
            queries={"win rate": "max(rlhf_trainer_win_rate{})"},
            unit="percentunit",
            kind="stat",
            limits=above(0.45, 0.5),
            most=1,
            width=6,
            runbooks=("RlhfGateRefusesEverything",),
        ),
        Panel(
            title="Reward model on held-out votes",
            what=(
                "Share of comparisons, kept apart from learning, that the reward model orders as people did; with the "
                "ends of the 95 % interval."
            ),
            good="Well above 0.5 with its lower end, rising with votes at first, then steady.",
            do=(
                "At 0.5 it guesses: too few votes, or people who contradict each other. The policy does not learn "
                "below `trainer.reward.policy_accuracy`."
            ),
            queries={
                "accuracy": "max(rlhf_trainer_reward_accuracy{})",
                "lower end": 'max(rlhf_trainer_reward_held_out{figure="accuracy_low"})',
                "upper end": 'max(rlhf_trainer_reward_held_out{figure="accuracy_high"})',
            },
            unit="percentunit",
            limits=above(0.5, 0.6),
            most=1,
        ),
        Panel(
            title="Score of fresh answers",
            what="What the reward model gives the policy's own answers, mean of the last update.",
            good="It rises, and people's verdict rises with it.",
            do="It rises while people like less: the policy exploits the reward model. See “Is it safe?”.",
            queries={"mean score": "max(rlhf_trainer_reward{})"},
            unit="none",
            least=None,
            runbooks=("RlhfRewardsPart",),
        ),
        Panel(
            title="What became of cycles",
            what=(
                "Training cycles a minute by how they ended: promoted, rejected by the gate, undone since the update "
                "went too far, cold before the policy may learn."
            ),
            good="Mostly promoted, some rejected.",
            do=(
                "All rejected: “Versions and gate” names the checks. Undone: the learning rate or the KL limit of a "
                "step."
            ),
            queries={"{{outcome}}": f"sum by (outcome) (rate(rlhf_trainer_cycles_total{{}}{COUNTED})) * 60"},
            unit="none",
            kind="bars",
            stacked=True,
            runbooks=("RlhfGateRefusesEverything",),
        ),
    ),
)

SAFE = Row(
    "Is it safe?",
    (
        Panel(
            title="KL to the reference, of what is allowed",
            what="How far the policy has gone from its reference, in nats an answer, and how far the gate lets it go.",
            good="Below the limit, rising slowly.",
            do=(
                "At the limit every version is refused: refresh the reference (`rlhf-online versions "
                "refresh-reference`) or raise `trainer.gate.kl.max`, after reading answers."
            ),
            queries={"KL": "max(rlhf_trainer_kl{})", "limit": "max(rlhf_trainer_kl_limit{})"},
            unit="none",
            runbooks=("RlhfKlOverLimit",),
        ),
        Panel(
            title="Gain by the reward model, beyond the held-back one",
            what=(
                "How much more the last candidate gains by the reward model that it was trained with than by one that "
                "it never met, and how much the gate allows."
            ),
            good="Near 0, well below the limit.",
            do=(
                "At the limit the policy learns the reward model's mistakes. Pause learning, read the gate's report "
                "(`rlhf-online versions report`)."
            ),
            queries={"gap": "max(rlhf_trainer_proxy_gap{})", "limit": "max(rlhf_trainer_proxy_gap_limit{})"},
            unit="none",
            least=None,
            runbooks=("RlhfRewardsPart",),
        ),
        Panel(
            title="Votes refused or lost",
            what="Share of votes that were not acknowledged, by why.",
            good="0. “invalid” is a client's mistake.",
            do="“unavailable” is the log's: “Feedback and Kafka”.",
            queries={
                "{{outcome}}": f'sum by (outcome) (rate(rlhf_feedback_total{{outcome!="ok"}}{COUNTED}))'
                f" / scalar(sum(rate(rlhf_feedback_total{{}}{COUNTED})))"
            },
            unit="percentunit",
            limits=below(0.01, 0.05),
            runbooks=("RlhfFeedbackRefused",),
        ),
        Panel(
            title="Predictions and people",
            what="Whether what the gate predicts and what people then say have parted.",
            good="Agree.",
            do="Pause learning and read both models' answers: people do not like what the gate lets through.",
            queries={"": "max(rlhf_gate_prediction_alarm{})"},
            unit="none",
            kind="stat",
            limits=Limits("green", ((1, "red"),)),
            names={0: ("agree", "green"), 1: ("have parted", "red")},
            width=6,
            runbooks=("RlhfPredictionsPart",),
        ),
        Panel(
            title="Swaps that failed",
            what="Versions that an engine could not load, in the time that is shown.",
            good="0.",
            do=(
                "`rlhf-online versions show VERSION` says why it was not servable; the version before it goes on "
                "serving."
            ),
            queries={"failed": 'round(sum(increase(rlhf_swaps_total{outcome="failed"}[$__range])))'},
            unit="none",
            kind="stat",
            limits=Limits("green", ((1, "red"),)),
            width=6,
            runbooks=("RlhfSwapsFail",),
        ),
        Panel(
            title="Votes without an answer",
            what="Votes whose answer never came out of the log, since the beginning.",
            good="0, or a few after a loss that is known.",
            do="It rises: a pod's log does not reach the trainer, or answers are too old. See “Feedback and Kafka”.",
            queries={"orphaned": 'sum(rlhf_trainer_votes{disposition="orphaned"})'},
            unit="short",
            kind="stat",
            limits=Limits("green", ((1, "yellow"),)),
            width=6,
            runbooks=("RlhfOrphansRising",),
        ),
        Panel(
            title="Secrets",
            what="Whether every pod's state folder holds the secrets in use.",
            good="Intact.",
            do="Damaged: a restart would make people strangers to their own votes. The service's log names the file.",
            queries={"": "min(rlhf_chat_secrets_intact{})"},
            unit="none",
            kind="stat",
            limits=ONE_IS_GOOD,
            names={1: ("intact", "green"), 0: ("damaged", "red")},
            width=6,
            runbooks=("RlhfSecretsDamaged",),
        ),
    ),
)

FAST = Row(
    "Is it fast?",
    (
        Panel(
            title="Requests",
            what="Chat requests a second by how they ended.",
            good="“ok”, and some “aborted” by people who leave.",
            do="“error”, “unavailable”, “late” are ours: “Chat”. “busy” is the limit of what is served at once.",
            queries={"{{outcome}}": f"sum by (outcome) (rate(rlhf_chat_requests_total{{}}{COUNTED}))"},
            unit="reqps",
            stacked=True,
            runbooks=("RlhfChatErrorBudgetBurnsFast",),
        ),
        Panel(
            title="Time to the first token",
            what="From a request's arrival to its first token.",
            good="A median below a second.",
            do="It rises with the queue of the engine: “Capacity”.",
            queries=quantiles("rlhf_chat_first_token_seconds"),
            unit="s",
        ),
        Panel(
            title="From a vote's arrival to its acknowledgement",
            what="How long it takes until a vote is on disk and acknowledged.",
            good="Below 50 ms at 99 %.",
            do="A slow disk (`rlhf-online doctor` measures its fsync), or a log that waits: “Feedback and Kafka”.",
            queries=quantiles("rlhf_log_append_seconds"),
            unit="s",
            runbooks=("RlhfEventLogFails",),
        ),
        Panel(
            title="What is scraped",
            what="Whether Prometheus reaches each service.",
            good="All up.",
            do="`kubectl describe` and the logs of the pod that is down.",
            queries={"{{job}} {{pod}}": 'min by (job, pod) (up{job=~"$service"})'},
            unit="none",
            kind="timeline",
            limits=ONE_IS_GOOD,
            names={1: ("up", "green"), 0: ("down", "red")},
            width=24,
            runbooks=("RlhfServiceGone",),
        ),
    ),
)

DASHBOARD = Dashboard(
    uid="rlhf-overview",
    title="rlhf-online · Overview",
    what="Is it learning, is it safe, is it fast? Each panel's “i” says what is good, and what to do if it is not.",
    variables=("service",),
    rows=(LEARNING, SAFE, FAST),
)
