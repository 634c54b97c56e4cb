"""What checkpoints and reports hold of people's words is sealed for whose they are, and lost with their keys."""

import json
from pathlib import Path
from typing import Any

import pytest

from rlhf_online.errors import KeysUnavailable
from rlhf_online.keystore import owned
from tests.support.content_keys import keyring

MINE = {"owners": ["ann"], "event_id": "vote 1", "person": "rater", "prompt_token_ids": [501, 502, 503]}
OURS = {"owners": ["ann", "bob"], "origin": "talk", "text": "what both said"}
OLD = {"owners": ["eve"], "text": "before there were keys"}
NOBODYS: dict[str, Any] = {"owners": [], "text": "of nobody"}
VALUES = {"replay": [MINE, OURS], "kept": {"pairs": [[1, 2], [3]], "deep": [[OLD], [NOBODYS]]}, "count": 3}


def test_what_is_sealed_is_read_again_and_says_nothing_of_its_words(tmp_path: Path) -> None:
    keys = keyring(tmp_path)
    for person in ("ann", "bob"):
        keys.current(person)
    sealed = json.loads(json.dumps(owned.seal(VALUES, keys)))
    text = json.dumps(sealed)
    assert "501" not in text and "what both said" not in text
    assert "before there were keys" in text and "of nobody" in text
    assert owned.open_all(sealed, keyring(tmp_path)) == VALUES
    assert owned.seal(VALUES, keyring(tmp_path)) == owned.seal(VALUES, keys), "the same values are the same bytes"


def test_once_a_key_is_deleted_what_is_left_are_names(tmp_path: Path) -> None:
    keys = keyring(tmp_path)
    for person in ("ann", "bob"):
        keys.current(person)
    sealed = owned.seal(VALUES, keys)
    keys.erase("bob")
    mine, ours = owned.open_all(sealed, keys)["replay"]
    assert mine == MINE
    assert owned.is_shredded(ours) and ours == {"owners": ["ann", "bob"], "origin": "talk", "shredded": True}
    again = owned.seal({"replay": [MINE, OURS]}, keys)["replay"]
    assert owned.is_shredded(again[1]), "what a process still has of them is not written again"


@pytest.mark.parametrize("owners", [["ann"], []], ids=["on ann's answer", "on nobody's"])
def test_what_somebody_thought_of_others_words_is_lost_with_their_key_too(tmp_path: Path, owners: list[str]) -> None:
    keys = keyring(tmp_path)
    for person in ("ann", "rater"):
        keys.current(person)
    sealed = owned.seal([MINE | {"owners": owners}], keys)
    assert "501" not in json.dumps(sealed) and owned.open_all(sealed, keys) == [MINE | {"owners": owners}]
    keys.erase("rater")
    [left] = owned.open_all(sealed, keys)
    assert owned.is_shredded(left) and left["event_id"] == "vote 1" and "prompt_token_ids" not in left


def test_without_a_key_store_nothing_is_sealed_and_nothing_that_is_can_be_read(tmp_path: Path) -> None:
    assert owned.seal(VALUES, None) == VALUES
    keys = keyring(tmp_path)
    keys.current("ann")
    with pytest.raises(KeysUnavailable, match=r"set keystore\.url"):
        owned.open_all(owned.seal(VALUES, keys), None)
