"""The labels of metrics, and the values that each may have: small closed sets, or few for a reason that is told.

Never a person, a conversation, a path or text: what clients choose is no label. The sets are spelled out here, below
the rooms that they stem from; tests/metrics/test_labels.py holds them against those.
"""

from rlhf_online.metrics.catalogue import Label

ENDED = ("ok", "aborted", "busy", "unavailable", "late", "invalid", "error")
"""How a request ended: `busy` for 429, `unavailable` for 503, `late` for 504, `invalid` for any other 4xx."""
REQUEST_OUTCOME = Label(name="outcome", values=(*ENDED, "cross_origin"))
ROLLOUT_OUTCOME = Label(name="outcome", values=ENDED)
FEEDBACK_OUTCOME = Label(name="outcome", values=tuple(word for word in ENDED if word != "aborted"))
FEEDBACK_KIND = Label(
    name="kind", values=("thumb", "ranking", "pairwise", "correction", "implicit", "withdrawal", "unknown")
)
CLOSED = Label(
    name="reason",
    values=(
        "no_room", "silent", "request_too_slow", "answer_not_read", "no_handshake", "headers_too_large", "invalid_http",
    ),
)  # fmt: skip
WHOSE = Label(name="whose", values=("key", "person"))
LIMIT = Label(name="limit", values=("concurrent", "requests", "tokens", "votes"))
LOADED = Label(name="outcome", values=("loaded", "refused"))
SWAPPED = Label(name="outcome", values=("ok", "failed"))
SERVICE = Label(name="service", values=("chat", "reward", "trainer"))
VERSION = Label(name="version", bound="one at a time: the version that serves")
KIND = Label(name="kind", values=("policy", "audience", "reward"))
STATE = Label(name="state", values=("candidate", "canary", "live", "retired", "rejected", "failed"))
STAGE = Label(name="stage", values=("accepted", "joined", "trained", "scored", "gated", "swapped"))
"""Of a vote's way to the weights that serve; see `rlhf_click_to_live_seconds`."""
SCORED = Label(
    name="outcome",
    values=("ok", "invalid_argument", "failed_precondition", "unavailable", "resource_exhausted", "internal"),
)
CYCLE = Label(
    name="outcome", values=("promoted", "canary", "rejected", "undone", "skipped", "cold", "waiting", "paused")
)
PHASE = Label(name="phase", values=("reward", "held_back", "publishing", "rollouts", "policy", "gate", "audiences"))
DISPOSITION = Label(
    name="disposition",
    values=("trained", "held_out", "orphaned", "dead_lettered", "withdrawn", "erased", "pending"),
)
DEAD_LETTER = Label(
    name="reason",
    values=(
        "undecodable", "damaged", "reused_key", "stranger", "missing", "nothing", "twice", "empty", "prompts", "signal",
        "correction", "single", "objective", "large", "vocabulary", "context", "template",
        "erased",
    ),
)  # fmt: skip
LEFT_OUT = Label(
    name="reason",
    values=(
        "greedy", "support", "empty", "logprobs", "version", "unfinished", "vocabulary", "context", "erased", "full",
        "stale", "score", "singleton", "tied", "one_kind",
    ),
)  # fmt: skip
SPANS = Label(name="outcome", values=("exported", "failed", "dropped"))
SKIPPED = Label(
    name="reason", values=("superseded", "revised", "drifted", "single_class", "not_finite", "out_of_memory")
)
SIGNAL = Label(name="signal", values=("regenerate", "rephrase", "stop", "ai", "assisted", "unassisted"))
STANDING = Label(name="standing", values=("believed", "doubted", "capped", "alike"))
OBJECTIVE = Label(name="objective", bound="those of `reward.objectives`, and the rules in force, 64 at most")
FIGURE = Label(
    name="figure", bound="those of a reward version's manifest; `accuracy/NAME` for each of `reward.objectives`"
)
ALGORITHM = Label(
    name="algorithm",
    values=(
        "ppo", "grpo", "dr-grpo", "dapo", "gspo", "rloo", "reinforce", "online-dpo", "kto", "best-of-n",
    ),
)  # fmt: skip
UPDATE = Label(name="outcome", values=("kept", "undone", "skipped"))
CHECK = Label(
    name="check",
    values=(
        "kl", "win_rate", "held_back", "proxy_gap", "reward_model", "disagreement", "length", "repetition", "distinct",
        "entropy", "refusals", "non_answers", "golden", "traits", "new_words",
    ),
)  # fmt: skip
VERDICT = Label(name="verdict", values=("passed", "objected"))
CANDIDATE = Label(name="verdict", values=("passed", "rejected"))
JUDGED = Label(name="kind", bound="policy, and policy.NAME of each audience that is defined, 8 at most")
GATE_FIGURE = Label(
    name="figure",
    values=(
        "win_rate", "held_back_win_rate", "gain", "held_back_gain", "proxy_gap", "spread_ratio", "length_ratio",
        "repetition", "distinct", "entropy", "refusals", "non_answers", "golden", "new_words",
    ),
)  # fmt: skip
LAG = Label(name="lag", values=("0", "1", "2", "3", "4", "5+"))
"""Versions promoted since the one that wrote an answer."""
ADVANTAGE = Label(name="figure", values=("mean", "std", "min", "max"))
CANARY = Label(name="version", bound="one at a time: the canary")
CANARY_OVER = Label(name="live", bound="one at a time: the version that it is compared with")
CANARY_ACTION = Label(name="action", values=("advance", "promote", "take_back"))
CANARY_SIDE = Label(name="side", values=("better", "worse"))
CANARY_END = Label(name="end", values=("low", "high"))
GUARDRAIL = Label(name="guardrail", values=("aborted", "empty", "slow", "thumbs_down"))
MONITOR = Label(
    name="monitor",
    values=(
        "drift",
        "tampering",
        "poison",
        "segments",
        "over_optimisation",
        "length",
        "format",
        "diversity",
        "sycophancy",
    ),
)
FOLDER = Label(name="folder", values=("state", "log", "versions", "checkpoints"))
GPU = Label(name="gpu", bound="the machine's GPUs, by their numbers")
RELEASE = Label(name="version", bound="one: the release that runs")
POLICY = Label(name="policy", bound="one at a time: the policy version in memory")
REWARD = Label(name="reward", bound="one at a time: the reward version in memory")
