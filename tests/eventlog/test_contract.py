"""What every event log promises: one suite over the local log and over Kafka."""

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rlhf_online.config import LogSettings
from rlhf_online.errors import ConfigError, PositionLost
from rlhf_online.eventlog import open_sink, open_source
from rlhf_online.eventlog.base import Position, Record, Sink, Source, has_reached
from rlhf_online.wire import decode, encode
from tests.support.logged import completion, thumb
from tests.support.waiting import until

# kafka-python reads its schemas by functions of the standard library that Python 3.11 and 3.12 call deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:(read|open)_text is deprecated:DeprecationWarning")


class Logs:
    """Opens sinks and sources of one log, and closes what is left open."""

    def __init__(self, settings: LogSettings, folder: Path) -> None:
        self._settings = settings
        self._folder = folder
        self._close: list[Callable[[], None]] = []

    def sink(self) -> Sink:
        sink = open_sink(self._settings, self._folder)
        self._close.append(sink.close)
        return sink

    def source(self) -> Source:
        source = open_source(self._settings, self._folder)
        self._close.append(source.close)
        return source

    def close(self) -> None:
        for close in reversed(self._close):
            close()


@pytest.fixture(params=["local", "kafka"])
def logs(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Logs]:
    settings = LogSettings(segment_bytes=2000)
    if request.param == "kafka":
        address = f"kafka://{request.getfixturevalue('broker').address}"
        settings = LogSettings(url=address, segment_bytes=2000, topic_prefix=f"t{uuid.uuid4().hex[:8]}")
    logs = Logs(settings, tmp_path / "log")
    yield logs
    logs.close()


def _append(sink: Sink, payloads: list[bytes]) -> list[int]:
    futures = [sink.append(payload) for payload in payloads]
    return [future.result(30) for future in futures]


def _read(source: Source, position: Position, count: int, limit: int = 1000) -> tuple[list[Record], Position]:
    """Read on until `count` records have come."""
    records: list[Record] = []

    def enough() -> bool:
        nonlocal position
        more, position = source.read(position, limit)
        assert len(more) <= limit
        records.extend(more)
        return len(records) >= count

    until(enough, 60, "the records to come")
    return records, position


def _votes(count: int) -> list[bytes]:
    return [encode(thumb("c", event_id=f"vote-{number}")) for number in range(count)]


def test_what_is_acknowledged_is_read_in_order_and_unchanged(logs: Logs):
    payloads = _votes(50)
    assert _append(logs.sink(), payloads) == list(range(50))
    source = logs.source()
    records, position = _read(source, {}, 50)
    assert [record.payload for record in records] == payloads
    assert [record.offset for record in records] == list(range(50))
    assert position == source.end()


def test_an_empty_log_has_nothing_and_its_end_is_where_reading_stands(logs: Logs):
    logs.sink()
    source = logs.source()
    records, position = source.read({}, 10)
    assert records == []
    assert has_reached(position, source.end())
    assert source.read(position, 10) == ([], position)


def test_reading_goes_on_from_any_position(logs: Logs):
    payloads = _votes(40)
    _append(logs.sink(), payloads)
    source = logs.source()
    records, middle = _read(source, {}, 15, limit=5)
    first = [record.payload for record in records]
    assert len(first) % 5 == 0
    rest, end = _read(source, middle, 40 - len(first), limit=7)
    assert first + [record.payload for record in rest] == payloads
    again, _ = _read(logs.source(), middle, 40 - len(first))
    assert again == rest
    back, _ = _read(source, middle, 40 - len(first))
    assert back == rest
    assert source.read(end, 10)[0] == []


def test_a_limit_of_none_reads_nothing(logs: Logs):
    _append(logs.sink(), _votes(3))
    source = logs.source()
    _read(source, {}, 3)
    records, position = source.read({}, 0)
    assert records == []
    assert len(_read(source, position, 3)[0]) == 3


def test_a_reader_at_the_end_sees_what_comes_later(logs: Logs):
    sink, source = logs.sink(), logs.source()
    position: Position = {}
    for number in range(5):
        payload = encode(thumb("c", event_id=f"later-{number}"))
        _append(sink, [payload])
        records, position = _read(source, position, 1)
        assert [record.payload for record in records] == [payload]


def test_a_sink_that_is_opened_again_goes_on(logs: Logs):
    payloads = _votes(20)
    sink = logs.sink()
    _append(sink, payloads[:9])
    sink.close()
    sink = logs.sink()
    assert _append(sink, payloads[9:]) == list(range(9, 20))
    records, _ = _read(logs.source(), {}, 20)
    # What the first sink had sent without being told so, the second sends again: readers know it by its event id.
    assert list(dict.fromkeys(record.payload for record in records)) == payloads


def test_events_of_all_kinds_come_through(logs: Logs):
    events = [completion(f"c{n}") for n in range(10)] + [thumb(f"c{n}") for n in range(10)]
    _append(logs.sink(), [encode(event) for event in events])
    records, _ = _read(logs.source(), {}, 20)
    got = {envelope.event_id: envelope for record in records if (envelope := decode(record.payload))}
    assert got == {event.event_id: event for event in events}


def test_a_large_record_comes_through(logs: Logs):
    payload = encode(completion("large", prompt=range(4 << 20)))
    assert len(payload) > 10 << 20
    _append(logs.sink(), [payload])
    records, _ = _read(logs.source(), {}, 1)
    assert records[0].payload == payload


def test_identity_is_the_logs_own_and_stays(logs: Logs):
    sink = logs.sink()
    _append(sink, _votes(1))
    name = logs.source().identity()
    assert name
    sink.close()
    assert logs.source().identity() == name


def test_a_position_past_the_end_is_lost(logs: Logs):
    _append(logs.sink(), _votes(3))
    source = logs.source()
    _, position = _read(source, {}, 3)
    beyond = {key: offset + 1 for key, offset in position.items()}
    with pytest.raises(PositionLost, match="gap accept"):
        source.read(beyond, 10)
    found, missing = source.resume_position(source.identity(), beyond)
    assert found == position
    assert len(missing) == len(position) and all("1 that were read before are missing" in each for each in missing)
    assert source.resume_position(source.identity(), position) == (position, [])


@pytest.mark.parametrize("address", ["file:{}", "file://{}"])
def test_a_file_address_may_name_the_folder(address: str, tmp_path: Path):
    settings = LogSettings(url=address.format(tmp_path / "there"))
    sink = open_sink(settings, tmp_path / "not here")
    _append(sink, _votes(3))
    sink.close()
    source = open_source(settings, tmp_path / "not here")
    assert [record.payload for record in _read(source, {}, 3)[0]] == _votes(3)
    source.close()
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


@pytest.mark.parametrize(
    "url", ["", "file", "file://host/path", "kafka:", "kafka://", "kafka://host", "kafka://a:1,b", "http://a:1"]
)
def test_an_unknown_address_is_refused(url: str, tmp_path: Path):
    with pytest.raises(ConfigError, match=r"log\.url"):
        open_source(LogSettings(url=url), tmp_path)
