"""A key store that would lose people's words, or keep what they erased, is named before it does."""

from pathlib import Path

import pytest

from rlhf_online.config import KeystoreSettings
from rlhf_online.doctor.finding import Finding
from rlhf_online.doctor.keystore import keystore
from rlhf_online.keystore import open_for_log
from rlhf_online.keystore.vault import KEK
from tests.support.content_keys import take_away
from tests.support.object_server import BUCKET, DENIED, ObjectServer, environment
from tests.support.ports import reserve

FOLDER = KeystoreSettings(url="file:")
IN_BUCKET = KeystoreSettings(url=f"s3://{BUCKET}/keys")
SECRET = "a secret of the operator's"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "log").mkdir()
    return tmp_path


def looked_at(root: Path, settings: KeystoreSettings = FOLDER) -> list[Finding]:
    return keystore(settings, root, root / "log")


def refused(root: Path, settings: KeystoreSettings = FOLDER) -> str:
    (found,) = looked_at(root, settings)
    assert found.severity == "refuse" and found.todo
    return found.what


def sealed(root: Path, settings: KeystoreSettings = FOLDER) -> None:
    """The log's key store is made, with a person's key in it."""
    keys = open_for_log(settings, root, root / "log")
    assert keys is not None and keys.current("ann") is not None


def test_without_a_key_store_and_a_sealed_log_there_is_nothing_to_say(root: Path) -> None:
    assert looked_at(root, KeystoreSettings()) == []


def test_one_that_is_fit_is_left_as_it_was(root: Path) -> None:
    assert [(each.severity, each.what) for each in looked_at(root)] == [("ok", "none yet")]
    assert not (root / "keystore").exists()
    sealed(root)
    before = sorted(path.name for path in (root / "keystore").iterdir())
    assert [(each.severity, each.what) for each in looked_at(root)] == [("ok", "it opens, and can be written")]
    assert sorted(path.name for path in (root / "keystore").iterdir()) == before


def test_a_sealed_log_without_its_key_store_is_named_whatever_is_missing(root: Path) -> None:
    sealed(root)
    assert "keystore.url names none" in refused(root, KeystoreSettings())
    take_away(root / "keystore")
    assert "is not there" in refused(root)
    (root / "elsewhere" / "log").mkdir(parents=True)
    sealed(root / "elsewhere")
    other = KeystoreSettings(url=f"file:{root / 'elsewhere' / 'keystore'}")
    assert "is another one" in refused(root, other)


def test_a_kek_that_is_not_that_of_the_keys_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sealed(root)
    monkeypatch.setenv(KEK, SECRET)
    assert KEK in refused(root)
    monkeypatch.setenv(KEK, "short")
    assert "holds 5 characters" in refused(root)


def test_a_folder_that_is_open_to_others_is_named(root: Path) -> None:
    sealed(root)
    (root / "keystore").chmod(0o755)
    assert "is open to others" in refused(root)


def test_a_bucket_is_tried_and_its_keys_should_be_wrapped(
    root: Path, bucket: ObjectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    none_yet, bare = looked_at(root, IN_BUCKET)
    assert none_yet.what == "none yet" and bare.severity == "warn" and KEK in bare.todo
    monkeypatch.setenv(KEK, SECRET)
    sealed(root, IN_BUCKET)
    for _ in range(2):
        (found,) = looked_at(root, IN_BUCKET)
        assert found.severity == "ok" and "must keep no earlier versions" in found.what
    bucket.refuse(DENIED, "PUT")
    assert "may not be written" in refused(root, IN_BUCKET)


def test_a_bucket_that_is_away_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment(reserve()).items():
        monkeypatch.setenv(name, value)
    assert "connection refused" in refused(root, IN_BUCKET).lower()
