"""The held-out share of the conversations."""

import hashlib

from rlhf_online.feedback.held_out import is_held_out


def test_the_held_out_share_is_what_was_asked_for_and_grows_without_changing_sides():
    names = [f"conversation-{number}" for number in range(10_000)]
    small = {name for name in names if is_held_out(name, 0.05)}
    large = {name for name in names if is_held_out(name, 0.2)}
    assert 400 < len(small) < 600
    assert 1_800 < len(large) < 2_200
    assert small < large
    assert not any(is_held_out(name, 0.0) for name in names)
    assert all(is_held_out(name, 1.0) for name in names)
    # By the definition: the first 64 bits of the SHA-256, as a fraction of 1.
    fraction = int(hashlib.sha256(b"talk").hexdigest()[:16], 16) / 2**64
    assert (is_held_out("talk", fraction - 1e-6), is_held_out("talk", fraction + 1e-6)) == (False, True)
