"""What the console is answered."""

from typing import NotRequired

from typing_extensions import TypedDict

from services.chat.bodies.documented import documented
from services.chat.learning import LearningState


@documented
class TrainerState(TypedDict):
    """What the trainer last said of itself; empty where none shares this service's state folder."""

    phase: str
    """ "waiting", "reward", "rollouts", "policy", "gate" or "publishing"."""
    waiting_for: str
    """What it waits for, where something that it needs is away."""
    step: int
    """Steps made of the update at hand."""
    steps: int
    """Steps of the update at hand; 0 without one."""
    cycle: int
    """Cycles that have ended."""
    updated_ms: int
    """When it said so, Unix time in milliseconds; 0 if it never did."""


@documented
class VoteFlow(TypedDict):
    """The votes that this service has taken: all feedback but withdrawals."""

    total: int
    """All that are known."""
    minute_ms: int
    """When the last of `per_minute` began, Unix time in milliseconds."""
    per_minute: list[int]
    """Votes in each of the last 60 whole minutes, the oldest first."""
    backlog: int
    """Those of which nothing has become yet: neither trained nor held out, orphaned, set aside, superseded, …"""
    oldest_waiting_ms: int
    """When the oldest of them was taken; 0 without any."""


@documented
class ClickToLive(TypedDict):
    """How long it took from a vote to the first live version that was trained with it: the last votes for which it is
    known, a thousand at most."""

    votes: int
    """How many."""
    p50_s: float | None
    """The median in seconds; null without any."""
    p90_s: float | None
    """90 % took no longer."""
    p99_s: float | None
    """99 % took no longer."""
    up_to_s: list[float]
    """Upper ends of the histogram's bins, in seconds."""
    counts: list[int]
    """Votes in each bin; the last one, beyond `up_to_s`, holds the rest."""


@documented
class GatePrediction(TypedDict):
    """How well what the gate predicted of versions met what people then said of them: versions whose time is over and
    of which people's word is clear, the last 50 at most. null: too few to tell."""

    versions: int
    """How many."""
    correlation: float | None
    """Pearson's r of the predicted win rate and people's."""
    correlation_low: float | None
    """Lower end of its 95 % interval (Fisher's)."""
    correlation_high: float | None
    """Upper end."""
    slope: float | None
    """Of the line by which the prediction tells people's win rate best; 1: people see as much as is predicted."""
    gap: float | None
    """People's win rate less the predicted one, on average."""
    recent: float | None
    """People's win rate over the last five versions, pooled."""
    recent_low: float | None
    """Lower end of its 95 % interval."""
    recent_high: float | None
    """Upper end."""
    alarm: str
    """Why the two have parted; empty if they have not."""


@documented
class MonitorState(TypedDict):
    """What a monitor of the watch on what goes wrong last said. It names nobody: `rlhf-online watch` does."""

    monitor: str
    """Its name: "drift", "tampering", "poison", "segments", "over_optimisation", "length", "format", "diversity" or
    "sycophancy"."""
    evidence: float | None
    """How near to its alarm it is: 1 and more raises it; null: it cannot tell."""
    alarm: bool
    """Whether it raises its alarm."""
    says: str
    """Why, in a sentence; empty where it has said nothing yet."""
    runbook: str
    """What to do: a page of docs/runbooks."""


@documented
class ConsoleOverview(TypedDict):
    """How it stands now."""

    now_ms: int
    """The service's clock."""
    serving: str
    """The policy version that writes answers; empty before the first."""
    live: dict[str, str | None]
    """The live version of each kind; null before the first."""
    swapped_ms: int
    """When the engine last began to serve a version, or refused one, Unix time in milliseconds; 0 before the first."""
    engine: str
    """ "starting", "waiting", "ready", "restarting" or "failed"."""
    learning: LearningState
    """Whether it is paused, and the weights."""
    trainer: TrainerState
    """What the trainer is doing."""
    votes: VoteFlow
    """Votes taken, and those that wait."""
    click_to_live: ClickToLive
    """From a click to a version that has learned from it."""
    prediction: GatePrediction
    """What the gate predicted against what people said."""
    watch: list[MonitorState]
    """Each monitor of the watch, as the trainer last told; unknown where none shares this service's state folder."""


Column = list[float | None]


@documented
class PolicySeries(TypedDict):
    """Policy versions, oldest first, as columns of one length. null: not measured."""

    version: list[str]
    """The names."""
    state: list[str]
    """ "candidate", "canary", "live", "retired", "rejected" or "failed"."""
    reason: list[str]
    """Why it is in this state."""
    parent: list[str]
    """The version that training started from."""
    reward_version: list[str]
    """The reward version that scored it."""
    created_ms: list[int]
    """When it was made, Unix time in milliseconds; 0 if that cannot be read."""
    changed_ms: list[int]
    """When it entered its state."""
    first_live_ms: list[int]
    """When it was live for the first time; 0: never."""
    reward: Column
    """Mean score of its answers at the gate."""
    live_reward: Column
    """That of the version which it was to replace, on the same prompts by the same reward version."""
    win_rate: Column
    """Share of prompts on which its answer scored higher, ties half."""
    win_rate_low: Column
    """Lower end of its 95 % interval (Wilson's)."""
    win_rate_high: Column
    """Upper end."""
    samples: Column
    """Prompts that were compared."""
    kl: Column
    """KL to the reference in nats an answer."""
    length: Column
    """Mean tokens of its answers at the gate."""
    live_length: Column
    """Those of the version which it was to replace."""
    accuracy: Column
    """Share of held-out comparisons that its reward version orders rightly."""
    accuracy_low: Column
    """Lower end of the 95 % interval."""
    accuracy_high: Column
    """Upper end."""
    thumbs_up: list[int]
    """Thumbs up on answers that it alone wrote; of each person the last one on an answer counts."""
    thumbs_down: list[int]
    """Thumbs down."""
    thumbs_share: Column
    """Share of thumbs up."""
    thumbs_low: Column
    """Lower end of its 95 % interval (Wilson's)."""
    thumbs_high: Column
    """Upper end."""
    predicted: Column
    """The win rate over its parent that the gate predicted: by the held-back reward model, where there is one."""
    predicted_low: Column
    """Lower end of its 95 % interval."""
    predicted_high: Column
    """Upper end."""
    said: Column
    """People's win rate of the version over its parent; each person counts once."""
    said_low: Column
    """Lower end of its 95 % interval."""
    said_high: Column
    """Upper end."""
    said_n: Column
    """Opinions that it is made of."""
    said_people: Column
    """People who gave them."""
    said_by: list[str]
    """ "pairs" (blind pairs of the two), or "thumbs" (thumbs on either); empty if nobody said anything."""


@documented
class RewardSeries(TypedDict):
    """Reward versions, oldest first, as columns of one length, measured on held-out votes. null: not measured."""

    version: list[str]
    """The names."""
    state: list[str]
    """ "candidate", "live", "retired" or "failed"."""
    reason: list[str]
    """Why it is in this state."""
    created_ms: list[int]
    """When it was made, Unix time in milliseconds; 0 if that cannot be read."""
    changed_ms: list[int]
    """When it entered its state."""
    first_live_ms: list[int]
    """When it was live for the first time; 0: never."""
    accuracy: Column
    """Share of held-out comparisons that it orders rightly."""
    accuracy_low: Column
    """Lower end of the 95 % interval."""
    accuracy_high: Column
    """Upper end."""
    accuracy_n: Column
    """Comparisons."""
    thumb_auc: Column
    """How often an answer with a thumb up is above one with a thumb down."""
    thumb_auc_low: Column
    """Lower end of the 95 % interval."""
    thumb_auc_high: Column
    """Upper end."""
    thumb_n: Column
    """Thumbs."""
    ece: Column
    """Expected calibration error."""


@documented
class ConsoleVersions(TypedDict):
    """What is known of every version."""

    policies: PolicySeries
    """Policy versions."""
    rewards: RewardSeries
    """Reward versions."""


@documented
class ConsoleUpdate(TypedDict):
    """How it stands, and the versions of which something is new: in the first event all of them."""

    overview: ConsoleOverview
    """What `GET /v1/console` answers."""
    policies: NotRequired[PolicySeries]
    """The policy versions that changed; none: nothing did."""
    rewards: NotRequired[RewardSeries]
    """The reward versions that changed."""


@documented
class HistoryEvent(TypedDict):
    """The gate judged a version, or the engine began to serve one or refused it."""

    at_ms: int
    """When, Unix time in milliseconds."""
    kind: str
    """ "gate" or "swap"."""
    version: str
    """The version."""
    state: str
    """What it became: "live", or "rejected" (by the gate, or as a canary) or "failed" (in the engine)."""
    previous: str
    """Of a swap: what served before."""
    reason: str
    """Why, where there is a reason."""
    figures: dict[str, float]
    """What the gate measured."""


@documented
class ConsoleHistory(TypedDict):
    """What happened, the newest first."""

    events: list[HistoryEvent]
    """A page."""
    more: bool
    """True if there are earlier ones: ask for those `before_ms` the last one's time."""


@documented
class FoundExchange(TypedDict):
    """A request and its answers in which the words stand."""

    person: str
    """Whose it is: the keyed hash of the name."""
    conversation_id: str
    """The conversation, which is read by both."""
    completion_id: str
    """The request's completion."""
    finished_ms: int
    """When its last answer ended, Unix time in milliseconds."""
    snippet: str
    """The words and what stands around them."""


@documented
class ConversationSearch(TypedDict):
    """What was found in a bounded part of people's conversations, the newest first."""

    found: list[FoundExchange]
    """Where the words stand."""
    next: str
    """Where to go on: ask `after` it; empty once all was searched."""
