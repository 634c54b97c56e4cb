"""A store in which two can change one record at once is named, whatever it is made of."""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest

from rlhf_online import locks
from rlhf_online.config import VersionsSettings
from rlhf_online.doctor import store
from rlhf_online.versions.folder_store import FolderStore
from tests.support.object_server import BUCKET, DENIED, FULL, ObjectServer, environment
from tests.support.ports import reserve

SETTINGS = VersionsSettings(url=f"s3://{BUCKET}/doctor")


def test_a_bucket_with_conditional_writes_is_fit_again_and_again(bucket: ObjectServer) -> None:
    for _ in range(2):
        found = store.bucket(SETTINGS)
        assert [finding.severity for finding in found] == ["ok", "ok"], found
        assert "one wins" in found[0].what and found[1].about == "clock"


def test_a_bucket_that_passes_over_conditions_is_named(bucket: ObjectServer) -> None:
    bucket.pass_over_conditions()
    (found,) = store.bucket(SETTINGS)
    assert found.severity == "refuse" and "writes whatever If-Match and If-None-Match say" in found.what


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (DENIED, "may not be written"),
        (FULL, "the storage is full"),
        ((404, "NoSuchBucket"), "there is no bucket for"),
    ],
)
def test_a_bucket_that_refuses_is_told_apart(bucket: ObjectServer, answer: tuple[int, str], said: str) -> None:
    bucket.refuse(answer, "PUT")
    (found,) = store.bucket(SETTINGS)
    assert found.severity == "refuse" and said in found.what


def test_a_clock_that_the_bucket_refuses_is_no_matter_of_permission(bucket: ObjectServer) -> None:
    bucket.refuse((403, "RequestTimeTooSkewed"), "PUT")
    (found,) = store.bucket(SETTINGS)
    assert (found.severity, found.about) == ("refuse", "clock")


def test_a_bucket_that_is_away_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment(reserve()).items():
        monkeypatch.setenv(name, value)
    (found,) = store.bucket(SETTINGS)
    assert found.severity == "refuse" and "connection refused" in found.what


def test_a_folder_is_tried_and_left_as_it_was(tmp_path: Path) -> None:
    (found,) = store.folder(tmp_path)
    assert found.severity == "ok" and "one wins" in found.what
    assert list(tmp_path.iterdir()) == []
    (found,) = store.folder(tmp_path / "not there")
    assert (found.severity, found.what) == ("ok", "none yet")


def test_a_folder_whose_locks_exclude_nobody_is_named(tmp_path: Path) -> None:
    """As on some file systems over a network: each writer waits for the others to have looked, then all write."""
    with mock.patch.object(locks, "acquire", lambda path: contextlib.nullcontext()):
        with mock.patch.object(FolderStore, "read", _slowly(FolderStore.read)):
            found = store.tried("versions", lambda: FolderStore(tmp_path))
    assert found.severity == "refuse" and "change one record at once" in found.what


def _slowly(read: Callable[[FolderStore, str], str | None]) -> Callable[[FolderStore, str], str | None]:
    def slow(self: FolderStore, key: str) -> str | None:
        found = read(self, key)
        time.sleep(0.05)
        return found

    return slow


class Forgetful(FolderStore):
    """Passes over the condition where it has not read the record itself."""

    has_read = False

    def read(self, key: str) -> str | None:
        self.has_read = True
        return super().read(key)

    def replace(self, key: str, value: str, *, expected: str | None) -> bool:
        return super().replace(key, value, expected=expected if self.has_read else self.read(key))


class Closed(FolderStore):
    """Says of each write that somebody else was quicker."""

    def replace(self, key: str, value: str, *, expected: str | None) -> bool:
        return False


@pytest.mark.parametrize(("kind", "said"), [(Forgetful, "change one record at once"), (Closed, "lets nobody change")])
def test_a_store_that_keeps_conditions_only_sometimes_or_meets_none_is_named(
    tmp_path: Path, kind: type[FolderStore], said: str
) -> None:
    found = store.tried("versions", lambda: kind(tmp_path))
    assert found.severity == "refuse" and said in found.what
