"""What a person replaced counts no more, whichever of the two comes first; nobody else can replace it."""

import json

from rlhf_online.feedback.revisions import Revisions


def test_what_was_replaced_counts_no_more():
    revisions = Revisions()
    assert revisions.replace("edit", "p", "vote") == ["vote"]
    assert revisions.by("vote", "p") == "edit"
    assert revisions.by("edit", "p") == ""
    assert revisions.replace("edit", "p", "vote") == ["vote"], "the same again changes nothing"


def test_of_two_that_replace_the_same_the_later_counts():
    revisions = Revisions()
    revisions.replace("first", "p", "vote")
    assert revisions.replace("second", "p", "vote") == ["vote", "first"]


def test_somebody_elses_is_not_replaced():
    revisions = Revisions()
    revisions.replace("edit", "thief", "vote")
    assert revisions.by("vote", "p") == ""
    assert revisions.replace("edit", "p", "vote") == ["vote"], "a thief's edit is not the owner's"


def test_it_is_bounded_and_survives_json():
    revisions = Revisions(capacity=2)
    for number in range(3):
        revisions.replace(f"edit-{number}", "p", f"vote-{number}")
    again = Revisions.from_json(json.loads(json.dumps(revisions.to_json())))
    assert [bool(again.by(f"vote-{number}", "p")) for number in range(3)] == [False, True, True]
