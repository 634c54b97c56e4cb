"""The keys that hold now: those of the file, which is read again whenever it changes, and those of the environment.

A file that is damaged or gone changes nothing: the last good one holds, and `trouble` says what is wrong. Once there is
a file, or the variable, every call needs a key, even if it lists none: whatever happens to the file, it opens nothing.
"""

import asyncio
import os
from datetime import UTC, datetime
from pathlib import Path

import structlog

from rlhf_online import keys
from rlhf_online.errors import FileDamaged, SecretLost
from rlhf_online.keys import Key
from services.chat.bodies.api_error import ApiError

POLL_S = 0.5

Mark = tuple[int, ...] | None
"""By which another content of the file is told; None where there is no file, or none that can be looked at."""


class Keys:
    """Raises SecretLost at a start with a file, or a variable, that holds no keys."""

    def __init__(self, path: Path) -> None:
        self.trouble = ""
        self._path = path
        self._mark = self._look()
        text = os.environ.get(keys.VARIABLE)
        try:
            self._fixed = keys.parse(text, keys.VARIABLE) if text is not None else ()
            read = keys.read(path)
        except (FileDamaged, OSError) as error:
            raise SecretLost(str(error)) from error
        self.required = text is not None or read is not None
        self._by_id = self._together(read or ())

    def find(self, token: str) -> Key:
        """The entry of a key that holds now: one look-up, however many there are. Raises ApiError: 401, saying why."""
        key = self._by_id.get(keys.id_of(token))
        if key is None or not key.is_of(token):
            raise unauthenticated(
                "this key is not known here: `rlhf-online keys create` makes one" if token else
                "a key is needed: Authorization: Bearer KEY; `rlhf-online keys create` makes one",
                "invalid_api_key" if token else "missing_api_key",
            )  # fmt: skip
        if key.revoked is not None:
            raise unauthenticated(f"key {key.id} was revoked on {key.revoked:%Y-%m-%d}: use another", "revoked_api_key")
        if key.expired(datetime.now(UTC)):
            raise unauthenticated(f"key {key.id} expired at {key.expires}: use another", "expired_api_key")
        return key

    async def follow(self) -> None:
        """Read the file again whenever it changes, until cancelled."""
        while True:
            await asyncio.sleep(POLL_S)
            await asyncio.to_thread(self.refresh)

    def refresh(self) -> None:
        """Read the file again if it is another one."""
        if (mark := self._look()) == self._mark:
            return
        try:
            if (read := keys.read(self._path)) is None:
                raise FileDamaged(f"{self._path} is gone: bring it back from a backup")
        except FileDamaged as error:
            self.trouble = f"{error}; until then the keys that were read before hold"
            structlog.get_logger().warning("keys", now=self.trouble)
        except OSError:  # too many open files: it is tried again
            return
        else:
            self._by_id, self.required, self.trouble = self._together(read), True, ""
            structlog.get_logger().info("keys", read=len(read))
        self._mark = mark

    def _together(self, read: tuple[Key, ...]) -> dict[str, Key]:
        return {key.id: key for key in (*read, *self._fixed)}

    def _look(self) -> Mark:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_mode


def unauthenticated(message: str, code: str) -> ApiError:
    """401: who calls is not known."""
    return ApiError(message, status=401, type="authentication_error", code=code)
