"""Votes of a log without those of some people: what `train --offline --without` learns anew from."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from rlhf_online import events as ev
from rlhf_online.config.offline import OfflineSettings
from rlhf_online.errors import InvalidInput
from rlhf_online.eventlog.local import LocalLog
from rlhf_online.models.limits import ModelLimits
from rlhf_online.models.tokens import ChatTokenizer
from rlhf_online.simulation.tiny_model import write_tiny_model
from rlhf_online.training.intake import intake
from rlhf_online.training.offline.votes import Gathered, gather
from rlhf_online.wire import encode
from tests.support.content_keys import keyring
from tests.support.logged import completion, thumb

PEOPLE = ("ann", "bob", "eve")


def gathered(folder: Path, *without: str, held_out: float = 0.0, service: str = "") -> Gathered:
    """Of a sealed log in which somebody rates an answer of each."""
    config = folder / "chat.toml"
    config.write_text(service or f'[keystore]\nurl = "file:{folder / "keys"}"\n')
    values = {"model": folder / "base", "out": folder / "out", "log": f"file:{folder / 'log'}", "log_config": config}
    settings = OfflineSettings.model_validate(
        values | {"held_out": held_out} | ({"without": without} if without else {})
    )
    limits = ModelLimits(vocabulary=1000, context=1000)
    return gather(settings, ChatTokenizer(folder / "base"), limits, lambda said: None)


def names(found: Gathered) -> set[str]:
    return {vote.event_id for vote in found.learned}


def test_nobody_whose_words_are_left_out_is_learned_from_nor_who_erased_everything(tmp_path: Path) -> None:
    write_tiny_model(tmp_path / "base", weights_seed=0)
    keys = keyring(tmp_path / "keys")
    with LocalLog(tmp_path / "log") as log:
        for person in PEOPLE:
            for envelope in (completion(person, person=person), thumb(person, event_id=f"on {person}")):
                log.append(encode(envelope, keys)).result(30)
    assert names(gathered(tmp_path)) == {"on ann", "on bob", "on eve"}
    without = gathered(tmp_path, "ann")
    assert names(without) == {"on bob", "on eve"} and without.left_out["erased"] == 1
    keys.erase("bob")
    assert names(gathered(tmp_path, "ann")) == {"on eve"}


def test_of_a_log_with_an_address_keys_may_be_in_the_state_folder_of_the_service(tmp_path: Path) -> None:
    write_tiny_model(tmp_path / "base", weights_seed=0)
    keys = keyring(tmp_path / "state" / "keystore")
    with LocalLog(tmp_path / "log") as log:
        for envelope in (completion("ann", person="ann"), thumb("ann", event_id="on ann")):
            log.append(encode(envelope, keys)).result(30)
    service = f'state_dir = "{tmp_path / "state"}"\n[keystore]\nurl = "file:"\n'
    assert names(gathered(tmp_path, service=service)) == {"on ann"}


def test_what_is_erased_or_said_anew_thousands_of_votes_later_counts_as_in_one_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "MAX_VOTES", 1)
    monkeypatch.setattr(intake, "READ_RECORDS", 1)
    write_tiny_model(tmp_path / "base", weights_seed=0)

    def voted(event_id: str, name: str, **changes: Any) -> ev.Envelope:
        given = thumb(name, event_id=event_id, up=not changes, at_ms=9_000 if changes else 2_000)
        return dataclasses.replace(given, event=dataclasses.replace(given.event, **{"person": "eve"} | changes))

    gone = ev.Envelope(event_id="e", event=ev.Erasure(conversation_id="", person="bob", erased_ms=5_000))
    with LocalLog(tmp_path / "log") as log:
        for person in PEOPLE:
            log.append(encode(completion(person, person=person)))
        votes = [voted(f"first on {person}", person) for person in PEOPLE]
        later = [voted("again", "ann", person="eve"), voted("bob's own", "eve", person="bob")]
        for envelope in (*votes, gone, *later):
            log.append(encode(envelope)).result(30)
    found = gathered(tmp_path)
    assert names(found) == {"again", "first on eve", "bob's own"} and found.left_out["erased"] == 1
    assert not any(vote.revised for vote in found.learned)


def test_where_all_is_held_out_that_is_said(tmp_path: Path) -> None:
    write_tiny_model(tmp_path / "base", weights_seed=0)
    with LocalLog(tmp_path / "log") as log:
        for envelope in (completion("ann"), thumb("ann")):
            log.append(encode(envelope)).result(30)
    with pytest.raises(InvalidInput, match=r"no vote to learn from in .*\(1 held_out\)"):
        gathered(tmp_path, held_out=0.999999)
