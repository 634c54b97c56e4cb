"""What became of the votes that are tallied: the trainer's facts, and the versions that have learned from them.

board of outcomes ─▶ a vote waits no more; or a reward version was trained with it ─▶ a policy version trained with
                     that one is live ─▶ seconds since the click
"""

from prometheus_client import Histogram

from rlhf_online.feedback.outcomes import Mark, OutcomeBoard
from services.chat.console.tally import LIVE, SETTLED, TRAINED, WAITING, Tally

CLICKS = 1_000
"""The last votes whose way to a live version is kept."""


class Fates:
    """Of the votes in `tally`, as `board` tells them; `to_live` is the metric of their way to a live version."""

    def __init__(self, tally: Tally, board: OutcomeBoard, to_live: Histogram) -> None:
        self._tally = tally
        self._board = board
        self._to_live = to_live

    def settle(self, first_reward_ms: int) -> None:
        """Take in what the trainer told since the last time. Where the first reward version, of `first_reward_ms` (0:
        there is none), is older than all that the board still tells, earlier votes wait no more: nothing will be told.

        Raises ReadModelUnavailable, OSError, FileDamaged.
        """
        more, unknown_ms = bool(self._tally.waiting()[0]), 0
        while more:
            [(number, read)] = self._tally.rows("SELECT number, read FROM board") or [(0, 0)]
            facts = self._board.since(Mark(number, read))
            self._tally.catch_up()  # the votes that these facts are about, if they were taken here
            if (number, read) == (0, 0) and 0 < first_reward_ms < facts.begun_ms:
                unknown_ms = facts.begun_ms
            with self._tally.transaction():
                for key, outcome in facts.said:
                    self._settle(key, outcome.detail if outcome.word == "trained" else "")
                if not facts.more and unknown_ms:
                    self._forget_before(unknown_ms)
                self._tally.execute(
                    "INSERT OR REPLACE INTO board VALUES (0, ?, ?)", (facts.mark.number, facts.mark.read)
                )
            more = facts.more

    def _settle(self, key: str, reward: str) -> None:
        change = f"UPDATE vote SET state = ?, reward = ? WHERE key = ? AND state = {WAITING}"
        if self._tally.execute(change, (TRAINED if reward else SETTLED, reward, key)).rowcount:
            self._tally.count("waiting", -1)
            if reward:
                self._tally.execute("INSERT OR IGNORE INTO taught VALUES (?)", (reward,))

    def _forget_before(self, ms: int) -> None:
        change = f"UPDATE vote SET state = {SETTLED} WHERE state = {WAITING} AND accepted_ms < ?"
        self._tally.count("waiting", -self._tally.execute(change, (ms,)).rowcount)

    def taught(self) -> list[str]:
        """Reward versions that no live policy has learned from yet."""
        return [reward for (reward,) in self._tally.rows("SELECT reward FROM taught ORDER BY reward")]

    def went_live(self, reward: str, policy: str, at_ms: int) -> None:
        """What the reward version learned is live, in `policy`, since `at_ms`, 0: nobody knows since when."""
        whose = f"FROM vote WHERE state = {TRAINED} AND reward = ?"
        accepted = self._tally.rows(f"SELECT accepted_ms {whose}", (reward,)) if at_ms else []
        with self._tally.transaction():
            if at_ms:
                took = "MAX(0, ? - accepted_ms) / 1000.0"
                added = f"INSERT INTO click (seconds) SELECT {took} {whose} ORDER BY accepted_ms"
                self._tally.execute(added, (at_ms, reward))
                self._tally.execute("DELETE FROM click WHERE n <= (SELECT MAX(n) FROM click) - ?", (CLICKS,))
            change = f"UPDATE vote SET state = {LIVE} WHERE state = {TRAINED} AND reward = ?"
            self._tally.execute(change, (reward,))
            self._tally.execute("DELETE FROM taught WHERE reward = ?", (reward,))
        serves_ms = max(at_ms, self._tally.served_ms(policy))
        for (accepted_ms,) in accepted:
            self._to_live.labels("swapped").observe(max(0, serves_ms - accepted_ms) / 1000)

    def clicks(self) -> list[float]:
        """Seconds to a live version, of the last CLICKS votes for which they are known, ascending."""
        return sorted(seconds for (seconds,) in self._tally.rows("SELECT seconds FROM click"))
