"""The held-out share of the conversations."""

import hashlib

from rlhf_online.feedback.held_out import is_held_out, use_of


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


def test_a_conversation_is_of_one_use_and_what_is_held_back_does_not_depend_on_what_is_held_out():
    names = [str(number) for number in range(4000)]
    uses = [use_of(name, held_out=0.1, held_back=0.25) for name in names]
    assert abs(uses.count("held_out") / 4000 - 0.1) < 0.02
    assert abs(uses.count("held_back") / 4000 - 0.25 * 0.9) < 0.02
    assert [use == "held_out" for use in uses] == [is_held_out(name, 0.1) for name in names]
    more = [use_of(name, held_out=0.3, held_back=0.25) for name in names]
    others = [use_of(name, held_out=0.1, held_back=0.5) for name in names]
    for before, after, other in zip(uses, more, others, strict=True):
        assert after in (before, "held_out")
        assert other == before or (before, other) == ("learned", "held_back")
    assert not any(use_of(name, held_out=0.0, held_back=0.0) != "learned" for name in names)
