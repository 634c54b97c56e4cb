"""The way of a vote: taken, written, shipped to Kafka, read by the trainer, joined to its answer, learned from."""

from scripts.dashboards.spec import COUNTED, NONE_IS_GOOD, Dashboard, Limits, Panel, Row, below, quantiles

TAKEN = Row(
    "Are votes taken?",
    (
        Panel(
            title="Votes by kind",
            what="Acknowledged votes a second, by kind.",
            good="Some, whenever people chat.",
            do="None though people chat: do pages show the buttons, do keys have the role `feedback`?",
            queries={"{{kind}}": f'sum by (kind) (rate(rlhf_feedback_total{{outcome="ok"}}{COUNTED}))'},
            unit="ops",
            stacked=True,
        ),
        Panel(
            title="Votes that were not taken",
            what="Votes a second that were refused, by why.",
            good="0.",
            do="“invalid” is the client's; “busy” a limit; “unavailable” the log's: the panels below.",
            queries={"{{outcome}}": f'sum by (outcome) (rate(rlhf_feedback_total{{outcome!="ok"}}{COUNTED}))'},
            unit="ops",
            stacked=True,
            runbooks=("RlhfFeedbackRefused",),
        ),
        Panel(
            title="Until it is on disk",
            what="From an append to its acknowledgement: the fsync that it shares with others.",
            good="Below 20 ms at 99 % on a local SSD.",
            do="`rlhf-online doctor` measures the disk. A network volume needs a better class.",
            queries=quantiles("rlhf_log_append_seconds"),
            unit="s",
            limits=below(0.1, 1.0),
        ),
        Panel(
            title="Events that the log did not take",
            what="In the time that is shown. Such a vote is not acknowledged, and its client told.",
            good="0.",
            do="A full or read-only disk: the service's log names it.",
            queries={"events": "round(sum(increase(rlhf_log_failures_total{}[$__range])))"},
            unit="none",
            kind="stat",
            limits=NONE_IS_GOOD,
            runbooks=("RlhfEventLogFails", "RlhfDiskFills"),
        ),
        Panel(
            title="Free on the state's disk",
            what="Of the file system that holds log and spool, the fullest one.",
            good="More than 20 %.",
            do="A spool that grows since Kafka is away, or segments that retention keeps.",
            queries={"{{job}} {{pod}}": "min by (job, pod) (rlhf_state_free_bytes{} / rlhf_state_size_bytes{})"},
            unit="percentunit",
            kind="stat",
            limits=Limits("red", ((0.1, "yellow"), (0.2, "green"))),
            width=16,
            most=1,
            runbooks=("RlhfDiskFills",),
        ),
    ),
)

KAFKA = Row(
    "Does Kafka get them?",
    (
        Panel(
            title="Not confirmed by Kafka yet",
            what="Events in the spool of each pod. With the local log there is no Kafka, and this is 0.",
            good="Near 0.",
            do="It grows: Kafka is away or slow. Nothing is lost as long as the disk has room.",
            queries={"{{pod}}": "max by (pod) (rlhf_log_backlog_records{})"},
            unit="short",
            width=12,
            runbooks=("RlhfForwarderStuck", "RlhfSpoolOld"),
        ),
        Panel(
            title="Age of the oldest",
            what="Of the oldest event that Kafka has not confirmed.",
            good="Below a second.",
            do="Minutes: is the broker reachable, do credentials hold (`rlhf-online doctor`)?",
            queries={"{{pod}}": "max by (pod) (rlhf_log_backlog_seconds{})"},
            unit="s",
            limits=below(60, 600),
            width=12,
            runbooks=("RlhfSpoolOld",),
        ),
        Panel(
            title="Confirmed by Kafka",
            what="Events a second that Kafka has confirmed.",
            good="As many as are written.",
            do="0 while the spool grows: the forwarder is stuck or the broker away.",
            queries={"{{pod}}": f"sum by (pod) (rate(rlhf_log_shipped_records_total{{}}{COUNTED}))"},
            unit="ops",
            width=12,
            needs="Kafka",
            runbooks=("RlhfForwarderStuck",),
        ),
        Panel(
            title="Deliveries made again, and refused for good",
            what=(
                "Events a second that Kafka did not confirm in time and that were sent again, and those that it will "
                "never take."
            ),
            good="0; some made again while a broker restarts.",
            do="Refused ones stand in refused.jsonl of the pod, with the reason: too large, or a broken topic.",
            queries={
                "made again": f"sum(rate(rlhf_log_delivery_failures_total{{}}{COUNTED}))",
                "refused": f"sum(rate(rlhf_log_refused_total{{}}{COUNTED}))",
            },
            unit="ops",
            width=12,
            runbooks=("RlhfEventsRefusedByKafka",),
        ),
    ),
)

LEARNED = Row(
    "Does the trainer get them?",
    (
        Panel(
            title="Records not read yet",
            what="How many records of the log the trainer has still to read.",
            good="Near 0 between cycles; it reads once a cycle.",
            do="It grows from cycle to cycle: cycles take longer than votes do to come, see “Learning”.",
            queries={"records": "max(rlhf_trainer_log_lag{})"},
            unit="short",
            runbooks=("RlhfConsumerLag",),
        ),
        Panel(
            title="Age of the oldest record not read",
            what="How far the trainer is behind, in time.",
            good="Below the length of a cycle.",
            do="Hours: votes come faster than they are learned from, or the trainer stands still.",
            queries={"age": "max(rlhf_trainer_log_lag_seconds{})"},
            unit="s",
            runbooks=("RlhfConsumerLag",),
        ),
        Panel(
            title="Votes that met their answers",
            what=(
                "Votes a minute that were joined to the answer that they judge, and those that were given up since it "
                "never came."
            ),
            good="All are joined.",
            do="“orphaned”: the answer's event is lost, or older than the join waits.",
            queries={
                "joined": f"sum(rate(rlhf_trainer_joins_total{{}}{COUNTED})) * 60",
                "orphaned": f"sum(rate(rlhf_trainer_orphans_total{{}}{COUNTED})) * 60",
            },
            unit="none",
            runbooks=("RlhfOrphansRising",),
        ),
        Panel(
            title="Votes by what became of them",
            what="As the ledger says, since the beginning: every vote has one entry.",
            good="“trained” grows, “held_out” with it in its share; “pending” goes up and down.",
            do=(
                "“orphaned”: no answer. “dead_lettered”: cannot be used, see beside. “pending” that only grows: too "
                "few for a cycle, or a stalled trainer."
            ),
            queries={"{{disposition}}": "max by (disposition) (rlhf_trainer_votes{})"},
            unit="short",
            width=16,
            runbooks=("RlhfOrphansRising", "RlhfTrainerStalled"),
        ),
        Panel(
            title="Votes that wait",
            what="Votes taken by chat of which nothing has become yet, and the age of the oldest beside.",
            good="As many as a cycle takes.",
            do="It grows for longer than a cycle: the trainer stands still or lags, see above.",
            queries={"votes": "sum(rlhf_votes_waiting{})"},
            unit="short",
            runbooks=("RlhfTrainerStalled",),
        ),
        Panel(
            title="Age of the oldest vote that waits",
            what="Of the votes taken by chat of which nothing has become yet.",
            good="Below the length of a few cycles.",
            do="Hours: fewer people vote than a cycle needs (`trainer.min_votes`), or nothing is learned.",
            queries={"age": "max(rlhf_votes_waiting_seconds{})"},
            unit="s",
            runbooks=("RlhfTrainerStalled",),
        ),
        Panel(
            title="What cannot be used",
            what="Records and votes that the trainer put aside, by reason, since the beginning.",
            good="None.",
            do=(
                "The folder of dead letters has each with its reason. An unknown schema: the trainer is older than the "
                "chat service."
            ),
            queries={"{{reason}}": "sort_desc(max by (reason) (rlhf_trainer_dead_letters{}))"},
            unit="short",
            kind="table",
            limits=Limits("text", ((1, "yellow"),)),
            runbooks=("RlhfDeadLettersRising",),
        ),
        Panel(
            title="What nothing could be learned from",
            what="Votes a minute that were read and taught nothing, by reason.",
            good="Few. “superseded”, “revised”: people changed their minds, and the last word counts.",
            do=(
                "“single_class”: all thumbs are up, or all down, and which answer is better cannot be told from"
                " them: ask "
                "for comparisons, too. “not_finite”: a lower `trainer.reward.lr`. "
                "“out_of_memory”: `rlhf-online doctor MODEL --plan` says which setting needs less."
            ),
            queries={"{{reason}}": f"sum by (reason) (rate(rlhf_trainer_skipped_total{{}}{COUNTED})) * 60"},
            unit="none",
        ),
        Panel(
            title="How far signals and a model's votes are believed",
            what=(
                "The reliability learned for each signal that is no vote (asked again, rephrased, stopped), for a "
                "model's votes (ai), and for comparisons beside a critic's notes (assisted) and without."
            ),
            good="A judge that helps: ai above a quarter. Notes that help: assisted not below unassisted.",
            do=(
                "At 0 a signal says nothing and weighs nothing. Of ai, below 0: another judge. Of assisted below "
                "unassisted: another critic, or none."
            ),
            queries={"{{signal}}": "max by (signal) (rlhf_trainer_signal_reliability{})"},
            unit="percentunit",
            width=8,
            most=1,
        ),
        Panel(
            title="How people's votes count",
            what=(
                "Who compares answers and is believed, or less than half (doubted); who votes more than their share "
                "(capped); who judges the same answers too much alike."
            ),
            good="Few in a hundred are doubted, nobody is alike.",
            do=(
                "`rlhf-online people standing` says who. Doubted and capped votes count less by themselves. Many "
                "doubted: a client that votes by itself, or a reward model with another taste than people's. "
                "Alike: ask whose keys they are."
            ),
            queries={"{{standing}}": "max by (standing) (rlhf_trainer_people{})"},
            unit="none",
            width=8,
        ),
        Panel(
            title="Prompts cut to the reward model's context",
            what="Answers a minute whose prompt lost its beginning.",
            good="0.",
            do=(
                "Conversations are longer than the reward model's context: a trunk with a longer one "
                "(`trainer.reward.trunk`)."
            ),
            queries={
                "training": f"sum(rate(rlhf_trainer_cut_prompts_total{{}}{COUNTED})) * 60",
                "scoring": f"sum(rate(rlhf_reward_cut_prompts_total{{}}{COUNTED})) * 60",
            },
            unit="none",
            width=8,
        ),
    ),
)

DASHBOARD = Dashboard(
    uid="rlhf-feedback",
    title="rlhf-online · Feedback and Kafka",
    what="The way of a vote: taken, written, shipped, read, joined, learned from.",
    rows=(TAKEN, KAFKA, LEARNED),
)
