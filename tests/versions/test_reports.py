"""Reports beside versions: written once, and losing only what people erased or what is old."""

import json
from pathlib import Path
from typing import Any

import pytest

from rlhf_online.errors import FileDamaged
from rlhf_online.versions import reports
from rlhf_online.versions.reports import KEPT, Reports, report_key
from tests.support.memory_store import MemoryStore


@pytest.fixture
def store(tmp_path: Path) -> MemoryStore:
    return MemoryStore(tmp_path)


def put(store: MemoryStore, number: int) -> str:
    name = f"policy-{number:06d}"
    store.put(name, store.stage(name), lambda _: b"{}")
    return name


def report(*origins: str) -> dict[str, Any]:
    """Of one check that shows every example, the last first."""
    examples = [{"prompt": f"of {origin}", "origin": origin} for origin in origins]
    places = list(reversed(range(len(origins))))
    return {"passed": True, "checks": [{"name": "kl", "examples": places}], "examples": examples}


def shown(store: MemoryStore, version: str) -> list[str]:
    found = reports.read(store, version)
    assert found is not None
    [check] = found["checks"]
    return [found["examples"][place]["origin"] for place in check["examples"]]


def test_a_report_is_kept_as_it_was_written_first(store: MemoryStore) -> None:
    version = put(store, 1)
    assert reports.read(store, version) is None
    Reports(store).write(version, report("a", "b"))
    Reports(store).write(version, report("c"))  # a trainer that was killed publishes again
    assert reports.read(store, version) == report("a", "b")


def test_what_a_person_erases_leaves_every_report(store: MemoryStore) -> None:
    first, second = put(store, 1), put(store, 2)
    keeper = Reports(store)
    keeper.write(first, report("a", "b", "", "a"))
    keeper.write(second, report("c", "a"))
    keeper.erase(["a", ""])
    assert shown(store, first) == ["", "b"] and shown(store, second) == ["c"]
    assert "of a" not in str(store.read(report_key(first)))
    keeper.write(first, report("a"))  # and does not come back
    assert shown(store, first) == ["", "b"]


def test_an_erasure_is_carried_out_once_for_as_long_as_it_is_told(store: MemoryStore) -> None:
    version = put(store, 1)
    keeper = Reports(store)
    keeper.write(version, report("a", "b"))
    keeper.erase(["a"])
    store.replace(report_key(version), json.dumps(report("a")), expected=store.read(report_key(version)))
    keeper.erase(["a"])
    assert shown(store, version) == ["a"]  # nothing was read again
    keeper.erase([])
    keeper.erase(["a"])
    assert shown(store, version) == []


def test_old_reports_keep_their_figures_and_lose_their_examples(store: MemoryStore) -> None:
    keeper = Reports(store)
    versions = [put(store, number) for number in range(KEPT + 2)]
    for version in versions:
        keeper.write(version, report("a"))
    for version in versions[:2]:
        found = reports.read(store, version)
        assert found is not None and found["examples"] == [] and found["checks"] == [{"name": "kl", "examples": []}]
    assert [shown(store, version) for version in versions[2:]] == [["a"]] * KEPT


@pytest.mark.parametrize("damage", ["", "{", "[]", "7", json.dumps({"checks": []})])
def test_a_damaged_report_is_named_and_emptied_where_something_is_erased(store: MemoryStore, damage: str) -> None:
    version = put(store, 1)
    store.replace(report_key(version), damage, expected=None)
    with pytest.raises(FileDamaged, match=r"reports/policy-000001\.json cannot be read"):
        reports.read(store, version)
    Reports(store).erase(["a"])
    assert reports.read(store, version) == {"checks": [], "examples": []}
