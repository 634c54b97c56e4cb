"""Votes that wait for a cycle, and their revisions: replaced, or withdrawn.

Of one person's votes on the same subject (`feedback.votes.subject`) one counts, the latest. What waits is withdrawn for
it. Where an earlier one was learned from, the later one is `revised`: it takes that one's place in the replay, and is
replayed as any vote is, but it is not learned from as new, nor does it bring a cycle about. So a person weighs on an
answer once, however often they vote on it.

Invariant: every vote gets its disposition in the ledger once: when it is taken, withdrawn, or erased.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from rlhf_online import tracing
from rlhf_online.events import Erasure, Feedback, Withdrawal
from rlhf_online.feedback.erasures import Erasures, stems_from
from rlhf_online.feedback.held_out import Use, use_of
from rlhf_online.feedback.join import Join
from rlhf_online.feedback.revisions import Revisions
from rlhf_online.feedback.votes import Vote, from_json, subject, to_json
from rlhf_online.keystore.owned import is_shredded
from rlhf_online.training.ledger import Ledger

SUBJECTS = 100_000
"""Subjects learned from that are remembered; a vote on one before them counts as a first one."""


class TakenVotes(NamedTuple):
    """The votes of a cycle, by what they are for (`feedback.held_out`)."""

    learned: list[Vote]
    held_back: list[Vote]
    held_out: list[Vote]
    traces: list[str]
    """`traceparent`s of those that are traced."""


class JoinedVotes:
    """`held_out` is the share of the conversations whose votes are held out for evaluation, and `held_back` the share
    of the others whose votes teach the held-back reward model alone."""

    def __init__(self, ledger: Ledger, held_out: float, held_back: float = 0.0) -> None:
        self.revoked: list[tuple[str, str]] = []
        """(event id, person) of votes withdrawn after they were taken, if they are that person's."""
        self.erasures = Erasures()
        self._ledger = ledger
        self._shares = {"held_out": held_out, "held_back": held_back}
        self._revisions = Revisions()
        self._votes: dict[str, tuple[Vote, Use]] = {}
        self._traces: dict[str, str] = {}
        """Of the votes that wait and are traced, MAX_LINKS of them at most: `traceparent` by event id."""
        self._waiting: dict[str, str] = {}
        """Event id of the vote on each subject that waits."""
        self._learned: OrderedDict[str, None] = OrderedDict()
        """Subjects that were learned from."""

    def __len__(self) -> int:
        return len(self._votes)

    def __contains__(self, event_id: str) -> bool:
        return event_id in self._votes

    def waiting(self) -> list[tuple[str, str]]:
        """(event id, person) of each."""
        return [(vote.event_id, vote.person) for vote, _ in self._votes.values()]

    @property
    def trainable(self) -> int:
        """Votes that the next `take` would give to learn from."""
        return sum(use != "held_out" and not vote.revised for vote, use in self._votes.values())

    def add(self, vote: Vote, traceparent: str = "") -> None:
        """Take in a vote in the place of its person's earlier one on the same subject. People who gave no name are
        not one person: their votes stand side by side."""
        if tracing.is_sampled(traceparent) and len(self._traces) < tracing.MAX_LINKS:
            self._traces[vote.event_id] = traceparent
        if vote.person:
            about = _digest(vote)
            if about in self._waiting:
                self._drop(self._waiting[about], vote.event_id)
            self._waiting[about] = vote.event_id
            vote = replace(vote, revised=about in self._learned)
        self._votes[vote.event_id] = vote, use_of(vote.conversation_id, **self._shares)

    def take(self) -> TakenVotes:
        """The votes that wait, each with its disposition in the ledger from now on: one that either reward model learns
        from is trained."""
        votes = TakenVotes([], [], [], [*self._traces.values()])
        for vote, use in self._votes.values():
            if self._ledger.take(vote.event_id, "held_out" if use == "held_out" else "trained"):
                getattr(votes, use).append(vote)
                if use != "learned":
                    self._ledger.tell(vote.event_id, vote.person, use)
                if vote.person and use != "held_out":
                    self._learned[_digest(vote)] = None
        self._votes, self._waiting, self._traces = {}, {}, {}
        while len(self._learned) > SUBJECTS:
            self._learned.popitem(last=False)
        return votes

    def take_revoked(self) -> list[tuple[str, str]]:
        """What `revoked` holds, which is empty then."""
        revoked, self.revoked = self.revoked, []
        return revoked

    def erase(self, erasure: Erasure) -> None:
        """Let go of the votes on answers of that conversation."""
        self.erasures.add(erasure)
        for event_id, person in [
            (event_id, vote.person) for event_id, (vote, _) in self._votes.items() if stems_from(vote, erasure)
        ]:
            self._let_go(event_id)
            self._ledger.erase(event_id, person)

    def revise(self, event_id: str, feedback: Feedback, join: Join) -> bool:
        """Take back what the feedback replaces, be it here or in `join`.

        True if there is no more to the feedback: it is a withdrawal, or was itself replaced.
        """
        withdrawal = isinstance(feedback.kind, Withdrawal)
        if feedback.replaces:
            for gone in self._revisions.replace(event_id, feedback.person, feedback.replaces):
                self._withdraw(gone, feedback.person, join)
                self._ledger.tell(gone, feedback.person, "withdrawn" if withdrawal else "superseded", event_id)
        by = self._revisions.by(event_id, feedback.person)
        if withdrawal or by:
            self._ledger.take(event_id, "withdrawn")
            self._ledger.tell(event_id, feedback.person, "superseded" if by else "withdrawn", by)
            return True
        return False

    def _withdraw(self, event_id: str, person: str, join: Join) -> None:
        """Withdraw the person's vote, if there is one; one that has been learned from is not replayed again."""
        if self._ledger.known(event_id):
            self.revoked.append((event_id, person))
            return
        waiting = self._votes.get(event_id)
        if waiting is not None and waiting[0].person == person:
            self._drop(event_id)
        elif join.withdraw(event_id, person):
            self._ledger.take(event_id, "withdrawn")

    def _drop(self, event_id: str, by: str = "") -> None:
        """Another vote, or none, stands in the place of this one, which waits."""
        vote = self._let_go(event_id)
        self._ledger.take(event_id, "withdrawn")
        self._ledger.tell(event_id, vote.person, "superseded" if by else "withdrawn", by)

    def _let_go(self, event_id: str) -> Vote:
        vote, _ = self._votes.pop(event_id)
        self._traces.pop(event_id, None)
        self._waiting.pop(_digest(vote), None)
        return vote

    def to_json(self) -> dict[str, Any]:
        """What `restore` takes."""
        return {
            "votes": [to_json(vote) for vote, _ in self._votes.values()],
            "revisions": self._revisions.to_json(),
            "revoked": self.revoked,
            "erasures": self.erasures.to_json(),
            "learned": list(self._learned),
            "traces": self._traces,
        }

    def restore(self, values: Mapping[str, Any]) -> None:
        self._votes, self._waiting = {}, {}
        self._traces = dict(values.get("traces", {}))  # which earlier releases did not keep
        self._learned = OrderedDict.fromkeys(values.get("learned", ()))  # which earlier releases did not remember
        for item in values["votes"]:
            if is_shredded(item):
                self._ledger.erase(item["event_id"], item["person"])
            else:
                self.add(from_json(item))
        self._revisions = Revisions.from_json(values["revisions"])
        self.revoked = [(event_id, person) for event_id, person in values["revoked"]]
        self.erasures = Erasures.from_json(values.get("erasures", {}))  # earlier releases knew none


def _digest(vote: Vote) -> str:
    return hashlib.blake2b(repr(subject(vote)).encode(), digest_size=8).hexdigest()
