"""A content key: AES-256-GCM (NIST SP 800-38D) with a nonce that is a keyed digest of what is sealed.

A synthetic IV, as in Rogaway and Shrimpton 2006: the same content sealed again is the same bytes, so that records and
checkpoints stay functions of the log; two contents share one of 2⁹⁶ nonces only by accident.
"""

import hashlib

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from rlhf_online.errors import UndecodableEvent

KEY_BYTES, NONCE_BYTES, ID_DIGITS = 32, 12, 16


class Key:
    """A person's key, or that of several persons together, which needs all of theirs."""

    __slots__ = ("_box", "_nonces", "id", "secret")

    def __init__(self, key_id: str, secret: bytes) -> None:
        self.id = key_id
        self.secret = secret
        self._box = AESGCM(derived(secret, b"content"))
        self._nonces = derived(secret, b"nonce")

    def seal(self, content: bytes, about: bytes) -> bytes:
        """The content, sealed; whoever opens it must say the same of it in `about`."""
        said = len(about).to_bytes(8, "little") + about
        nonce = hashlib.blake2b(said + content, digest_size=NONCE_BYTES, key=self._nonces).digest()
        return nonce + self._box.encrypt(nonce, content, about)

    def open(self, sealed: bytes, about: bytes) -> bytes:
        """What was sealed. Raises UndecodableEvent for what is damaged, or was said to be about something else."""
        try:
            return self._box.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], about)
        except (InvalidTag, ValueError) as error:
            raise UndecodableEvent("its sealed content is damaged, or was moved here from another record") from error


def derived(secret: bytes, purpose: bytes) -> bytes:
    """A key for one purpose."""
    key = hashlib.sha256(secret).digest()
    return hashlib.blake2b(b"rlhf-online " + purpose, digest_size=KEY_BYTES, key=key).digest()
