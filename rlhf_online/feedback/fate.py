"""Where a vote is: what the trainer told of it, and which versions have learned from it since.

Nothing is claimed that has not happened. The trainer's facts are those of its committed ledger; what they became is
read from the versions themselves: the reward model is one line, so that each reward version knows what those before it
learned, and a policy version names the reward version that it was trained with.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from rlhf_online.errors import VersionCorrupt
from rlhf_online.feedback.outcomes import Outcome
from rlhf_online.versions.catalogue import Catalogue
from rlhf_online.versions.manifest import Status

ENDS = {
    "held_out": "accepted → joined → held out: it measures the reward model, and is never learned from",
    "held_back": "accepted → joined → held back: it teaches the reward model that judges new versions, and none else",
    "orphaned": "accepted → orphaned: its answer did not come to the log in time",
}
ERASED = "accepted → erased with its conversation: it is learned from no more"
SERVED = ("live", "retired")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """What became of a vote; `services.chat.feedback.status` says what the fields mean."""

    state: str
    message: str
    reward_version: str
    policy_version: str
    live_since_ms: int
    serving: bool
    replaced_by: str


@dataclass(frozen=True, slots=True)
class _Learned:
    """`policy`: the first policy version that served with what the vote taught; `refused`: why the newest does not."""

    reward: str
    policy: str = ""
    since_ms: int = 0
    serving: bool = False
    refused: str = ""


def fate(outcomes: Sequence[Outcome], catalogue: Catalogue, *, replaced_by: str) -> Fate:
    """`outcomes` in their order; that a vote waits is the past once something is settled.

    Raises OSError, FileDamaged.
    """
    settled = any(outcome.settled for outcome in outcomes)
    facts = [outcome for outcome in outcomes if not settled or outcome.word not in ("waiting", "joined")]
    last = facts[-1] if facts else None
    trained = next((outcome.detail for outcome in reversed(facts) if outcome.word == "trained"), "")
    learned = _learned(trained, catalogue) if trained else _Learned("")
    state = "accepted" if last is None else last.word
    if state == "trained" and learned.serving:
        state = "live"
    by = replaced_by or (last.detail if last is not None and last.word in ("superseded", "withdrawn") else "")
    return Fate(
        state=state,
        message=_message(state, last, learned, by),
        reward_version=learned.reward,
        policy_version=learned.policy,
        live_since_ms=learned.since_ms,
        serving=learned.serving,
        replaced_by=by,
    )


def _message(state: str, last: Outcome | None, learned: _Learned, by: str) -> str:
    detail = "" if last is None else last.detail
    match state:
        case "accepted":
            return "accepted: it is on disk, and waits for the trainer to read it"
        case "waiting":
            return "accepted → waits for its answer to come to the log"
        case "joined":
            return "accepted → joined with its answer, and waits for the next update of the reward model"
        case "trained" | "live":
            return _way(learned)
        case "erased":
            return f"{_way(learned)}; then erased with its conversation" if learned.reward else ERASED
        case "kept":
            return f"accepted → joined → kept with {detail}: it is replayed in later updates, not learned from at once"
        case "dead_lettered":
            return f"accepted → set aside: {detail}"
        case "superseded" | "withdrawn":
            before = f"{_way(learned)}; then" if learned.reward else "accepted →"
            if state == "withdrawn":
                return f"{before} withdrawn" + (f" by {by}" if by else "")
            return f"{before} superseded by a later vote" + (f", {by}" if by else "")
        case _:
            return ENDS[state]


def _way(learned: _Learned) -> str:
    way = f"accepted → joined → trained in {learned.reward}"
    if not learned.policy:
        return f"{way} → {learned.refused or 'the next policy version learns from it'}"
    since = datetime.fromtimestamp(learned.since_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")
    served = f"{way} → {learned.policy}, live" + (f" since {since}" if learned.since_ms else "")
    return served if learned.serving else f"{way} → {learned.policy}, which was live; what serves now is older"


def _learned(reward: str, catalogue: Catalogue) -> _Learned:
    """What became of what the reward version learned. A version whose files are damaged is passed over."""
    reward = _published(reward, catalogue)
    live = catalogue.live("policy")
    newest_first = list(_policies(reward, catalogue))
    serving = live is not None and _scored_by(live, catalogue) >= _number(reward)
    for version, found in reversed(newest_first):
        if found.state in SERVED:
            since_ms = found.first_live_ms or (found.changed_ms if found.state == "live" else 0)
            return _Learned(reward, version, since_ms, serving)
    if newest_first:
        version, found = newest_first[0]
        if found.state == "canary":
            return _Learned(reward, refused=f"{version} learned from it, and is tried on some conversations")
        if found.state != "candidate":
            return _Learned(reward, refused=f"{version} is {found.state} ({found.reason}); the next one learns from it")
    return _Learned(reward)


def _published(reward: str, catalogue: Catalogue) -> str:
    """The version itself, or the one that was published in its place where its name could not be used."""
    for version in catalogue.versions("reward"):
        if _number(version) >= _number(reward) and catalogue.status(version).state in SERVED:
            return version
    return reward


def _policies(reward: str, catalogue: Catalogue) -> Iterator[tuple[str, Status]]:
    """The policy versions that were trained with that reward version or a later one, newest first."""
    for version in reversed(catalogue.versions("policy")):
        if (by := _scored_by(version, catalogue)) < 0:
            continue
        if by < _number(reward):
            return
        yield version, catalogue.status(version)


def _scored_by(policy: str, catalogue: Catalogue) -> int:
    """Number of the reward version that it was trained with; -1 for the first one, and for one that is damaged."""
    with suppress(VersionCorrupt):
        return _number(catalogue.manifest(policy).reward_version)
    return -1


def _number(version: str) -> int:
    return int(version.partition("-")[2] or -1)
