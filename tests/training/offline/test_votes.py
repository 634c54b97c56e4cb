"""Votes of a log without those of some people: what `train --offline --without` learns anew from."""

from pathlib import Path

from rlhf_online.config.offline import OfflineSettings
from rlhf_online.eventlog.local import LocalLog
from rlhf_online.models.limits import ModelLimits
from rlhf_online.models.tokens import ChatTokenizer
from rlhf_online.simulation.tiny_model import write_tiny_model
from rlhf_online.training.offline.votes import Gathered, gather
from rlhf_online.wire import encode
from tests.support.content_keys import keyring
from tests.support.logged import completion, thumb

PEOPLE = ("ann", "bob", "eve")


def gathered(folder: Path, *without: str) -> Gathered:
    """Of a sealed log in which somebody rates an answer of each."""
    config = folder / "chat.toml"
    config.write_text(f'[keystore]\nurl = "file:{folder / "keys"}"\n')
    values = {"model": folder / "base", "out": folder / "out", "log": f"file:{folder / 'log'}", "log_config": config}
    settings = OfflineSettings.model_validate(values | {"held_out": 0.0} | ({"without": without} if without else {}))
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
