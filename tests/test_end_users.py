"""A backend's signature of an end user's name: only its secret makes one, and it holds for its time."""

import hashlib
import hmac
import time
from base64 import urlsafe_b64encode

import pytest

from rlhf_online import end_users
from rlhf_online.end_users import SignatureRefused, sign, verify
from rlhf_online.errors import InvalidInput

SECRET, NOW = "s" * 43, 1_800_000_000.0


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: NOW)


def by_hand(name: bytes, expiry: object, secret: str = SECRET) -> str:
    """As the documentation says it, for backends in another language."""
    signed = f"{urlsafe_b64encode(name).rstrip(b'=').decode()}.{expiry}"
    return f"{signed}.{hmac.new(secret.encode(), signed.encode(), hashlib.sha256).hexdigest()}"


@pytest.mark.parametrize("name", ["ann", "Ærøskøbing 日本", "a.b", "x" * 256, "\n"])
def test_what_is_signed_is_what_is_read(name: str) -> None:
    assert verify(SECRET, sign(SECRET, name)) == name
    assert sign(SECRET, name) == by_hand(name.encode(), int(NOW) + 3600)


def test_a_signature_is_the_same_for_good() -> None:
    mac = "356ba3de5ac085880c912acbec5289cbecd4b54f3ccdcf561c5249507900030a"
    assert sign("secret of some time ago", "ann", lifetime_s=0) == f"YW5u.1800000000.{mac}"


@pytest.mark.parametrize(
    "forged",
    [
        by_hand(b"ann", int(NOW) + 60, secret="t" * 43),
        by_hand(b"ann", int(NOW) + 60).replace("YW5u", "Ym9i"),
        by_hand(b"ann", int(NOW) + 60).replace(f"{int(NOW) + 60}", f"{int(NOW) + 61}"),
        by_hand(b"ann", int(NOW) + 60)[:-1],
        "YW5u.1800000060.",
        "YW5u.1800000060",
        "ann",
        ".",
        "..",
        "ü.1.\ud800",
    ],
)
def test_a_forged_one_is_refused(forged: str) -> None:
    with pytest.raises(SignatureRefused, match="not of this name and expiry") as refused:
        verify(SECRET, forged)
    assert refused.value.code == "invalid_signature"


@pytest.mark.parametrize(
    ("expires_in_s", "code"),
    [
        (-61, "expired_signature"),
        (-60, "expired_signature"),
        (-59, None),
        (86_460, None),
        (86_461, "invalid_signature"),
        (1_000 * NOW - NOW, "invalid_signature"),
    ],
)
def test_it_holds_for_a_day_at_most_and_clocks_may_differ_by_a_minute(expires_in_s: float, code: str | None) -> None:
    signed = sign(SECRET, "ann", lifetime_s=expires_in_s)
    if code is None:
        assert verify(SECRET, signed) == "ann"
        return
    with pytest.raises(SignatureRefused) as refused:
        verify(SECRET, signed)
    assert refused.value.code == code


def test_when_it_expired_is_told() -> None:
    with pytest.raises(SignatureRefused, match=r"expired at 2027-01-15 07:00:00\+00:00"):
        verify(SECRET, sign(SECRET, "ann", lifetime_s=-3600))


@pytest.mark.parametrize(
    ("name", "expiry"), [(b"", 1_800_000_060), (b"\xff", 1_800_000_060), (b"ann", "soon"), (b"ann", -(10**18))]
)
def test_what_was_signed_and_is_no_name_and_expiry_is_refused(name: bytes, expiry: object) -> None:
    with pytest.raises(SignatureRefused, match="holds no name and expiry"):
        verify(SECRET, by_hand(name, expiry))


@pytest.mark.parametrize("name", ["", "x" * (end_users.LONGEST_NAME + 1)])
def test_a_name_that_none_can_have_is_not_signed(name: str) -> None:
    with pytest.raises(InvalidInput, match="expected 1 to 256"):
        sign(SECRET, name)
