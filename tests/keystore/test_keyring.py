"""A key a person: what is sealed opens with it, with nothing else, and never again once it is deleted."""

import base64
import json
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from rlhf_online.errors import KeysUnavailable, SecretLost, UndecodableEvent
from rlhf_online.keystore.keyring import FRESH_S, Keyring
from rlhf_online.keystore.places import MOST_NAMED, Entry, FolderKeys
from rlhf_online.keystore.vault import SEALED_WITH, Vault
from tests.support.content_keys import keyring, take_away

SAID = b"what ann said"


def test_what_is_sealed_opens_again_also_in_another_process(tmp_path: Path) -> None:
    sealed = keyring(tmp_path).seal_for("ann", SAID, "vote 1")
    assert sealed == SAID, "who has no key has nothing sealed"
    keyring(tmp_path).current("ann")
    sealed = keyring(tmp_path).seal_for("ann", SAID, "vote 1")
    assert sealed is not None and SAID not in sealed
    assert keyring(tmp_path).open_for("ann", sealed, "vote 1") == SAID


def test_the_same_content_sealed_again_is_the_same_bytes_and_another_is_not(tmp_path: Path) -> None:
    key = keyring(tmp_path).current("ann")
    assert key is not None
    assert key.seal(SAID, b"1") == key.seal(SAID, b"1")
    others = [key.seal(SAID, b"2"), key.seal(SAID + b".", b"1")]
    assert len({each[:12] for each in [key.seal(SAID, b"1"), *others]}) == 3, "nonces"


def test_it_opens_as_what_it_was_sealed_alone_and_undamaged(tmp_path: Path) -> None:
    keys = keyring(tmp_path)
    ann, bob = keys.current("ann"), keys.current("bob")
    assert ann is not None and bob is not None
    sealed = ann.seal(SAID, b"vote 1")
    for key, content, about in (
        (ann, sealed, b"vote 2"),
        (bob, sealed, b"vote 1"),
        (ann, sealed[:-1], b"vote 1"),
        (ann, sealed[:20] + bytes([sealed[20] ^ 1]) + sealed[21:], b"vote 1"),
        (ann, b"", b"vote 1"),
    ):
        with pytest.raises(UndecodableEvent, match="damaged"):
            key.open(content, about)


def test_a_deleted_key_opens_nothing_more_and_its_person_gets_another_one(tmp_path: Path) -> None:
    keys = keyring(tmp_path)
    first = keys.current("ann")
    assert first is not None
    keys.erase("ann")
    assert keys.find("ann", first.id) is None
    assert keys.erased("ann")
    assert keys.current("ann", make=False) is None
    assert keys.seal_for("ann", SAID, "") is None, "what is left of an erased person is not written again"
    second = keys.current("ann")
    assert second is not None and second.id != first.id
    assert keys.find("ann", first.id) is None
    assert not keys.erased("ann")
    assert keyring(tmp_path).find("ann", second.id) is not None


def test_no_byte_of_a_deleted_key_stays(tmp_path: Path) -> None:
    keys = keyring(tmp_path)
    key = keys.current("ann")
    keys.current("bob")
    assert key is not None
    stored = base64.b64encode(key.secret)

    def holding() -> int:
        return sum(stored in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())

    assert holding() == 1
    keys.erase("ann")
    assert holding() == 0


def test_another_process_learns_of_a_deletion_within_the_time_that_keys_are_fresh(tmp_path: Path) -> None:
    here, there, asks = keyring(tmp_path), keyring(tmp_path, fresh_s=1e9), keyring(tmp_path, fresh_s=0.0)
    key = here.current("ann")
    assert key is not None
    for keys in (there, asks):
        assert keys.find("ann", key.id) is not None
    here.erase("ann")
    assert asks.find("ann", key.id) is None
    assert there.find("ann", key.id) is not None, "it does not ask"
    there.forget("ann")
    assert there.find("ann", key.id) is None


class Slow(Vault):
    """What is read of a person arrives after `meanwhile`, which is called once."""

    meanwhile: Callable[[], object] = staticmethod(lambda: None)

    def read(self, person: str) -> Entry | None:
        found, meanwhile = super().read(person), self.meanwhile
        self.meanwhile = lambda: None
        meanwhile()
        return found


def test_a_key_that_is_deleted_while_it_is_read_is_not_remembered(tmp_path: Path) -> None:
    key = keyring(tmp_path).current("ann")
    assert key is not None
    vault = Slow(FolderKeys(tmp_path))
    keys = Keyring(vault, fresh_s=1e9)
    vault.meanwhile = lambda: keys.erase("ann")
    keys.find("ann", key.id)
    assert not keys.at_hand("ann") and keys.find("ann", key.id) is None


def test_of_a_key_that_is_deleted_the_store_is_asked_once_however_much_it_sealed(tmp_path: Path) -> None:
    key = keyring(tmp_path).current("ann")
    assert key is not None
    keyring(tmp_path).erase("ann")
    keys = keyring(tmp_path)
    assert keys.find("ann", key.id) is None
    take_away(tmp_path)
    assert keys.find("ann", key.id) is None


def test_a_key_that_was_asked_for_between_its_erasure_and_its_deletion_is_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, trainer = keyring(tmp_path), keyring(tmp_path, fresh_s=math.inf)
    key = here.current("ann")
    assert key is not None and trainer.find("ann", key.id) is not None
    trainer.forget("ann")  # the log says so first
    assert trainer.find("ann", key.id) is not None
    here.erase("ann")
    clock = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: clock() + FRESH_S)
    assert trainer.find("ann", key.id) is None


def test_what_stems_from_two_people_is_gone_with_either_key(tmp_path: Path) -> None:
    keys = keyring(tmp_path)
    ann, bob = keys.current("ann"), keys.current("bob")
    assert ann is not None and bob is not None
    sealed = keys.together([ann, bob]).seal(SAID, b"")
    assert keys.together([ann, bob]).open(sealed, b"") == SAID
    for key in (ann, bob, keys.together([bob, ann])):
        with pytest.raises(UndecodableEvent):
            key.open(sealed, b"")


def test_two_processes_that_see_a_person_first_take_one_key(tmp_path: Path) -> None:
    one, other = keyring(tmp_path), keyring(tmp_path)
    assert not one.erased("ann") and not other.erased("ann"), "both remember that there is none"
    first, second = one.current("ann"), other.current("ann")
    assert first is not None and second is not None and first.id == second.id


# A key store that is away


def test_while_the_store_is_away_who_is_known_goes_on_and_who_is_new_cannot(tmp_path: Path) -> None:
    keys = keyring(tmp_path / "store", fresh_s=0.0)
    known = keys.current("ann")
    away = take_away(tmp_path / "store")
    again = keys.current("ann")
    assert known is not None and again is not None and again.id == known.id
    for ask in (lambda: keys.current("bob"), lambda: keys.find("bob", "k"), lambda: keys.erase("ann")):
        with pytest.raises(KeysUnavailable, match="mount or start it, nothing is lost"):
            ask()
    away.rename(tmp_path / "store")
    assert keys.current("bob") is not None


def test_a_store_that_was_emptied_is_not_taken_for_one_whose_keys_were_deleted(tmp_path: Path) -> None:
    key = keyring(tmp_path / "store").current("ann")
    assert key is not None
    take_away(tmp_path / "store")
    other = keyring(tmp_path / "store")
    with pytest.raises(KeysUnavailable, match=f"has no key {key.id}, and does not know that it was deleted"):
        other.find("ann", key.id)


@pytest.mark.parametrize("returned_before", [False, True])
def test_an_old_copy_of_the_store_takes_nobody_who_came_back_since_for_erased(
    tmp_path: Path, returned_before: bool
) -> None:
    """It knows that the person's first key was deleted, and nothing of the one that they have now."""
    store, copy = tmp_path / "store", tmp_path / "copy"
    first = keyring(store).current("ann")
    keyring(store).erase("ann")
    second = keyring(store).current("ann") if returned_before else None
    shutil.copytree(store, copy)
    if returned_before:
        keyring(store).erase("ann")
    now = keyring(store).current("ann")
    assert first is not None and now is not None
    assert keyring(copy).find("ann", first.id) is None, "that much it knows"
    with pytest.raises(KeysUnavailable, match=f"has no key {now.id}, and does not know that it was deleted"):
        keyring(copy).find("ann", now.id)
    for gone in (first, second):
        assert gone is None or keyring(store).find("ann", gone.id) is None
    found = keyring(store).find("ann", now.id)
    assert found is not None and found.secret == now.secret


def test_a_record_of_an_earlier_release_says_of_every_key_before_that_it_was_deleted(tmp_path: Path) -> None:
    keys = keyring(tmp_path)
    keys.current("ann")
    keys.erase("ann")
    [path] = (tmp_path / "people").rglob("*.json")
    path.write_text('{"id": "", "key": "", "erased": true}')
    now = keyring(tmp_path).current("ann")
    assert now is not None and keyring(tmp_path).find("ann", "0123456789abcdef") is None
    assert keyring(tmp_path).find("ann", now.id) is not None
    keyring(tmp_path).erase("ann")
    assert keyring(tmp_path).find("ann", now.id) is None and keyring(tmp_path).find("ann", "0123456789abcdef") is None


def test_a_log_takes_no_other_store_than_the_one_that_it_is_sealed_with(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.mkdir()
    keyring(tmp_path / "store").vault.bind(log)
    keyring(tmp_path / "store").vault.bind(log)
    with pytest.raises(SecretLost, match="sealed with another key store"):
        keyring(tmp_path / "other").vault.bind(log)


def test_a_store_that_is_away_at_the_start_makes_no_keys_elsewhere(tmp_path: Path) -> None:
    log, store = tmp_path / "log", tmp_path / "store"
    log.mkdir()
    keyring(store).vault.bind(log)
    away = take_away(store)
    keys = Keyring(Vault(FolderKeys(store)))
    keys.vault.bind(log)
    store.mkdir()  # as the empty mount point
    with pytest.raises(KeysUnavailable):
        keys.current("ann")
    assert list(store.iterdir()) == []
    store.rmdir()
    away.rename(store)
    assert keys.current("ann") is not None


def test_a_record_that_is_damaged_is_named_and_no_deletion(tmp_path: Path) -> None:
    keys = keyring(tmp_path, fresh_s=0.0)
    keys.current("ann")
    [record] = tmp_path.glob("people/*/*.json")
    record.write_text("{")
    with pytest.raises(KeysUnavailable, match=record.name):
        keyring(tmp_path).current("ann")


# Wrapped keys


def test_with_a_kek_the_store_alone_opens_nothing(tmp_path: Path) -> None:
    key = keyring(tmp_path, kek="a secret of Kubernetes").current("ann")
    assert key is not None
    [record] = tmp_path.glob("people/*/*.json")
    assert key.secret not in base64.b64decode(json.loads(record.read_text())["key"])
    assert keyring(tmp_path, kek="a secret of Kubernetes").find("ann", key.id) is not None
    for wrong in ("", "another secret"):
        with pytest.raises(SecretLost, match="RLHF_KEYSTORE_KEK is not what"):
            keyring(tmp_path, kek=wrong)
        with pytest.raises(KeysUnavailable, match="cannot be unwrapped"):
            Keyring(Vault(FolderKeys(tmp_path), wrong)).find("ann", key.id)


def test_a_file_that_is_no_key_store_says_so(tmp_path: Path) -> None:
    (tmp_path / "keystore").write_text("no JSON")
    with pytest.raises(SecretLost, match="is no key store"):
        keyring(tmp_path)


def test_the_log_says_which_store_it_needs(tmp_path: Path) -> None:
    keys = keyring(tmp_path / "store")
    keys.vault.bind(tmp_path)
    assert (tmp_path / SEALED_WITH).read_text() == keys.vault.identity()


def test_whoever_erases_again_and_again_has_a_record_of_bounded_size() -> None:
    entry = Entry()
    for number in range(2 * MOST_NAMED + 1):
        entry = replace(entry, id=f"{number:016x}", key="key").without_key()
        assert len(entry.deleted) <= MOST_NAMED
    assert entry.tells_deleted("0" * 16) and entry.tells_deleted(f"{2 * MOST_NAMED:016x}")
    assert not replace(entry, id="f" * 16).tells_deleted("f" * 16)
