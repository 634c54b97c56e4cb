"""Votes that wait for a cycle, and their revisions: replaced, or withdrawn.

Invariant: every vote gets its disposition in the ledger once: when it is taken, or withdrawn.
"""

from collections.abc import Mapping
from typing import Any

from rlhf_online.events import Feedback, Withdrawal
from rlhf_online.feedback.held_out import is_held_out
from rlhf_online.feedback.join import Join
from rlhf_online.feedback.revisions import Revisions
from rlhf_online.feedback.votes import Vote, from_json, to_json
from rlhf_online.training.ledger import Ledger


class JoinedVotes:
    """`held_out` is the share of the conversations whose votes are held out for evaluation."""

    def __init__(self, ledger: Ledger, held_out: float) -> None:
        self.revoked: list[tuple[str, str]] = []
        """(event id, person) of votes withdrawn after they were taken, if they are that person's."""
        self._ledger = ledger
        self._held_out = held_out
        self._revisions = Revisions()
        # Each with whether it is held out.
        self._votes: dict[str, tuple[Vote, bool]] = {}

    def __len__(self) -> int:
        return len(self._votes)

    def __contains__(self, event_id: str) -> bool:
        return event_id in self._votes

    @property
    def trainable(self) -> int:
        """Votes that the next `take` would give to learn from."""
        return sum(not held_out for _, held_out in self._votes.values())

    def add(self, vote: Vote) -> None:
        self._votes[vote.event_id] = vote, is_held_out(vote.conversation_id, self._held_out)

    def take(self) -> tuple[list[Vote], list[Vote]]:
        """The votes to learn from and those held out, each with its disposition in the ledger from now on."""
        votes: tuple[list[Vote], list[Vote]] = [], []
        for vote, held_out in self._votes.values():
            if self._ledger.take(vote.event_id, "held_out" if held_out else "trained"):
                votes[held_out].append(vote)
        self._votes = {}
        return votes

    def take_revoked(self) -> list[tuple[str, str]]:
        """What `revoked` holds, which is empty then."""
        revoked, self.revoked = self.revoked, []
        return revoked

    def revise(self, event_id: str, feedback: Feedback, join: Join) -> bool:
        """Take back what the feedback replaces, be it here or in `join`.

        True if there is no more to the feedback: it is a withdrawal, or was itself replaced.
        """
        if feedback.replaces:
            for gone in self._revisions.replace(event_id, feedback.person, feedback.replaces):
                self._withdraw(gone, feedback.person, join)
        if isinstance(feedback.kind, Withdrawal) or self._revisions.replaced(event_id, feedback.person):
            self._ledger.take(event_id, "withdrawn")
            return True
        return False

    def _withdraw(self, event_id: str, person: str, join: Join) -> None:
        """Withdraw the person's vote, if there is one; one that has been learned from is not replayed again."""
        if self._ledger.known(event_id):
            self.revoked.append((event_id, person))
            return
        waiting = self._votes.get(event_id)
        if waiting is not None and waiting[0].person == person:
            del self._votes[event_id]
            self._ledger.take(event_id, "withdrawn")
        elif join.withdraw(event_id, person):
            self._ledger.take(event_id, "withdrawn")

    def to_json(self) -> dict[str, Any]:
        """What `restore` takes."""
        return {
            "votes": [to_json(vote) for vote, _ in self._votes.values()],
            "revisions": self._revisions.to_json(),
            "revoked": self.revoked,
        }

    def restore(self, values: Mapping[str, Any]) -> None:
        self._votes = {}
        for item in values["votes"]:
            self.add(from_json(item))
        self._revisions = Revisions.from_json(values["revisions"])
        self.revoked = [(event_id, person) for event_id, person in values["revoked"]]
