"""What the chat service knows of the answers and votes that it took last, and so refuses instead of thanking for it.

It is a courtesy to the client, not a guard: another pod's answers and votes, and those beyond the newest, are unknown
here and taken; the trainer, which knows the whole log, sets them aside. After a restart the newest records of the log
are read again.
"""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import structlog

from rlhf_online.errors import KeysUnavailable, LogError, PositionLost, UndecodableEvent
from rlhf_online.eventlog.base import PARTITION
from rlhf_online.eventlog.tail import LocalReader
from rlhf_online.events import AnswerRef, Completion, Correction, Feedback
from rlhf_online.feedback.known_votes import KnownVotes
from rlhf_online.wire import decode
from services.chat.bodies.api_error import ApiError
from services.chat.feedback.comparisons import KnownComparisons

if TYPE_CHECKING:
    from rlhf_online.keystore.keyring import Keyring

MAX_COMPLETIONS = 50_000
RECALLED_RECORDS = 5_000
"""Read again from the log at the start: less than a second."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """Hashes of a completion's prompt and of its answers' texts; None if it was not stored."""

    prompt: int
    answers: tuple[int, ...] | None


class Queue(Protocol):
    """What people were asked to judge."""

    def marked(self, vote: Feedback) -> Feedback:
        """The vote, and what of it was asked for."""
        ...


class FeedbackChecks:
    """The newest completions and votes of this process."""

    def __init__(self, names: Iterable[str] = (), queue: Queue | None = None) -> None:
        """`names`: see KnownComparisons."""
        self._queue = queue
        self.votes = KnownVotes()
        self.comparisons = KnownComparisons(names)
        self._completions: OrderedDict[str, _Asked] = OrderedDict()

    def add_completion(self, completion: Completion, *, stored: bool = True) -> None:
        answers = tuple(hash(answer.text) for answer in completion.answers)
        asked = _Asked(hash(completion.prompt_token_ids), answers if stored else None)
        self._completions[completion.completion_id] = asked
        self.comparisons.add(completion)
        if len(self._completions) > MAX_COMPLETIONS:
            self._completions.popitem(last=False)

    def marked(self, vote: Feedback) -> Feedback:
        """The vote, and what the service knows better than who sent it: what they were shown, and in which order."""
        vote = self.comparisons.marked(vote)
        return self._queue.marked(vote) if self._queue else vote

    def check(self, event_id: str, vote: Feedback) -> None:
        """Raises ApiError for a vote that is known to be of no use."""
        if self.votes.is_another(event_id, vote):
            message = (
                f"idempotency_key: the vote {event_id} was sent under it, and said something else; send another vote "
                "under another key, or a change of it with `replaces`"
            )
            raise ApiError(
                message, status=409, type="conflict_error", param="idempotency_key", code="idempotency_key_reused"
            )
        if self.votes.is_somebody_elses(vote.replaces, vote.person):
            message = f"replaces: the vote {vote.replaces} is somebody else's; only its own person may replace it"
            raise ApiError(message, status=403, param="replaces", code="not_your_vote")
        for ref in vote.answers():
            self._check_answer(ref, vote)
        prompts = {known.prompt for ref in vote.answers() if (known := self._completions.get(ref.completion_id))}
        if len(prompts) > 1:
            message = "its answers were given to different prompts; compare answers to one prompt"
            raise ApiError(message, param=vote.kind_name, code="invalid_value")

    def recall(self, folder: Path, keys: "Keyring | None" = None) -> None:
        """Take in the newest records of the log in `folder`, as far as they can be read."""
        try:
            with LocalReader(folder) as log:
                first = max(0, log.end()[PARTITION] - RECALLED_RECORDS)
                try:
                    records, _ = log.read({PARTITION: first}, RECALLED_RECORDS)
                except PositionLost:  # the older of them were shipped, and let go of
                    records, _ = log.read({}, RECALLED_RECORDS)
        except LogError as error:
            structlog.get_logger().info("the log's newest records are not known again", why=str(error))
            return
        for record in records:
            try:
                envelope = decode(record.payload, keys)
            except UndecodableEvent:
                continue
            except KeysUnavailable as error:
                structlog.get_logger().info("the log's newest records are not known again", why=str(error))
                return
            match envelope.event:
                case Completion() as completion:
                    self.add_completion(completion)
                case Feedback() as vote:
                    self.votes.add(envelope.event_id, vote)
                    self.comparisons.voted(vote)

    def _check_answer(self, ref: AnswerRef, vote: Feedback) -> None:
        known = self._completions.get(ref.completion_id)
        if known is None:
            return
        if known.answers is None:
            message = f"the completion {ref.completion_id} was asked for with `store: false`: it cannot be voted on"
            raise ApiError(message, param=vote.kind_name, code="not_stored")
        if ref.index >= len(known.answers):
            message = (
                f"index: the completion {ref.completion_id} has {len(known.answers)} answers, counted from 0; "
                f"there is none {ref.index}"
            )
            raise ApiError(message, param=vote.kind_name, code="answer_not_found")
        if isinstance(vote.kind, Correction) and hash(vote.kind.text) == known.answers[ref.index]:
            message = "correction.text: it is the answer itself; send what would have been better"
            raise ApiError(message, param="correction.text", code="invalid_value")
