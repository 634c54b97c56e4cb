"""Every metric is described where it is made, by Prometheus' conventions, and docs/metrics.md says the same."""

import re

import pytest
from prometheus_client import CollectorRegistry

from rlhf_online.metrics.catalogue import Catalogue, Entry, Label
from scripts import metrics_docs

ENTRIES = [
    pytest.param(entry, id=f"{service}-{entry.name}")
    for service, entries in metrics_docs.catalogue().items()
    for entry in entries
]


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_metric_keeps_to_the_conventions(entry: Entry) -> None:
    assert re.fullmatch(r"(rlhf|process)_[a-z0-9_]+", entry.name)
    assert entry.name.endswith("_total") == (entry.type == "counter")
    assert not re.search(r"_(ms|millis\w*|mib|gib|kb|minutes|hours|percent|count|sum|bucket)(_|$)", entry.name)
    assert entry.text.endswith(".") and entry.unit
    assert [*entry.buckets] == sorted(set(entry.buckets)) and len(entry.buckets) <= 16
    assert all(bool(label.values) != bool(label.bound) for label in entry.labels)


def test_a_name_stands_for_one_thing_whichever_service_tells_it() -> None:
    by_name: dict[str, Entry] = {}
    for entries in metrics_docs.catalogue().values():
        names = [entry.name for entry in entries]
        assert len(names) == len({*names})
        for entry in entries:
            assert by_name.setdefault(entry.name, entry) == entry


def test_the_page_is_what_the_catalogue_says() -> None:
    assert metrics_docs.PAGE.read_text() == metrics_docs.page(), "run python scripts/metrics_docs.py"


def test_a_counter_stands_at_0_for_all_that_its_labels_may_be_and_for_nothing_where_they_may_be_anything() -> None:
    registry = CollectorRegistry()
    made = Catalogue(registry)
    a, b, any_version = (
        Label(name="a", values=("x", "y")),
        Label(name="b", values=("1", "2")),
        Label(name="v", bound="few"),
    )
    made.counter("rlhf_closed", "Closed.", a, b)
    made.counter("rlhf_open", "Open.", a, any_version)
    found = {sample.name: sample for family in registry.collect() for sample in family.samples}
    assert "rlhf_closed_total" in found and "rlhf_open_total" not in found
    values = [registry.get_sample_value("rlhf_closed_total", {"a": x, "b": y}) for x in "xy" for y in "12"]
    assert values == [0, 0, 0, 0]


def test_a_histogram_does_so_too() -> None:
    registry = CollectorRegistry()
    Catalogue(registry).histogram("rlhf_wait_seconds", "Waits.", (1.0,), Label(name="stage", values=("a", "b")))
    assert [registry.get_sample_value("rlhf_wait_seconds_count", {"stage": stage}) for stage in "ab"] == [0.0, 0.0]


def test_a_metric_without_a_unit_is_a_defect() -> None:
    with pytest.raises(AssertionError, match="rlhf_heat tells no unit"):
        Catalogue(CollectorRegistry()).gauge("rlhf_heat", "How hot.")
