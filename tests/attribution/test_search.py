"""An answer and the votes on it are found in a local log and in Kafka, with the places where they stand."""

import json
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from rlhf_online import events as ev
from rlhf_online.attribution.search import Found, Place, search
from rlhf_online.cli import main
from rlhf_online.config import LogSettings
from rlhf_online.eventlog import open_sink, open_source
from rlhf_online.eventlog.folder import segment_of, segments
from rlhf_online.eventlog.local import LocalLog
from rlhf_online.eventlog.segments import segment_name
from rlhf_online.eventlog.tail import LocalReader
from rlhf_online.wire import encode
from tests.support.logged import completion, erasure, ref, thumb
from tests.support.waiting import until

# kafka-python reads its schemas by functions of the standard library that Python 3.11 and 3.12 call deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:(read|open)_text is deprecated:DeprecationWarning")


def withdrawal(name: str, of: str) -> ev.Envelope:
    event = ev.Feedback(conversation_id="talk", person="rater", kind=ev.Withdrawal(answer=ref(name)), replaces=of)
    return ev.Envelope(event_id=f"back with {of}", event=event)


SAID = (
    completion("before"),
    thumb("c1", event_id="early"),
    completion("c1", at_ms=3_000),
    thumb("c1", event_id="v1"),
    thumb("before", event_id="other"),
    thumb("c1", event_id="v1"),  # sent twice
    withdrawal("c1", "v1"),
    erasure("talk c1", at_ms=9_000),
    erasure("talk before", at_ms=9_500),
)


@pytest.fixture(params=["local", "kafka"])
def settings(request: pytest.FixtureRequest) -> LogSettings:
    if request.param == "local":
        return LogSettings()
    address = f"kafka://{request.getfixturevalue('broker').address}"
    return LogSettings(url=address, topic_prefix=f"t{uuid.uuid4().hex[:8]}")


@pytest.fixture
def log(settings: LogSettings, tmp_path: Path) -> Iterator[Path]:
    sink = open_sink(settings, tmp_path / "log")
    try:
        for envelope in SAID:
            sink.append(encode(envelope)).result(30)
        until(lambda: sink.shipping().backlog == 0, 30, "all to be shipped")
    finally:
        sink.close()
    yield tmp_path / "log"


def found_in(settings: LogSettings, log: Path, completion_id: str) -> Found:
    source = open_source(settings, log)
    try:
        return search(source, completion_id)
    finally:
        source.close()


def test_an_answer_is_found_with_its_votes_and_places(settings: LogSettings, log: Path) -> None:
    found = found_in(settings, log, "c1")
    assert found.completion == SAID[2].event
    assert list(found.votes) == ["early", "v1", "back with v1"], "each once, none of another's"
    assert found.replaced == {("v1", "rater"): "back with v1"}
    assert found.erased_ms == 9_000, "and not when another conversation was"
    assert found.place is not None and not found.cut
    source = open_source(settings, log)
    try:
        for place, event_id in (
            (found.place, "c1"),
            (found.votes["early"].place, "early"),
            (found.votes["v1"].place, "v1"),
        ):
            [record], _ = source.read({**source.end(), place.partition: place.offset}, 1)
            assert record.payload == encode(next(each for each in SAID if each.event_id == event_id))
    finally:
        source.close()
    if settings.url == "file:":
        assert (found.place, found.votes["v1"].place) == (Place("local", 2), Place("local", 3)), "the first of the two"
    else:
        assert found.place.partition.startswith(f"{settings.topic_prefix}.completions/")
        assert found.votes["v1"].place.partition.startswith(f"{settings.topic_prefix}.feedback/")


def test_the_command_reads_the_log_that_the_settings_name(
    settings: LogSettings, log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, state = tmp_path / "trainer.toml", tmp_path / "state"
    state.mkdir()
    url = f"file:{log}" if settings.url == "file:" else settings.url
    prefix = "" if settings.url == "file:" else f'topic_prefix = "{settings.topic_prefix}"\n'
    config.write_text(f'[log]\nurl = "{url}"\n{prefix}')
    assert main(["trace", "c1", "--json", "--config", str(config), "--state", str(state)]) == 0
    told, found = json.loads(capsys.readouterr().out), found_in(settings, log, "c1")
    assert found.place is not None
    assert (told["place"]["partition"], told["place"]["offset"]) == (found.place.partition, found.place.offset)
    assert bool(told["place"]["segment"]) == (settings.url == "file:")
    assert told["erased_ms"] == 9_000
    assert [version["state"] for version in told["versions"]] == ["unknown"], "this state has no versions"


def test_what_is_not_there_is_not_found(settings: LogSettings, log: Path) -> None:
    found = found_in(settings, log, "c2")
    assert (found.completion, found.place, found.votes, found.erased_ms) == (None, None, {}, 0)


def test_a_log_that_let_go_of_its_beginning_says_so(tmp_path: Path) -> None:
    with LocalLog(tmp_path / "log", segment_bytes=30) as log:  # each record is a segment
        for envelope in SAID:
            log.append(encode(envelope)).result(30)
        log.append(b"no event at all").result(30)
    assert segment_of(tmp_path / "log", 3) == segment_name(3)
    for first in segments(tmp_path / "log")[:3]:
        (tmp_path / "log" / segment_name(first)).unlink()
    assert segment_of(tmp_path / "log", 2) == ""
    with LocalReader(tmp_path / "log") as reader:
        found = search(reader, "c1")
    assert found.cut and found.first == {"local": 3}
    assert found.completion is None and list(found.votes) == ["v1", "back with v1"]


def test_what_was_asked_after_an_erasure_is_not_erased(tmp_path: Path) -> None:
    """An erasure covers what was asked no later than it, whoever's conversation has the same name."""
    asked = completion("c1", at_ms=9_002)
    theirs = erasure("talk c1", person="somebody else", at_ms=20_000)
    nobodys = replace(asked, event_id="c2", event=replace(asked.event, completion_id="c2", person=""))
    with LocalLog(tmp_path / "log") as log:
        for envelope in (erasure("talk c1", at_ms=9_000), asked, nobodys, theirs):
            log.append(encode(envelope)).result(30)
    with LocalReader(tmp_path / "log") as reader:
        assert search(reader, "c1").erased_ms == 0
        assert search(reader, "c2").erased_ms == 0
