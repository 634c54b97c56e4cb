"""Tells people what became of their votes: what a commit has settled, once it is made, and what waits.

Not a word of it decides anything: where the board cannot be written for now, a commit waits as for any file, and what
waits is told later; where it is damaged, training goes on without.
"""

import time
from typing import Any

import structlog

from rlhf_online.errors import FileDamaged
from rlhf_online.feedback.outcomes import OutcomeBoard, fact, vote_key
from rlhf_online.training.intake import Intake
from rlhf_online.training.ledger import Ledger

SHOWN_EVERY_S = 1.0
MAX_WAITING = 10_000
"""Votes without their answers that are shown; those beyond them count as accepted until they are joined."""


class VoteOutcomes:
    """Brings what `ledger` and `intake` say to `board`."""

    def __init__(self, board: OutcomeBoard, intake: Intake, ledger: Ledger) -> None:
        self._board = board
        self._intake = intake
        self._ledger = ledger
        self._shown: Any = None
        self._shown_s = -SHOWN_EVERY_S

    def publish(self) -> None:
        """Tell what the last commit has settled; after a kill, again. Raises OSError."""
        try:
            self._board.publish(self._ledger.news)
        except FileDamaged as error:
            structlog.get_logger().error("what became of votes cannot be told", why=str(error))
        self._ledger.news = {}

    def show(self) -> None:
        """Tell what was read and waits, if that has changed, at most once in SHOWN_EVERY_S."""
        now = time.monotonic()
        state = (dict(self._intake.position), self._intake.pending, len(self._ledger.news))
        if state == self._shown or now - self._shown_s < SHOWN_EVERY_S:
            return
        waiting = self._intake.join.waiting()[-MAX_WAITING:]
        facts = {vote_key(*vote): fact("waiting") for vote in waiting}
        facts |= {vote_key(*vote): fact("joined") for vote in self._intake.votes.waiting()}
        try:
            self._board.show(facts | self._ledger.news)
        except (OSError, FileDamaged) as error:
            structlog.get_logger().warning("what waits cannot be told", why=str(error))
        self._shown, self._shown_s = state, now
