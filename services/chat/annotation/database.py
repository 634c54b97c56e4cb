"""The tables of the annotators' queue: SQLite, synced at each transaction.

What people said is in the log alone, as votes that name their item; here is what was made of it. A database that is
lost takes items, reservations and skips with it, and no vote: items that are added again under their names have the
votes that the log still holds.
"""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rlhf_online import sqlite
from rlhf_online.durable import make_folder
from rlhf_online.errors import FileDamaged

FILE = "queue.sqlite"
ERASED = 1
"""The file's `user_version` while it may hold what was erased."""
SCHEMA = """
CREATE TABLE IF NOT EXISTS item (
    number INTEGER PRIMARY KEY, item_id TEXT UNIQUE, answers TEXT, people INTEGER, finished INTEGER, tells INTEGER,
    said BLOB
);
CREATE INDEX IF NOT EXISTS item_of ON item (answers);
CREATE INDEX IF NOT EXISTS item_open ON item (number) WHERE NOT finished;
CREATE TABLE IF NOT EXISTS stems_from (item_id TEXT, origin TEXT, asked_ms INTEGER);
CREATE INDEX IF NOT EXISTS stems_by_origin ON stems_from (origin);
CREATE TABLE IF NOT EXISTS given (
    item_id TEXT, person TEXT, state TEXT, until_ms INTEGER, shown TEXT, reason TEXT, event_id TEXT, said TEXT,
    PRIMARY KEY (item_id, person)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS given_to ON given (person, state);
CREATE INDEX IF NOT EXISTS given_by_vote ON given (event_id) WHERE event_id != '';
CREATE TABLE IF NOT EXISTS erased (origin TEXT PRIMARY KEY, erased_ms INTEGER) WITHOUT ROWID;
"""


class QueueDatabase:
    """The database in `folder`, which is made. From any thread. Raises FileDamaged if it cannot be read.

    item         what is judged: `answers` are their names in an order of their own, `said` is what is shown
    stems_from   whose conversations an item shows, by their origin: they may erase it
    given        an item and a person: `state` is held, done or skipped; `shown` the order drawn for them; `said` what
                 they thought of it, by the vote `event_id`
    """

    def __init__(self, folder: Path) -> None:
        make_folder(folder, mode=0o700)
        self.path = path = folder / FILE
        self.is_new = not path.exists()
        self._lock = threading.Lock()
        try:
            self._database = sqlite.connect(path, synchronous="FULL")
            self._database.executescript(SCHEMA)
            self._beside = sqlite.connect(path, synchronous="FULL")
        except sqlite3.DatabaseError as error:
            remedy = "bring it back from a backup, or remove it and add the items again: no vote is lost"
            raise FileDamaged(f"{path} cannot be read ({error}): {remedy}") from error

    def close(self) -> None:
        with self._lock:
            self._database.close()
            self._beside.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing, and on disk at the end. One at a time. Raises ReadModelUnavailable."""
        with sqlite.usable(self.path), self._lock, sqlite.transaction(self._database):
            yield self._database

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """As of the last transaction, without waiting for one that is being synced. Raises ReadModelUnavailable."""
        with sqlite.usable(self.path):
            return self._beside.execute(query, values).fetchall()

    def scrub(self) -> None:
        """Write the file anew if something was erased: `secure_delete` leaves the copies of rows that had moved."""
        with sqlite.usable(self.path), self._lock:
            if self._database.execute("PRAGMA user_version").fetchone() == (ERASED,):
                for step in ("VACUUM", "PRAGMA user_version = 0", "PRAGMA wal_checkpoint(TRUNCATE)"):
                    self._database.execute(step).fetchall()


def settle(database: sqlite3.Connection, item_id: str) -> None:
    """Whether as many people have judged the item as it wants."""
    done = "(SELECT COUNT(*) FROM given WHERE given.item_id = item.item_id AND state = 'done')"
    database.execute(f"UPDATE item SET finished = {done} >= people WHERE item_id = ?", (item_id,))
