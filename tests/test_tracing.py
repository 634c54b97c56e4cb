"""Spans on their way to a receiver: which settings send them, and what becomes of them where the receiver is away."""

import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator

import pytest

from rlhf_online import tracing
from rlhf_online.errors import ConfigError
from tests.support.otlp import Receiver, receiver
from tests.support.waiting import until

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture
def collector() -> Iterator[Receiver]:
    with receiver() as found:
        yield found
        tracing.close()


@pytest.fixture
def counts() -> Iterator[Counter[str]]:
    found: Counter[str] = Counter()
    tracing.count_with(lambda outcome, spans: found.update({outcome: spans}))
    yield found
    tracing.count_with(lambda outcome, spans: None)


def make(spans: int) -> None:
    for _ in range(spans):
        tracing.start("work", parent=TRACE).end()


def test_nothing_is_sent_and_nothing_imported_unless_somebody_says_where_to() -> None:
    program = (
        "import sys; from rlhf_online import tracing; tracing.configure('chat'); tracing.start('x', parent='').end()\n"
        "print(*[name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_the_standard_variables_say_where_to_and_who_it_is(
    collector: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"{collector.url}/below/")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "chat-in-berlin")
    tracing.configure("chat")
    make(1)
    tracing.close()
    assert [(span.name, span.service) for span in collector.spans] == [("work", "chat-in-berlin")]
    assert collector.paths == {"/below/v1/traces"}


@pytest.mark.parametrize(("name", "value"), [("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none")])
def test_the_standard_switches_turn_it_off(
    collector: Receiver, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    tracing.configure("chat", collector.url)
    make(1)
    tracing.close()
    assert collector.spans == []


def test_an_endpoint_without_the_packages_is_refused_and_a_variable_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The variable may be a whole cluster's, whose services are to start all the same."""
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    monkeypatch.delitem(sys.modules, "rlhf_online.otlp", raising=False)
    with pytest.raises(ConfigError, match=r"tracing\.endpoint: needs opentelemetry.*extra 'tracing'"):
        tracing.configure("chat", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    tracing.configure("chat")
    assert tracing.given() is None and "traces are not sent" in capsys.readouterr().out


def test_a_receiver_that_hangs_holds_nobody_up_and_what_finds_no_place_is_counted(
    collector: Receiver, counts: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracing, "QUEUE", 600)
    collector.answers.clear()
    tracing.configure("chat", collector.url)
    make(3000)
    assert counts["exported"] == counts["failed"] == 0
    assert 3000 - 600 - 512 <= counts["dropped"] <= 3000 - 600, "the queue, and one batch that is being sent"
    collector.answers.set()
    tracing.close()
    until(lambda: counts["exported"] + counts["dropped"] == 3000, 60, "all spans")
    assert len(collector.spans) == counts["exported"]


def test_a_receiver_that_is_away_is_told_of_once_and_so_is_its_return(
    collector: Receiver, counts: Counter[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
    collector.status = 400  # an answer after which the exporter does not try again
    tracing.configure("chat", collector.url)
    for wanted in (1, 2):
        make(1)
        until(lambda wanted=wanted: counts["failed"] == wanted, 60, "a failure")
    collector.status = 200
    for wanted in (1, 2):
        make(1)
        until(lambda wanted=wanted: counts["exported"] == wanted, 60, "its return")
    tracing.close()
    said = capsys.readouterr().out
    assert said.count("traces are not taken by their receiver") == said.count("traces are taken again") == 1


def test_each_thread_has_its_own_trace(collector: Receiver) -> None:
    tracing.configure("chat", collector.url)
    found: dict[str, str] = {}

    def work(name: str) -> None:
        tracing.enter("", name)
        with tracing.span(name):
            found[tracing.named_request()] = tracing.trace_id()

    threads = [threading.Thread(target=work, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tracing.close()
    assert {span.name: span.trace for span in collector.spans} == found and len({*found.values()}) == 2


@pytest.mark.parametrize("rubbish", ["x", "00-1-2-01", TRACE[:-1] + "x", TRACE + "\r\nx: y"])
def test_what_a_log_or_a_manifest_names_as_a_trace_and_is_none_is_given_on_to_nobody(
    collector: Receiver, rubbish: str
) -> None:
    tracing.configure("chat", collector.url, sample=0.0)
    assert not tracing.is_sampled(rubbish)
    with tracing.span("swap", parent=rubbish):
        assert tracing.current() == ""
