"""What serves, how versions get there, and what keeps them from it: swaps, the gate, canaries, people's verdict."""

from scripts.dashboards.spec import COUNTED, NONE_IS_GOOD, Dashboard, Limits, Panel, Row, below, quantiles

SERVING = Row(
    "What serves?",
    (
        Panel(
            title="Versions over time",
            what="On how many pods each version serves.",
            good="One after the other; two for as long as a canary is tried or a swap runs.",
            do="An old one that stays: that pod could not load the new one, see below.",
            queries={"{{version}}": 'count by (version) (rlhf_serving_version_info{version=~"$version"})'},
            unit="none",
            stacked=True,
            width=16,
            runbooks=("RlhfVersionSkew",),
        ),
        Panel(
            title="In memory",
            what=(
                "The versions that the trainer goes on from, policy and reward, and the one that the reward service "
                "scores by."
            ),
            good="The reward service's is the trainer's.",
            do="Different for minutes: the reward service cannot load it, its log says why.",
            queries={
                "trainer: {{policy}}, {{reward}}": "max by (policy, reward) (rlhf_trainer_version_info{})",
                "reward service: {{version}}": "max by (version) (rlhf_reward_version_info{})",
            },
            unit="none",
            kind="stat",
            limits=Limits("blue"),
            legend_only=True,
        ),
        Panel(
            title="Behind the live version",
            what="For how long another version has been live than a pod serves.",
            good="0, and seconds during a swap.",
            do="The pod's engine refuses the version, or the store is slow or away.",
            queries={"{{pod}}": "max by (pod) (rlhf_version_lag_seconds{})"},
            unit="s",
            limits=below(60, 300),
            runbooks=("RlhfVersionSkew",),
        ),
        Panel(
            title="Store of versions silent",
            what="Since when a question to the store of versions has had no answer.",
            good="0.",
            do=(
                "The bucket or volume is away or denies: `rlhf-online versions verify` says which. What serves goes on "
                "serving."
            ),
            queries={"{{pod}}": "max by (pod) (rlhf_version_store_silent_seconds{})"},
            unit="s",
            limits=below(10, 60),
            runbooks=("RlhfVersionStoreAway",),
        ),
        Panel(
            title="Pods that could not serve the live version",
            what=(
                "How many pods the live version does not run on, and how many have left traffic to others since they "
                "lag behind."
            ),
            good="0.",
            do=(
                "`rlhf-online status` names pod and reason. A version that fails on one pod and runs on others: that "
                "pod's disk or memory."
            ),
            queries={
                "could not serve": "sum(rlhf_version_not_servable{})",
                "not ready since behind": "sum(rlhf_pod_behind{})",
                "damaged records": "max(rlhf_damaged_records{})",
            },
            unit="none",
            limits=NONE_IS_GOOD,
            runbooks=("RlhfVersionSkew",),
        ),
    ),
)

SWAPS = Row(
    "Do swaps work?",
    (
        Panel(
            title="Swaps",
            what="Attempts of an engine to load a version, a minute, by outcome.",
            good="Only “ok”.",
            do=(
                "“failed”: the version is marked and not tried again on that pod; `rlhf-online versions show VERSION` "
                "says why."
            ),
            queries={"{{outcome}}": f"sum by (outcome) (rate(rlhf_swaps_total{{}}{COUNTED})) * 60"},
            unit="none",
            kind="bars",
            stacked=True,
            runbooks=("RlhfSwapsFail",),
        ),
        Panel(
            title="Pause of a swap",
            what="How long streams stood still.",
            good="Below 0.5 s.",
            do="Longer: a busy machine, or whole weights of a large model; adapters swap in hundredths of a second.",
            queries=quantiles("rlhf_swap_pause_seconds"),
            unit="s",
            limits=below(0.5, 2.0),
        ),
        Panel(
            title="Engines that ended",
            what="Engine processes started after one had ended, in the time that is shown.",
            good="0.",
            do="The engine's log has its last words; out of memory is the usual cause.",
            queries={"restarts": "round(sum(increase(rlhf_engine_restarts_total{}[$__range])))"},
            unit="none",
            kind="stat",
            limits=Limits("green", ((1, "red"),)),
            runbooks=("RlhfEngineRestarts", "RlhfEngineDown"),
        ),
    ),
)

GATE = Row(
    "What does the gate say?",
    (
        Panel(
            title="Candidates",
            what="Candidates a minute that passed, or were refused: everybody's (policy), and each audience's.",
            good="Most pass.",
            do="All refused: the panel beside names the checks.",
            queries={
                "{{kind}} {{verdict}}": f"sum by (kind, verdict) (rate(rlhf_gate_candidates_total{{}}{COUNTED})) * 60"
            },
            unit="none",
            kind="bars",
            stacked=True,
            runbooks=("RlhfGateRefusesEverything",),
        ),
        Panel(
            title="Objections by check",
            what="How often each check objected, in the time that is shown.",
            good="None, or few and of different checks.",
            do=(
                "One check again and again: `rlhf-online versions report VERSION` shows by how much, and both "
                "versions' answers."
            ),
            queries={
                "{{kind}} {{check}}": "sort_desc(round(sum by"
                ' (kind, check) (increase(rlhf_gate_verdicts_total{verdict="objected"}[$__range]))))',
            },
            unit="none",
            kind="table",
            limits=Limits("green", ((1, "yellow"), (5, "red"))),
            width=8,
            runbooks=("RlhfGateRefusesEverything",),
        ),
        Panel(
            title="Wins of the last candidate",
            what="By the reward model that it was trained with, and by the held-back one, by which the gate judges.",
            good="Both above 0.5, and near each other.",
            do="The first far above the second: the policy learns the reward model's mistakes.",
            queries={
                "held-back": 'max(rlhf_gate_figure{figure="held_back_win_rate"})',
                "trained with": 'max(rlhf_gate_figure{figure="win_rate"})',
            },
            unit="percentunit",
            most=1,
            runbooks=("RlhfRewardsPart",),
        ),
        Panel(
            title="Gain beyond the held-back reward model",
            what=(
                "How much more the last candidate gained by the model that it was trained with, and how much is "
                "allowed."
            ),
            good="Near 0, below the limit.",
            do="Pause learning, read the report.",
            queries={"gap": "max(rlhf_trainer_proxy_gap{})", "limit": "max(rlhf_trainer_proxy_gap_limit{})"},
            unit="none",
            least=None,
            runbooks=("RlhfRewardsPart",),
        ),
        Panel(
            title="What the gate costs",
            what="Share of a cycle's time that the gate takes, the held-back model's update included.",
            good="Below 0.2.",
            do="Fewer `trainer.gate.samples`.",
            queries={"share": "max(rlhf_trainer_gate_share{})"},
            unit="percentunit",
            limits=below(0.2, 0.4),
            most=1,
        ),
        Panel(
            title="Versions by state",
            what="How many policy and reward versions the store has, by state.",
            good="One live; retired ones up to `trainer.keep_versions`.",
            do="Many failed or rejected: the panels above.",
            queries={"{{kind}} {{state}}": "max by (kind, state) (rlhf_versions{})"},
            unit="none",
        ),
    ),
)

PEOPLE = Row(
    "Do people agree with the gate?",
    (
        Panel(
            title="Predictions and people",
            what="Whether what the gate predicts and what people then say have parted.",
            good="Agree.",
            do="Pause learning, and read both models' answers.",
            queries={"": "max(rlhf_gate_prediction_alarm{})"},
            unit="none",
            kind="stat",
            limits=Limits("green", ((1, "red"),)),
            names={0: ("agree", "green"), 1: ("have parted", "red")},
            width=6,
            runbooks=("RlhfPredictionsPart",),
        ),
        Panel(
            title="Versions that both have judged",
            what=(
                "Versions of which the gate has predicted, and people have said, how they compare with the one before."
            ),
            good="It grows: from five on the alarm can ring.",
            do="It stays at 0: too few people vote on each version.",
            queries={"versions": "max(rlhf_gate_prediction_versions{})"},
            unit="none",
            kind="stat",
            width=6,
        ),
        Panel(
            title="Correlation and gap",
            what=(
                "Pearson's r of the predicted and people's win rates over versions; and people's less the predicted, "
                "on average."
            ),
            good="r above 0. The gap is below 0 always: people choose with noise.",
            do="r below 0 over many versions: the gate prefers what people do not.",
            queries={
                "correlation": "max(rlhf_gate_prediction_correlation{})",
                "gap": "max(rlhf_gate_prediction_gap{})",
            },
            unit="none",
            least=-1,
            most=1,
            width=12,
            needs="people's verdict on several versions",
            runbooks=("RlhfPredictionsPart",),
        ),
        Panel(
            title="Canary: share of conversations",
            what="The share of new conversations that the canary answers; 0 without one.",
            good="It rises by steps until the version is promoted.",
            do="It stays: too few people vote. `rlhf-online canary status`.",
            queries={"share": "max(rlhf_canary_share{})"},
            unit="percentunit",
            most=1,
        ),
        Panel(
            title="Canary: evidence",
            what="How strongly people say that the canary is better, or worse, and how strong it must be to decide.",
            good="“better” reaches what is needed first.",
            do="“worse” reaches it: the canary is taken back by itself.",
            queries={
                "{{side}}": "max by (side) (rlhf_canary_evidence{})",
                "needed": "max(rlhf_canary_evidence_needed{})",
            },
            unit="none",
            needs="a canary",
        ),
        Panel(
            title="Canary: preference",
            what="The 95 % confidence sequence of people's preference for it; 0.5 is none.",
            good="It leaves 0.5 upwards.",
            do="Downwards: see which guardrail or which answers (`rlhf-online versions report VERSION`).",
            queries={"{{end}} end": "max by (end) (rlhf_canary_preference{})"},
            unit="percentunit",
            most=1,
            needs="a canary",
        ),
        Panel(
            title="Canary: people and answers",
            what="How many people have judged it, and how many answers it has written in this step.",
            good="Both grow.",
            do="Answers without people: nobody votes on it.",
            queries={"people": "max(rlhf_canary_people{})", "answers": "max(rlhf_canary_answers{})"},
            unit="short",
            width=12,
        ),
        Panel(
            title="Canary: guardrails",
            what=(
                "Share of its answers that ended unfinished, held nothing or took too long, and of its thumbs that "
                "were down."
            ),
            good="As of the live version.",
            do="Beyond `trainer.canary.guardrails` it is taken back by itself.",
            queries={"{{guardrail}}": "max by (guardrail) (rlhf_canary_guardrail_share{})"},
            unit="percentunit",
            most=1,
            width=12,
            needs="a canary",
        ),
    ),
)

DASHBOARD = Dashboard(
    uid="rlhf-versions",
    title="rlhf-online · Versions and gate",
    what="What serves, do swaps work, what does the gate say, do people agree with it?",
    variables=("version",),
    rows=(SERVING, SWAPS, GATE, PEOPLE),
)
