"""What is told of answers, versions and people: the same on the command line and over HTTP."""

from typing_extensions import TypedDict

from rlhf_online.documented import documented


@documented
class TracedPlace(TypedDict):
    """Where a record stands in the log."""

    partition: str
    """ "local" for the log on the service's machine; else the Kafka topic and partition, "rlhf.feedback/3"."""
    offset: int
    """Its number there, from 0."""
    segment: str
    """The file of the local log that holds it; empty for Kafka."""


@documented
class TracedSpan(TypedDict):
    """Tokens in a row by one version."""

    policy_version: str
    """Who wrote them; empty where it could not be told."""
    first_token: int
    """The first of them."""
    tokens: int
    """How many."""


@documented
class TracedAnswer(TypedDict):
    """One of a completion's answers."""

    index: int
    """Which."""
    tokens: int
    """Its length."""
    finish_reason: str
    """Why it ended."""
    spans: list[TracedSpan]
    """By whom it was written."""


@documented
class LearnedFrom(TypedDict):
    """How much a version has learned from: votes through its reward version, and answers of the log."""

    votes_new: int
    """Votes that the update of its reward version learned from for the first time."""
    votes_replayed: int
    """Votes of earlier updates that this one learned from again."""
    votes_in_all: int
    """Different votes that it, or a version that it goes back to, has learned from."""
    answers: int
    """Answers of the log that its own update learned from."""
    answers_in_all: int
    """Those that it, or a version that it goes back to, has learned from."""
    unknown: dict[str, str]
    """The versions of its line of which nobody can tell, and why: their votes and answers are not counted."""


@documented
class TracedVersion(TypedDict):
    """A version that wrote tokens of the answer."""

    version: str
    """Its name."""
    state: str
    """ "candidate", "canary", "live", "retired", "rejected", "failed", or "unknown": this store has no such version."""
    reason: str
    """Why it is in this state, or why nothing is known of it."""
    weights: bool
    """Whether its weights are kept; those of old versions are not, their manifests are."""
    parent: str
    """The version that training started from."""
    reward_version: str
    """The reward version that scored its answers."""
    reference: str
    """The version that its KL counts from."""
    kl: float
    """KL to the reference in nats an answer."""
    gate: dict[str, float]
    """What the gate measured."""
    created_ms: int
    """When it was made, Unix time in milliseconds; 0 if that cannot be read."""
    first_live_ms: int
    """When it was live for the first time; 0: never, or nobody noted it."""
    learned_from: LearnedFrom
    """How much it has learned from."""


@documented
class TracedVote(TypedDict):
    """What somebody said of the completion's answers, and what became of it."""

    event_id: str
    """The vote."""
    kind: str
    """ "thumb", "ranking", …"""
    person: str
    """Who: a keyed hash; empty for nobody."""
    created_ms: int
    """When it was taken, Unix time in milliseconds."""
    place: TracedPlace
    """Where it stands in the log."""
    state: str
    """As `GET /v1/feedback/{event_id}` tells it: "trained", "live", "held_out", …"""
    message: str
    """The same as a sentence."""
    reward_version: str
    """The reward version that learned from it; empty if none has."""
    policy_version: str
    """The first policy version that has learned from that and served; empty if none has."""


@documented
class TracedUse(TypedDict):
    """A version whose own update learned from the completion."""

    version: str
    """Its name."""
    votes: list[str]
    """The votes on it that it learned from."""
    answers: list[int]
    """The answers that it learned from."""


@documented
class CompletionTrace(TypedDict):
    """Who wrote an answer, where it stands, what was said of it, and who has learned from that. No text is told."""

    completion_id: str
    """The completion."""
    conversation_id: str
    """Its conversation; empty if the log does not hold the completion."""
    person: str
    """Who asked: a keyed hash; empty for nobody."""
    started_ms: int
    """When it was asked, Unix time in milliseconds; 0 if the log does not hold it."""
    finished_ms: int
    """When its last answer ended."""
    comparison_id: str
    """The comparison that it was shown in; empty for none."""
    erased_ms: int
    """When its person erased the conversation; 0 if they did not."""
    place: TracedPlace | None
    """Where it stands in the log; null if the log does not hold it."""
    answers: list[TracedAnswer]
    """Its answers."""
    versions: list[TracedVersion]
    """The versions that wrote them."""
    votes: list[TracedVote]
    """What was said of it, in order."""
    learned_in: list[TracedUse]
    """The versions whose own updates learned from it, reward versions first."""
    notes: list[str]
    """What stands in the way of knowing more."""


@documented
class ListedVote(TypedDict):
    """A vote that was learned from."""

    event_id: str
    """The vote."""
    person: str
    """Who: a keyed hash; empty for nobody."""
    completions: list[str]
    """What it judged; empty where an earlier release read it."""
    version: str
    """The version whose update learned from it."""
    new: bool
    """Whether that was the first time; otherwise it was replayed."""


@documented
class ListedAnswer(TypedDict):
    """An answer that was learned from."""

    completion_id: str
    """The completion."""
    index: int
    """Which of its answers."""
    person: str
    """Who got it: a keyed hash; empty for nobody."""
    version: str
    """The version whose update learned from it."""


@documented
class VersionData(TypedDict):
    """What a version has learned from."""

    version: str
    """Its name."""
    reward_version: str
    """Of a policy, the reward version that scored its answers."""
    votes: list[ListedVote]
    """Votes that its own update learned from, and that of its reward version."""
    answers: list[ListedAnswer]
    """Answers of the log that its own update learned from."""
    asked: list[str]
    """People to whose prompts answers were sampled for its own update: keyed hashes."""
    votes_in_all: list[ListedVote]
    """Every vote that it, or a version that it goes back to, has learned from, with the first one that did."""
    answers_in_all: list[ListedAnswer]
    """Every answer, likewise."""
    unknown: dict[str, str]
    """The versions of its line of which nobody can tell, and why."""


@documented
class PersonVersion(TypedDict):
    """A version that has learned from a person's data."""

    version: str
    """Its name."""
    state: str
    """ "candidate", "canary", "live", "retired", "rejected" or "failed"."""
    weights: bool
    """Whether its weights are kept."""
    votes: int
    """The person's votes that its own update learned from."""
    answers: int
    """Answers that the person got and its own update learned from."""
    asked: bool
    """Whether its own update sampled answers to the person's prompts."""
    through: str
    """The version before it that has learned from the person's data; empty if it did so itself."""


@documented
class PersonData(TypedDict):
    """The versions that have learned from a person's data."""

    person: str
    """Who: the keyed hash."""
    versions: list[PersonVersion]
    """Reward versions, then policies, oldest first."""
    unknown: dict[str, str]
    """The versions of which nobody can tell, and why."""
