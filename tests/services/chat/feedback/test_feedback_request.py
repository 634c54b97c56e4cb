"""From a checked request to the event and its id. (Every kind, and every mistake, goes over both transports: see
test_transports.)
"""

from typing import Any

import pytest

from rlhf_online.events import SIGNALS
from services.chat.bodies.api_error import ApiError
from services.chat.bodies.validation import validate
from services.chat.feedback.request import FeedbackRequest, Implicit, event_id

PERSON = "0123456789abcdef0123456789abcdef"
THUMB = {"thumb": {"answer": {"completion_id": "chatcmpl-1", "index": 2}, "up": True}}
PAIR = {"pairwise": {"chosen": {"completion_id": "b"}, "rejected": {"completion_id": "a", "index": 1}}}


@pytest.mark.parametrize(
    ("body", "person", "expected"),
    [
        (THUMB, PERSON, "01cfc8af-a557-5bc1-8fbe-f5f2c408a8a8"),
        (THUMB, "", "3d06e596-ffef-591b-8506-027eb8cc1533"),
        (PAIR, "", "f0f4d73c-744d-5ae5-a145-a3e4c768390b"),
    ],
)
def test_event_ids_are_the_same_for_good(body: dict[str, Any], person: str, expected: str) -> None:
    """A vote that was sent before an upgrade and is sent again after it is the same event."""
    assert event_id(validate(FeedbackRequest, body).event(person=person, key_id="", now_ms=1), "k") == expected


def test_without_a_key_each_vote_is_another() -> None:
    event = validate(FeedbackRequest, THUMB).event(person=PERSON, key_id="k1", now_ms=1)
    assert event_id(event, "") != event_id(event, "")


def test_signals_are_those_of_the_events() -> None:
    assert tuple(Implicit.model_json_schema()["properties"]["signal"]["enum"]) == SIGNALS


def test_a_text_is_not_repeated_in_a_message() -> None:
    for body in (
        {"correction": {"answer": {"completion_id": "a"}, "text": ["secret words"]}},
        {**THUMB, "reason": "secret words" * 1000},
        {"thumb": "secret words"},
    ):
        with pytest.raises(ApiError) as caught:
            validate(FeedbackRequest, body)
        assert "secret" not in str(caught.value)
        assert "secret" not in str(caught.value.__cause__ or caught.value.__context__)
