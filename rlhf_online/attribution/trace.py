"""All that is known of an answer: who wrote it, where it stands in the log, what became of what people said of it.

log ────────────────▶ the completion and the votes on it, their places (`search`)
the versions ───────▶ manifests, states, what each has learned from (`lineage`)
board of outcomes ──▶ what became of each vote (`feedback.fate`)
"""

from collections.abc import Callable

from rlhf_online.attribution.lineage import Lineages
from rlhf_online.attribution.replies import (
    CompletionTrace,
    LearnedFrom,
    ListedAnswer,
    ListedVote,
    PersonData,
    PersonVersion,
    TracedAnswer,
    TracedPlace,
    TracedUse,
    TracedVersion,
    TracedVote,
    VersionData,
)
from rlhf_online.attribution.search import Found, FoundVote, Place
from rlhf_online.attribution.trained_on import AnswerUsed, VoteUsed
from rlhf_online.errors import InvalidInput, UnknownVersion, VersionCorrupt
from rlhf_online.events import Answer
from rlhf_online.feedback.fate import fate
from rlhf_online.feedback.outcomes import Outcome, OutcomeBoard
from rlhf_online.versions.catalogue import Catalogue
from rlhf_online.versions.manifest import Manifest, Status

Segment = Callable[[Place], str]
"""The file that holds a record; "" where there is none."""
ERASED = (
    "its person erased the conversation: what was not learned from by then never will be, and what was stays in the "
    "versions of `learned_in` and those that follow them"
)
CUT = "the log does not hold it: its records were removed by retention, and what is told here is what versions recorded"


def trace(
    completion_id: str, found: Found, catalogue: Catalogue, *, segment: Segment = lambda place: ""
) -> CompletionTrace:
    """Raises InvalidInput for a completion that nobody knows; OSError, FileDamaged."""
    lineages = Lineages(catalogue)
    used = list(_uses(completion_id, lineages))
    completion = found.completion
    if completion is None and not used and not found.votes and not found.erased_ms:
        raise InvalidInput(_unknown(completion_id, found))
    notes = []
    if completion is None and not found.erased_ms:
        votes_only = "the log holds votes on it, and not itself: it has not come yet, or retention removed it"
        notes.append(votes_only if found.votes else CUT)
    if found.erased_ms:
        notes.append(ERASED)
    board = OutcomeBoard(catalogue.store)
    answers = completion.answers if completion is not None else ()
    writers = dict.fromkeys(span.policy_version for answer in answers for span in answer.spans)
    return {
        "completion_id": completion_id,
        "conversation_id": completion.conversation_id if completion else "",
        "person": completion.person if completion else "",
        "started_ms": completion.started_ms if completion else 0,
        "finished_ms": completion.finished_ms if completion else 0,
        "comparison_id": completion.comparison_id if completion else "",
        "erased_ms": found.erased_ms,
        "place": _place(found.place, segment) if found.place else None,
        "answers": list(map(_answer, answers)),
        "versions": [_version(name, catalogue, lineages) for name in writers if name],
        "votes": [
            _vote(item, found, _outcomes(item, board, used), catalogue, segment) for item in found.votes.values()
        ],
        "learned_in": used,
        "notes": notes,
    }


def version_data(version: str, catalogue: Catalogue) -> VersionData:
    """What the version has learned from. Raises UnknownVersion, OSError."""
    lineages = Lineages(catalogue)
    line = lineages.of(version)
    reward = _reward(version, catalogue)
    own = {name: line.records[name] for name in (reward, version) if name in line.records}
    return {
        "version": version,
        "reward_version": reward,
        "votes": [_listed(vote, name) for name, record in own.items() for vote in record.votes],
        "answers": [_listed_answer(item, name) for name, record in own.items() for item in record.answers],
        "asked": sorted({person for record in own.values() for person in record.asked}),
        "votes_in_all": [_listed(vote, name) for vote, name in line.votes().values()],
        "answers_in_all": [_listed_answer(item, name) for item, name in line.answers().values()],
        "unknown": line.unknown,
    }


def person_data(person: str, catalogue: Catalogue) -> PersonData:
    """The versions that have learned from the data of the person of that hash. Raises OSError."""
    lineages = Lineages(catalogue)
    direct = {version: record for version, record in lineages.naming(person) if person in record.people}
    rows: dict[str, PersonVersion] = {}
    unknown: dict[str, str] = {}
    for version in lineages.versions:
        through = next((before for before in lineages.before(version) if before in rows), "")
        if isinstance(why := lineages.record(version), str):
            unknown[version] = why
        if not (through or version in direct):
            continue
        record = direct.get(version)
        rows[version] = {
            "version": version,
            "state": catalogue.status(version).state,
            "weights": _has_weights(version, catalogue),
            "votes": sum(person in (vote.person, *vote.owners) for vote in record.votes) if record else 0,
            "answers": sum(item.person == person for item in record.answers) if record else 0,
            "asked": person in record.asked if record else False,
            "through": "" if record else through,
        }
    return {"person": person, "versions": list(rows.values()), "unknown": unknown}


# Parts


def _unknown(completion_id: str, found: Found) -> str:
    named = f"no completion {completion_id[:80]!r}: "
    if found.cut:
        kept = ", ".join(f"{name} from record {first} on" for name, first in sorted(found.first.items()) if first)
        return f"{named}no version names it, nor does what is left of the log ({kept}; retention removed the rest)"
    return f"{named}the log does not hold it; `chat` and each answer's `id` tell the ids, 'chatcmpl-…'"


def _place(place: Place, segment: Segment) -> TracedPlace:
    return {"partition": place.partition, "offset": place.offset, "segment": segment(place)}


def _answer(answer: Answer) -> TracedAnswer:
    tokens = len(answer.token_ids)
    ends = [span.first_token for span in answer.spans[1:]] + [tokens]
    return {
        "index": answer.index,
        "tokens": tokens,
        "finish_reason": answer.finish_reason,
        "spans": [
            {"policy_version": span.policy_version, "first_token": span.first_token, "tokens": end - span.first_token}
            for span, end in zip(answer.spans, ends, strict=False)  # none where it is not known who wrote it
        ],
    }


def _version(version: str, catalogue: Catalogue, lineages: Lineages) -> TracedVersion:
    try:
        status = catalogue.status(version)
        manifest = catalogue.manifest(version)
    except UnknownVersion:
        status, manifest = Status(state="failed", reason="this store has no such version"), None
    except VersionCorrupt as error:
        status, manifest = Status(state=catalogue.status(version).state, reason=str(error)), None
    known = version in lineages.versions
    shown = manifest or Manifest(version=version, tuning="full")
    gate = {name: float(value) for name, value in status.gate.items() if isinstance(value, int | float)}
    return {
        "version": version,
        "state": status.state if known else "unknown",
        "reason": status.reason,
        "weights": known and _has_weights(version, catalogue),
        "parent": shown.parent,
        "reward_version": shown.reward_version,
        "reference": shown.reference,
        "kl": shown.kl,
        "gate": gate,
        "created_ms": shown.created_ms,
        "first_live_ms": status.first_live_ms,
        "learned_from": _learned_from(version, shown.reward_version, lineages) if known else _nothing(version),
    }


def _learned_from(version: str, reward: str, lineages: Lineages) -> LearnedFrom:
    line = lineages.of(version)
    update = line.records[reward].votes if reward in line.records else ()
    new = sum(vote.new for vote in update)
    return {
        "votes_new": new,
        "votes_replayed": len(update) - new,
        "votes_in_all": len(line.votes()),
        "answers": len(line.records[version].answers) if version in line.records else 0,
        "answers_in_all": len(line.answers()),
        "unknown": line.unknown,
    }


def _nothing(version: str) -> LearnedFrom:
    unknown = {version: "this store has no such version"}
    return {
        "votes_new": 0,
        "votes_replayed": 0,
        "votes_in_all": 0,
        "answers": 0,
        "answers_in_all": 0,
        "unknown": unknown,
    }


def _outcomes(item: FoundVote, board: OutcomeBoard, used: list[TracedUse]) -> list[Outcome]:
    """What the board says of the vote; where that is too long ago, what the versions recorded."""
    told = board.find(item.event_id, item.vote.person, item.vote.created_ms)
    first = next((use["version"] for use in used if item.event_id in use["votes"]), "")
    return told or ([Outcome("trained", first)] if first else [])


def _vote(item: FoundVote, found: Found, outcomes: list[Outcome], catalogue: Catalogue, segment: Segment) -> TracedVote:
    vote = item.vote
    became = fate(outcomes, catalogue, replaced_by=found.replaced.get((item.event_id, vote.person), ""))
    return {
        "event_id": item.event_id,
        "kind": vote.kind_name,
        "person": vote.person,
        "created_ms": vote.created_ms,
        "place": _place(item.place, segment),
        "state": became.state,
        "message": became.message,
        "reward_version": became.reward_version,
        "policy_version": became.policy_version,
    }


def _uses(completion_id: str, lineages: Lineages) -> list[TracedUse]:
    found: list[TracedUse] = []
    for version, record in lineages.naming(completion_id):
        votes = [vote.event_id for vote in record.votes if completion_id in vote.completions]
        answers = [item.index for item in record.answers if item.completion_id == completion_id]
        if votes or answers:
            found.append({"version": version, "votes": votes, "answers": answers})
    return found


def _reward(version: str, catalogue: Catalogue) -> str:
    try:
        return catalogue.manifest(version).reward_version
    except VersionCorrupt:
        return ""


def _has_weights(version: str, catalogue: Catalogue) -> bool:
    try:
        return catalogue.has_weights(version)
    except VersionCorrupt:
        return False


def _listed(vote: VoteUsed, version: str) -> ListedVote:
    return {
        "event_id": vote.event_id,
        "person": vote.person,
        "completions": list(vote.completions),
        "version": version,
        "new": vote.new,
    }


def _listed_answer(item: AnswerUsed, version: str) -> ListedAnswer:
    return {"completion_id": item.completion_id, "index": item.index, "person": item.person, "version": version}
