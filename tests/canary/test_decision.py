"""What follows from what people said: each row of the table."""

from typing import Any

import pytest
from pydantic import ValidationError

from rlhf_online.canary.decision import HOUR_MS, decide, evidence
from rlhf_online.canary.record import Canary
from rlhf_online.canary.settings import CanarySettings
from rlhf_online.canary.tally import Tally

SETTINGS = CanarySettings(steps=(0.1, 0.5), min_answers=10, max_people=40, max_hours=2)


def canary(step: int) -> Canary:
    return Canary(version="v", live="w", steps=SETTINGS.steps, step=step, began_ms=1000, since_ms=1000)


def tally(*, better: int = 0, worse: int = 0, answers: int = 10, **guards: int) -> Tally:
    """So many people prefer either, and of ten conversations so many show what a guardrail is for."""
    made = Tally("v", "w")
    made.people.pairs.outcomes.update({1.0: better, 0.0: worse})
    made.people.pairs.counted.update(dict.fromkeys(f"person {n}" for n in range(better + worse)))
    made.answers = answers
    for name, count in guards.items():
        made.guards[name].outcomes.update({1.0: count, 0.0: 10 - count})
    return made


@pytest.mark.parametrize(
    ("step", "said", "hours", "action", "reason"),
    [
        (0, {"answers": 9}, 0, "hold", "v answers 10% of the conversations: 0 people"),
        (0, {}, 0, "advance", "10 answers at 10% of the conversations and nothing wrong; 0 people"),
        (0, {"better": 30}, 0, "advance", "10 answers at 10%"),
        (1, {}, 0, "hold", "v answers 50% of the conversations: 0 people, evidence 1 of 20"),
        (1, {"better": 6}, 0, "hold", "v answers 50%"),
        (1, {"better": 9}, 0, "promote", "people prefer it: 9 people, evidence"),
        (1, {"better": 9, "answers": 9}, 100, "hold", "v answers 50%"),
        (0, {"worse": 9, "answers": 0}, 0, "take back", "people prefer w (9 people)"),
        (1, {"better": 20, "worse": 20}, 0, "take back", "not shown to be better than w: 40 people"),
        (1, {"better": 20, "worse": 19}, 2, "take back", "not shown to be better than w in 2 hours"),
        (1, {"better": 30, "empty": 3}, 0, "take back", "empty: 30.0% of its answers, 2.0% are allowed"),
        (1, {"better": 9, "empty": 1}, 0, "promote", "people prefer it"),
        (1, {"slow": 9}, 0, "take back", "slow: 90.0%"),
        (1, {"aborted": 9}, 0, "take back", "aborted: 90.0%"),
    ],
)
def test_a_decision(step: int, said: dict[str, Any], hours: float, action: str, reason: str) -> None:
    found = decide(tally(**said), canary(step), SETTINGS, 1000 + round(hours * HOUR_MS))
    assert found.action == action
    assert found.reason.startswith(reason)


def test_a_guardrail_that_begins_anew_at_each_step_needs_more_evidence_where_there_are_more_steps() -> None:
    found = tally(slow=5)
    one, many = (
        Canary(version="v", live="w", steps=steps, step=0, began_ms=1000, since_ms=1000)
        for steps in ((0.5,), tuple(n / 1000 for n in range(1, 101)))
    )
    assert decide(found, one, SETTINGS, 1000).action == "take back"
    assert decide(found, many, SETTINGS, 1000).action != "take back"


def test_pairs_and_thumbs_are_of_different_people_and_their_evidence_multiplies() -> None:
    both, pairs, thumbs = tally(better=5), tally(better=5), tally()
    both.people.thumbs[1.0] = thumbs.people.thumbs[1.0] = 3
    assert evidence(both).better == pytest.approx(evidence(pairs).better + evidence(thumbs).better)
    low, high = evidence(both).preference
    assert 0 < low < 1 == pytest.approx(high)


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"steps": [0.0, 0.5]}, "of which nobody would get the candidate"),
        ({"steps": [0.5, 1.5]}, "at most 1"),
        ({"steps": [0.5, 0.1]}, "larger than the one before"),
        ({"look": 5}, "look has no effect while steps is"),
        ({"steps": [1], "alpha": 0}, "alpha"),
    ],
)
def test_settings_that_mean_nothing_are_refused_and_say_why(values: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        CanarySettings.model_validate(values)


def test_without_steps_there_are_no_canaries_and_a_share_of_1_is_everybody() -> None:
    assert not CanarySettings().enabled
    assert CanarySettings(steps=(1.0,)).enabled
