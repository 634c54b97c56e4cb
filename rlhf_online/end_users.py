"""The end users of a backend: it signs their names, so that a browser can carry one and not change it.

    X-End-User: <base64url(name)>.<expiry, seconds since 1970>.<hex(HMAC-SHA-256(secret, "<base64url(name)>.<expiry>"))>

The secret belongs to one of the backend's keys (`rlhf-online keys create --signs`) and stays with the backend. Over
gRPC the same stands in the metadata `x-end-user`. With the Python client of OpenAI:

    OpenAI(base_url=…, api_key=KEY, default_headers={"X-End-User": sign(SECRET, "ann")})

A signature holds for a day at most: with that a forgotten one ends, and an expiry in milliseconds is noticed.
"""

import base64
import hmac
import time
from datetime import UTC, datetime

from rlhf_online.errors import InvalidInput

HEADER = "X-End-User"
LIFETIME_S = 3600.0
LONGEST_S = 86_400.0
SKEW_S = 60.0
"""How far the clocks of the two may differ."""
LONGEST_NAME = 256


class SignatureRefused(InvalidInput):
    """A name that was not signed, or not for now. `code` is the mistake in a word."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


def sign(secret: str, name: str, *, lifetime_s: float = LIFETIME_S) -> str:
    """The header's value for the end user `name`, from now on. Raises InvalidInput for a name that none can have."""
    if not name or len(name) > LONGEST_NAME:
        raise InvalidInput(f"the end user's name has {len(name)} characters: expected 1 to {LONGEST_NAME}")
    encoded = base64.urlsafe_b64encode(name.encode()).rstrip(b"=").decode()
    signed = f"{encoded}.{int(time.time() + lifetime_s)}"
    return f"{signed}.{_mac(secret, signed)}"


def verify(secret: str, value: str) -> str:
    """The name that the header says. Raises SignatureRefused."""
    signed, _, mac = value.rpartition(".")
    encoded, _, expiry = signed.partition(".")
    if not hmac.compare_digest(mac.lower().encode(errors="replace"), _mac(secret, signed).encode()):
        raise SignatureRefused(
            f"the signature in {HEADER} is not of this name and expiry by the signing secret of this key",
            "invalid_signature",
        )
    now = time.time()
    try:
        name = base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True).decode()
        expires = int(expiry)
    except ValueError:
        name, expires = "", 0
    if not name or len(name) > LONGEST_NAME or expires < 0:
        raise SignatureRefused(
            f"{HEADER} holds no name and expiry: expected <name>.<expiry>.<HMAC>", "invalid_signature"
        )
    if expires > now + LONGEST_S + SKEW_S:
        raise SignatureRefused(
            f"the expiry in {HEADER} is more than a day away, or no number of seconds since 1970", "invalid_signature"
        )
    if expires <= now - SKEW_S:
        raise SignatureRefused(
            f"the signature in {HEADER} expired at {datetime.fromtimestamp(expires, UTC)} by this machine's clock: "
            "sign the name anew",
            "expired_signature",
        )
    return name


def _mac(secret: str, signed: str) -> str:
    return hmac.digest(secret.encode(), signed.encode(errors="replace"), "sha256").hex()
