"""The spool as a forwarder sees it: what waits, what has left, and what was refused."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlhf_online.errors import LogUnavailable
from rlhf_online.eventlog.spool import Spool
from tests.support.local_log import append_all

PAYLOADS = [b"one", b"two", b"three"]


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    append_all(tmp_path, PAYLOADS)
    spool = Spool(tmp_path)
    yield spool
    spool.close()


def test_what_has_not_left_waits(spool: Spool) -> None:
    assert (spool.shipped, spool.backlog(), spool.refused) == (0, 3, 0)
    assert [record.payload for record in spool.waiting(2)] == PAYLOADS[:2]
    spool.shipped = 1
    assert spool.backlog() == 2
    assert [record.payload for record in spool.waiting(10)] == PAYLOADS[1:]
    spool.shipped = 3
    assert spool.backlog() == 0 and spool.waiting(10) == []


def test_a_position_that_was_saved_is_where_the_next_one_begins(tmp_path: Path, spool: Spool) -> None:
    spool.shipped = 2
    assert spool.saved == 0
    spool.save()
    assert spool.saved == 2
    again = Spool(tmp_path)
    assert (again.shipped, again.saved, again.identity) == (2, 2, spool.identity)
    again.close()


def test_a_refused_record_is_kept_with_its_reason_and_counted_also_by_the_next_one(
    tmp_path: Path, spool: Spool
) -> None:
    spool.refuse(spool.waiting(3)[1], "vote-1", "too large")
    assert spool.refused == 1
    letter = json.loads((tmp_path / "refused.jsonl").read_text())
    assert (letter["offset"], letter["event_id"], letter["reason"]) == (1, "vote-1", "too large")
    again = Spool(tmp_path)
    assert again.refused == 1
    again.close()


def test_a_position_of_another_spool_is_not_believed(tmp_path: Path, spool: Spool) -> None:
    (tmp_path / "shipped.json").write_text(json.dumps({"spool": "another", "shipped": 2}))
    other = Spool(tmp_path)
    assert other.shipped == other.saved == 0
    other.close()


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"spool": "IDENTITY", "shipped": null}'])
def test_a_position_that_cannot_be_read_is_named_with_what_to_do(tmp_path: Path, spool: Spool, text: str) -> None:
    (tmp_path / "shipped.json").write_text(text.replace("IDENTITY", spool.identity))
    with pytest.raises(LogUnavailable, match=r"shipped\.json cannot be read .*remove it to ship the whole spool again"):
        Spool(tmp_path)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="Linux tells what a process has open")
def test_a_spool_leaves_no_file_open_behind_it(tmp_path: Path, spool: Spool) -> None:
    begun = len(os.listdir("/proc/self/fd"))
    other = Spool(tmp_path)
    other.waiting(3)
    other.refuse(other.waiting(1)[0], "", "why")
    other.save()
    other.close()
    assert len(os.listdir("/proc/self/fd")) == begun
