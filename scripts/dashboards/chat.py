"""What people who chat notice: errors, waiting, limits."""

from scripts.dashboards.spec import COUNTED, NONE_IS_GOOD, ONE_IS_GOOD, Dashboard, Panel, Row, below, quantiles

OURS = 'outcome=~"error|unavailable|late"'
"""Outcomes that spend the error budget, as docs/runbooks/RlhfChatErrorBudgetBurnsFast.md has it."""
MEANT = 'outcome=~"ok|aborted|error|unavailable|late"'

ANSWERED = Row(
    "Are people answered?",
    (
        Panel(
            title="Engine",
            what="Whether every pod's engine serves a version.",
            good="Ready.",
            do="It loads for a minute or two after a start. For longer: the engine's log, and `/readyz` of the pod.",
            queries={"": "min(rlhf_engine_ready{})"},
            unit="none",
            kind="stat",
            limits=ONE_IS_GOOD,
            names={1: ("ready", "green"), 0: ("not ready", "red")},
            width=6,
            runbooks=("RlhfEngineDown", "RlhfEngineNotReady"),
        ),
        Panel(
            title="Failed by our fault",
            what="Share of requests that ended as 500, 503 or 504, in the time that is shown. The objective is 0.5 %.",
            good="Below 0.5 %.",
            do=(
                "The panels below tell which: “unavailable” is the engine or the log, “late” an answer beyond its "
                "time, “error” a defect."
            ),
            queries={
                "failed": f"sum(increase(rlhf_chat_requests_total{{{OURS}}}[$__range]))"
                f" / sum(increase(rlhf_chat_requests_total{{{MEANT}}}[$__range]))"
            },
            unit="percentunit",
            kind="stat",
            limits=below(0.001, 0.005),
            width=6,
            runbooks=("RlhfChatErrorBudgetBurnsFast", "RlhfChatErrorBudgetBurnsSlowly"),
        ),
        Panel(
            title="In progress",
            what="Requests that are being answered.",
            good="Below what the service takes at once (`chat.limits`).",
            do="At the limit further ones are refused as busy: more pods.",
            queries={"requests": "sum(rlhf_chat_requests_in_progress{})"},
            unit="none",
            kind="stat",
            width=6,
        ),
        Panel(
            title="Defects",
            what="Requests that ended with an exception nobody expected, in the time that is shown.",
            good="0.",
            do="The service's log has the place under the id that the client was told. Report it.",
            queries={"defects": "round(sum(increase(rlhf_chat_internal_errors_total{}[$__range])))"},
            unit="none",
            kind="stat",
            limits=NONE_IS_GOOD,
            width=6,
            runbooks=("RlhfInternalErrors",),
        ),
        Panel(
            title="Requests by outcome",
            what="Chat requests a second by how they ended.",
            good="“ok”; “aborted” are people who left.",
            do=(
                "“invalid”: clients' mistakes. “busy”: too many at once. “unavailable”: no engine, or a log that takes "
                "nothing. “late”: beyond `chat.limits.answer_timeout_s`. “cross_origin”: `chat.allowed_hosts`."
            ),
            queries={"{{outcome}}": f"sum by (outcome) (rate(rlhf_chat_requests_total{{}}{COUNTED}))"},
            unit="reqps",
            stacked=True,
            width=12,
            runbooks=("RlhfChatErrorBudgetBurnsFast",),
        ),
        Panel(
            title="Share that fails by our fault",
            what="Share of requests that end as 500, 503 or 504, now.",
            good="0 nearly always; 0.5 % over 30 days is the budget.",
            do="At 7 % the month's budget is gone in two days: somebody is paged.",
            queries={
                "failed": f"sum(rate(rlhf_chat_requests_total{{{OURS}}}{COUNTED}))"
                f" / sum(rate(rlhf_chat_requests_total{{{MEANT}}}{COUNTED}))"
            },
            unit="percentunit",
            limits=below(0.005, 0.072),
            width=12,
            runbooks=("RlhfChatErrorBudgetBurnsFast",),
        ),
    ),
)

WAITING = Row(
    "How long do they wait?",
    (
        Panel(
            title="Time to the first token",
            what="From a request's arrival to its first token, waiting for the engine and for a swap included.",
            good="A median below a second.",
            do="Compare with the engine's own time below: the difference is ours.",
            queries=quantiles("rlhf_chat_first_token_seconds"),
            unit="s",
        ),
        Panel(
            title="Time to the last token",
            what="From a request's arrival to its last byte.",
            good="As long as answers are: tokens times the time of one.",
            do="See the engine's queue and the tokens a second.",
            queries=quantiles("rlhf_chat_latency_seconds"),
            unit="s",
        ),
        Panel(
            title="Time of one token",
            what="An answer's time after its first token, by the tokens that followed: how fast the text flows.",
            good="Below 100 ms: faster than people read.",
            do="Too many answers at once in one engine: “Capacity”.",
            queries=quantiles("rlhf_chat_time_per_output_token_seconds"),
            unit="s",
        ),
        Panel(
            title="Longest stop within an answer",
            what="The longest time between two tokens of an answer, as its reader noticed it.",
            good="Below a second, swaps included.",
            do=(
                "Compare with the pause of swaps in “Versions and gate”; else the engine preempts, see its cache in "
                "“Capacity”."
            ),
            queries=quantiles("rlhf_chat_longest_token_gap_seconds"),
            unit="s",
        ),
        Panel(
            title="Requests at once",
            what="Requests in progress, and those of them that have no token yet.",
            good="Few have no token yet.",
            do="They queue: more pods, or a larger cache (`chat.engine.kv_cache_gib`).",
            queries={
                "in progress": "sum(rlhf_chat_requests_in_progress{})",
                "no token yet": "sum(rlhf_chat_requests_waiting{})",
            },
            unit="none",
        ),
        Panel(
            title="Tokens",
            what="Tokens a second: written for people, read of their prompts, written for the trainer's rollouts.",
            good="People's part follows their requests; rollouts come in bursts.",
            do="People wait while rollouts run: fewer `trainer.rollout.per_cycle`, or an engine for the trainer alone.",
            queries={
                "prompts": f"sum(rate(rlhf_chat_prompt_tokens_total{{}}{COUNTED}))",
                "for people": f"sum(rate(rlhf_chat_tokens_total{{}}{COUNTED}))",
                "rollouts": f"sum(rate(rlhf_rollout_tokens_total{{}}{COUNTED}))",
            },
            unit="none",
        ),
    ),
)

LIMITED = Row(
    "Who is held up, and by what?",
    (
        Panel(
            title="Refused by a limit",
            what="Requests a second that a limit of a key or a person refused.",
            good="None, or few and of the same caller.",
            do="Many people at once: the limits are too tight (`chat.limits.person`), or somebody uses many names.",
            queries={"{{whose}}: {{limit}}": f"sum by (whose, limit) (rate(rlhf_chat_limited_total{{}}{COUNTED}))"},
            unit="reqps",
            runbooks=("RlhfPersonCapHit",),
        ),
        Panel(
            title="Across a swap or a loss",
            what=(
                "Requests sent to the engine again after it had ended, and answers across a swap without a known "
                "boundary."
            ),
            good="0. A resent request succeeds; its person has noticed nothing.",
            do=(
                "Many resent: the engine ends often, see “Versions and gate”. Answers without a boundary do not train "
                "the policy."
            ),
            queries={
                "sent again": f"sum(rate(rlhf_chat_resent_total{{}}{COUNTED}))",
                "without a boundary": f"sum(rate(rlhf_chat_uncertain_answers_total{{}}{COUNTED}))",
            },
            unit="reqps",
            runbooks=("RlhfEngineRestarts",),
        ),
        Panel(
            title="gRPC",
            what="Calls of methods that are not served, and servers that had to be started again.",
            good="0.",
            do="Unknown methods: a client of another release. Restarts: the service's log.",
            queries={
                "unknown methods": f"sum(rate(rlhf_chat_grpc_unknown_methods_total{{}}{COUNTED}))",
                "restarts": f"sum(rate(rlhf_chat_grpc_restarts_total{{}}{COUNTED}))",
            },
            unit="ops",
        ),
    ),
)

DASHBOARD = Dashboard(
    uid="rlhf-chat",
    title="rlhf-online · Chat",
    what="Are people answered, how long do they wait, who is held up?",
    rows=(ANSWERED, WAITING, LIMITED),
)
