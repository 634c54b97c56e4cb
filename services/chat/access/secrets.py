"""Whether the state folder still holds the secrets that this process works with: it reads them once, at its start.

Whoever removes, empties or replaces one of the files changes nothing until the next start, which is then refused, or
goes on with other people and another credential. So it is told while the right value can still be brought back; and
what is wrong with the file of keys, which is read again whenever it changes, is told with it.
"""

import structlog

from rlhf_online.state import OPERATOR_TOKEN, PERSON_SALT, StateDir
from services.chat.access.keys import Keys

INTACT = "ok"


class Secrets:
    """The files as they are now, which are those that the service reads."""

    def __init__(self, state: StateDir, keys: Keys) -> None:
        self._state = state
        self._keys = keys
        self._held = {name: self._read(name) for name in (OPERATOR_TOKEN, PERSON_SALT)}
        self._told = INTACT

    def check(self) -> str:
        """ "ok", or what is wrong with a file; logged when it changes."""
        told = next((why for name in self._held if (why := self._wrong(name))), self._keys.trouble or INTACT)
        if told != self._told:
            self._told = told
            structlog.get_logger().warning("secrets", now=told)
        return told

    def _wrong(self, name: str) -> str:
        if (now := self._read(name)) == self._held[name]:
            return ""
        happened = "is gone, or cannot be read" if now is None else "was changed" if now else "is empty"
        path = self._state.root / name
        return f"{path} {happened}: bring it back from a backup; the service works with what it read at its start"

    def _read(self, name: str) -> str | None:
        try:
            return (self._state.root / name).read_text().strip()
        except (OSError, UnicodeDecodeError):
            return None
