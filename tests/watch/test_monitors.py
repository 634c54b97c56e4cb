"""What a monitor says, for those who read it."""

import json
import math

from rlhf_online.watch.monitors import Reading


def test_evidence_of_one_is_an_alarm_and_no_evidence_is_none() -> None:
    assert not Reading().alarm
    assert not Reading(evidence=0.99).alarm
    assert Reading(evidence=1.0).alarm


def test_what_is_no_number_is_null() -> None:
    told = Reading(says="hm", rows=({"trait": "length", "share": math.nan, "votes": 3},)).to_json()
    assert json.loads(json.dumps(told, allow_nan=False)) == {
        "evidence": None,
        "alarm": False,
        "says": "hm",
        "rows": [{"trait": "length", "share": None, "votes": 3}],
    }
