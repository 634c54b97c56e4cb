"""A key store: which one it is, and people's keys in it, wrapped where there is a key for that.

Invariant: whatever is wrong with it raises KeysUnavailable, and never looks like a key that was deleted.
"""

import base64
import hashlib
import json
import secrets
from dataclasses import replace
from pathlib import Path

import structlog
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from rlhf_online.durable import fsync_folder, read_text, write_bytes
from rlhf_online.errors import FileDamaged, KeysUnavailable, SecretLost
from rlhf_online.keystore.key import ID_DIGITS, KEY_BYTES, NONCE_BYTES, Key, derived
from rlhf_online.keystore.places import STORE, Entry, KeyPlace

FORMAT = 1
KEK = "RLHF_KEYSTORE_KEK"
SEALED_WITH = "keystore"
"""A file of the log's folder: the identity of the key store that it is sealed with."""


class Vault:
    """The keys in `place`. Safe for several threads."""

    def __init__(self, place: KeyPlace, kek: str = "") -> None:
        self._place = place
        self._wrap = AESGCM(derived(kek.encode(), b"kek")) if kek else None
        self._kek = hashlib.sha256(b"rlhf-online kek " + kek.encode()).hexdigest()[:16] if kek else ""
        self._unchecked: Path | None = None
        """A log that may turn out to be sealed with another key store."""

    @property
    def name(self) -> str:
        """Where it is, for people."""
        return self._place.name

    # Which one it is

    def identity(self, *, make: bool = True) -> str:
        """Names the key store for good; one that is new is made, if it may be.

        Raises KeysUnavailable; SecretLost where its keys were wrapped with another KEK.
        """
        new = {"format": FORMAT, "identity": secrets.token_hex(16), "kek": self._kek}
        try:
            if (text := self._place.store(json.dumps(new).encode() if make else None)) is None:
                raise KeysUnavailable(f"the key store {self.name} is not there: mount it, or set keystore.url to it")
            found = json.loads(text)
            identity, kek, form = str(found["identity"]), str(found["kek"]), found["format"]
        except (ValueError, KeyError, TypeError) as error:
            raise SecretLost(
                f"{self.name} is no key store: bring its file `{STORE}` back from the copy of the key store"
            ) from error
        except OSError as error:
            raise self._away(error) from error
        if form != FORMAT:
            raise SecretLost(f"the key store in {self.name} has format {form}: use a newer release")
        if kek != self._kek:
            wanted = "set it to the secret that the keys were wrapped with" if kek else "unset it"
            raise SecretLost(f"{KEK} is not what the keys in {self.name} were wrapped with: {wanted}")
        return identity

    def is_there(self) -> bool:
        """Whether the key store was made yet. Raises KeysUnavailable."""
        try:
            return self._place.store(None) is not None
        except OSError as error:
            raise self._away(error) from error

    def bind(self, log: Path) -> None:
        """Make keys for the log in that folder, if this is the key store that it is sealed with.

        A store that is away is asked again before the first key is made. Raises SecretLost for another store.
        """
        self._unchecked = log
        try:
            self._check()
        except KeysUnavailable as error:
            structlog.get_logger().warning("nothing can be sealed for people who are new", why=str(error))

    def _check(self) -> None:
        """Raises SecretLost, KeysUnavailable."""
        if (log := self._unchecked) is None:
            return
        known = read_text(log / SEALED_WITH, "bring it back, or remove it if nothing in this log was ever sealed")
        if known is not None and known != self.identity(make=False):
            raise SecretLost(
                f"the log in {log} is sealed with another key store ({known}) than that in {self.name}: set "
                "keystore.url to that one, mount it, or bring its copy back"
            )
        if known is None:
            write_bytes(log / SEALED_WITH, self.identity().encode())
        else:
            fsync_folder(log)  # whoever wrote it may not have lived to do this
        self._unchecked = None

    # Keys. All raise KeysUnavailable.

    def read(self, person: str) -> Entry | None:
        """The person's record, None if there is none."""
        try:
            return self._place.read(person)
        except (OSError, FileDamaged) as error:
            raise self._away(error) from error

    def make(self, person: str, before: Entry | None) -> None:
        """Give a person without a key one, unless another process has."""
        try:
            self._check()
        except (SecretLost, FileDamaged, OSError) as error:
            raise KeysUnavailable(str(error)) from error
        secret, key_id = secrets.token_bytes(KEY_BYTES), secrets.token_hex(ID_DIGITS // 2)
        if self._wrap is not None:
            nonce = secrets.token_bytes(NONCE_BYTES)
            secret = nonce + self._wrap.encrypt(nonce, secret, _about(person, key_id))
        key = base64.b64encode(secret).decode()
        self._change(person, replace(before or Entry(), id=key_id, key=key), before)

    def settle(self, person: str) -> None:
        """Before anything is sealed with a key that another process made."""
        try:
            self._place.settle(person)
        except OSError as error:
            raise self._away(error) from error

    def delete(self, person: str) -> None:
        """For good, whatever key the person has."""
        while True:
            entry = self.read(person)
            if entry is not None and not entry.id and entry.erased:
                return
            if self._change(person, (entry or Entry()).without_key(), entry):
                return

    def key(self, person: str, entry: Entry) -> Key:
        """The key in the person's record."""
        try:
            secret = base64.b64decode(entry.key, validate=True)
            if self._wrap is not None:
                about = _about(person, entry.id)
                secret = self._wrap.decrypt(secret[:NONCE_BYTES], secret[NONCE_BYTES:], about)
            if len(secret) != KEY_BYTES:
                raise ValueError(f"{len(secret)} bytes")
        except (InvalidTag, ValueError) as error:
            raise KeysUnavailable(
                f"the key {entry.id} in {self.name} cannot be unwrapped: bring its record back, and {KEK} as it was"
            ) from error
        return Key(entry.id, secret)

    def _change(self, person: str, entry: Entry, expected: Entry | None) -> bool:
        try:
            return self._place.replace(person, entry, expected=expected)
        except (OSError, FileDamaged) as error:
            raise self._away(error) from error

    def _away(self, error: Exception) -> KeysUnavailable:
        return KeysUnavailable(
            f"the key store {self.name} cannot be used now ({error}): mount or start it, nothing is lost until then"
        )


def _about(person: str, key_id: str) -> bytes:
    return f"{key_id} {person}".encode()
