"""People's content keys, as a process uses them: those in use in memory, all others in the key store.

Invariants: a key is on the store's disk before anything is sealed with it; what was sealed with a deleted key can be
opened by nobody, and is told (None) from what cannot be opened now (KeysUnavailable).
"""

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from rlhf_online.errors import KeysUnavailable
from rlhf_online.keystore.key import ID_DIGITS, Key, derived
from rlhf_online.keystore.places import Entry
from rlhf_online.keystore.vault import Vault

FRESH_S = 60.0
"""How long a key that another process may have deleted is used without asking the store again."""
REMEMBERED = 200_000
SEALED = b"\x01sealed "
"""How content begins that names its key; no JSON begins so."""

T = TypeVar("T")


class Patience(Protocol):
    """Makes a call that may raise KeysUnavailable; may make it again until it succeeds."""

    def __call__(self, call: Callable[[], T], /) -> T: ...


def impatient(call: Callable[[], T]) -> T:
    return call()


class Keyring:
    """The keys in `vault`. From any thread.

    `patience` makes each call, and may wait for a store that is away: who learns waits, who serves does not. `fresh_s`:
    see FRESH_S; who is told of each deletion needs none.
    """

    def __init__(self, vault: Vault, *, fresh_s: float = FRESH_S, patience: Patience = impatient) -> None:
        self.vault = vault
        self._fresh_s = fresh_s
        self._patience = patience
        self._entries: OrderedDict[str, tuple[Entry | None, float]] = OrderedDict()
        self._keys: OrderedDict[str, Key] = OrderedDict()
        self._forgotten: OrderedDict[str, float] = OrderedDict()
        """Who was forgotten lately, and when: their key may be deleted only now, after it was read again."""
        self._deleted: OrderedDict[str, None] = OrderedDict()
        """Ids of keys that were deleted: no key has one of them again."""
        self._lock = threading.Lock()

    def at_hand(self, person: str) -> bool:
        """Whether `current` would answer from memory."""
        with self._lock:
            found = self._entries.get(person)
            return found is not None and bool(found[0] and found[0].id) and self._is_fresh(person, found[1])

    def current(self, person: str, *, make: bool = True) -> Key | None:
        """The person's key, made if there is none yet and `make`.

        None: not to be made, and there is none. Raises KeysUnavailable, where not even memory has it.
        """
        return self._patience(lambda: self._current(person, make))

    def _current(self, person: str, make: bool) -> Key | None:
        entry = self._entry(person)
        while entry is None or not entry.id:
            if not make:
                return None
            self.vault.make(person, entry)
            entry = self._entry(person, fresh=True)
        if make and entry.id not in self._keys:
            self.vault.settle(person)
        return self._key(person, entry)

    def erased(self, person: str) -> bool:
        """Whether the person's key was deleted, and there is no new one. Raises KeysUnavailable."""
        entry = self._patience(lambda: self._entry(person))
        return entry is not None and not entry.id

    def find(self, person: str, key_id: str) -> Key | None:
        """The key of that id; None if it was deleted.

        Raises KeysUnavailable where the store is away, or knows nothing of such a key.
        """
        return self._patience(lambda: self._find(person, key_id))

    def _find(self, person: str, key_id: str) -> Key | None:
        if key_id in self._deleted:
            return None
        entry = self._entry(person)
        if entry is None or entry.id != key_id:
            entry = self._entry(person, fresh=True)
        if entry is not None and entry.id == key_id:
            return self._key(person, entry)
        if entry is not None and entry.tells_deleted(key_id):
            with self._lock:
                self._deleted[key_id] = None
                if len(self._deleted) > REMEMBERED:
                    self._deleted.popitem(last=False)
            return None
        raise KeysUnavailable(
            f"the key store {self.vault.name} has no key {key_id}, and does not know that it was deleted: set "
            "keystore.url to the store of the service that wrote it, or bring the newest copy of the key store back"
        )

    @staticmethod
    def together(keys: Sequence[Key]) -> Key:
        """The key for what stems from several persons: it is gone as soon as that of one of them is."""
        if len(keys) == 1:
            return keys[0]
        return Key("+".join(key.id for key in keys), b"".join(derived(key.secret, b"shared") for key in keys))

    def seal_for(self, person: str, content: bytes, about: str) -> bytes | None:
        """The content under the person's key, which it names; as it is where they never had one; None where it was
        deleted. Raises KeysUnavailable."""
        if self.erased(person):
            return None
        if (key := self.current(person, make=False)) is None:
            return content
        return SEALED + key.id.encode() + key.seal(content, about.encode())

    def open_for(self, person: str, content: bytes, about: str) -> bytes | None:
        """What `seal_for` was given; None where the key was deleted. Raises KeysUnavailable, UndecodableEvent."""
        if not content.startswith(SEALED):
            return content
        key_id, box = content[len(SEALED) :][:ID_DIGITS].decode(), content[len(SEALED) + ID_DIGITS :]
        key = self.find(person, key_id)
        return None if key is None else key.open(box, about.encode())

    def erase(self, person: str) -> None:
        """Delete the person's key, if there is one, for good. Raises KeysUnavailable: it may not be deleted."""
        self.vault.delete(person)
        self.forget(person)

    def forget(self, person: str) -> None:
        """Drop what memory has of the person: another process may have deleted the key."""
        with self._lock:
            found = self._entries.pop(person, None)
            if found and found[0]:
                self._keys.pop(found[0].id, None)
            self._forgotten[person] = time.monotonic()
            self._forgotten.move_to_end(person)
            if len(self._forgotten) > REMEMBERED:
                self._forgotten.popitem(last=False)

    def _is_fresh(self, person: str, read_s: float) -> bool:
        """Whether what was read of the person then still holds."""
        now, forgotten_s = time.monotonic(), self._forgotten.get(person, -math.inf)
        doubtful = read_s < forgotten_s + FRESH_S
        return now < read_s + (min(FRESH_S, self._fresh_s) if doubtful else self._fresh_s)

    def _entry(self, person: str, *, fresh: bool = False) -> Entry | None:
        now = time.monotonic()
        with self._lock:
            found = self._entries.get(person)
            if found is not None and not fresh and self._is_fresh(person, found[1]):
                return found[0]
        try:
            entry = self.vault.read(person)
        except KeysUnavailable:
            if found is None or fresh:
                raise
            return found[0]
        with self._lock:
            if found and found[0] and (entry is None or found[0].id != entry.id):
                self._keys.pop(found[0].id, None)
            if now <= self._forgotten.get(person, -math.inf):
                return entry  # it may have been deleted meanwhile
            self._entries[person] = entry, now
            self._entries.move_to_end(person)
            if len(self._entries) > REMEMBERED:
                self._entries.popitem(last=False)
        return entry

    def _key(self, person: str, entry: Entry) -> Key:
        with self._lock:
            known = self._keys.get(entry.id)
        if known is not None:
            return known
        key = self.vault.key(person, entry)
        with self._lock:
            self._keys[entry.id] = key
            if len(self._keys) > REMEMBERED:
                self._keys.popitem(last=False)
        return key
