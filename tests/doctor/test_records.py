"""Records of a schema that this release does not read are named, wherever in the log they stand."""

from dataclasses import replace
from pathlib import Path

import pytest

from rlhf_online.doctor.records import SAMPLE, records
from rlhf_online.eventlog.local import LocalLog
from rlhf_online.eventlog.tail import LocalReader
from rlhf_online.wire import encode
from tests.support.logged import thumb

GOOD = encode(thumb("c"))


@pytest.mark.parametrize(
    ("version", "said"), [(0, "read it with the release that wrote it"), (7, "upgrade the reader")]
)
@pytest.mark.parametrize("at", [0, SAMPLE - 1, 3 * SAMPLE - 1])
def test_another_schema_is_named_with_its_place(tmp_path: Path, version: int, said: str, at: int) -> None:
    other = encode(replace(thumb("c"), schema_version=version))
    with LocalLog(tmp_path) as log:
        for future in [log.append(other if number == at else GOOD) for number in range(3 * SAMPLE)]:
            future.result(30)
    with LocalReader(tmp_path) as reader:
        (found,) = records(reader, "here")
    assert found.severity == "refuse"
    assert f"schema version {version}" in found.what and said in found.what
    assert f"1 of {2 * SAMPLE} looked at, the first at offset {at}" in found.what


def test_what_can_be_read_is_fit_and_so_is_an_empty_log(tmp_path: Path) -> None:
    with LocalLog(tmp_path) as log:
        with LocalReader(tmp_path) as reader:
            assert records(reader, "here")[0].what.startswith("0 looked at")
        log.append(GOOD).result(30)
        with LocalReader(tmp_path) as reader:
            (found,) = records(reader, "here")
            assert (found.severity, found.what) == ("ok", "1 looked at, all of schema version 1")


def test_what_is_no_event_at_all_is_named(tmp_path: Path) -> None:
    with LocalLog(tmp_path) as log:
        log.append(b"\xff\xff").result(30)
    with LocalReader(tmp_path) as reader:
        (found,) = records(reader, "here")
    assert found.severity == "refuse" and "not an event envelope" in found.what
