"""Audiences: named sets of weights in the store, bounded, each complete with what counts for everybody."""

from pathlib import Path

import pytest

from rlhf_online.errors import InvalidInput
from rlhf_online.rewards import audiences
from rlhf_online.versions import open_registry
from rlhf_online.versions.folder_store import FolderStore
from rlhf_online.versions.manifest import Manifest, audience_kind
from rlhf_online.versions.store import VersionStore
from tests.support.memory_store import MemoryStore

TWO = ("helpful", "harmless")
COMMON = {"helpful": 1.0, "harmless": 3.0}
OF_NO_USE = ["", "{", "[1]", '{"brief": 1}', '{"brief": {"helpful": -1}}', '{"Brief": {}}', '{"a-b": {}}']


@pytest.fixture(params=["folder", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> VersionStore:
    return FolderStore(tmp_path / "versions") if request.param == "folder" else MemoryStore(tmp_path)


def test_what_an_audience_does_not_name_counts_as_for_everybody_also_what_comes_later(store: VersionStore) -> None:
    assert audiences.read(store) == {}
    chosen = audiences.define(store, "brief", {"helpful": 0.5}, COMMON, TWO)
    assert chosen == {"helpful": 0.5, "harmless": 3.0}
    assert audiences.read(store) == {"brief": {"helpful": 0.5}}
    later = {"helpful": 9.0, "harmless": 4.0, "rule:terse": 2.0}
    assert audiences.complete({"helpful": 0.5}, later, TWO, ["rule:terse"]) == later | {"helpful": 0.5}
    assert audiences.complete({"gone": 7.0}, COMMON, TWO) == COMMON, "of another model's objectives"
    audiences.define(store, "brief", {"harmless": 0.0}, COMMON, TWO)
    assert audiences.read(store) == {"brief": {"helpful": 0.5, "harmless": 0.0}}, "the other weight stays"


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("Brief", {"helpful": 1.0}, "'Brief' is no name of an audience: it has up to 32 of a-z, 0-9 and _"),
        ("a.b", {"helpful": 1.0}, "is no name of an audience"),
        ("brief", {"helpfull": 1.0}, "'helpfull' is no objective: there are helpful, harmless"),
        ("brief", {"helpful": -1.0}, "the weight of helpful must be a number from 0"),
        ("brief", {"helpful": 0.0, "harmless": 0.0}, "all weights are 0"),
    ],
)
def test_what_is_no_audience_is_refused_and_changes_nothing(
    store: VersionStore, name: str, changes: dict[str, float], words: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        audiences.define(store, name, changes, COMMON, TWO)
    assert words in str(refused.value)
    assert audiences.read(store) == {}


def test_there_are_eight_at_most_and_one_that_is_removed_makes_room(store: VersionStore) -> None:
    for number in range(audiences.MOST):
        audiences.define(store, f"a{number}", {}, COMMON, TWO)
    with pytest.raises(InvalidInput, match="there are 8 audiences, as many as there may be"):
        audiences.define(store, "one_more", {}, COMMON, TWO)
    audiences.define(store, "a3", {"helpful": 2.0}, COMMON, TWO)
    audiences.remove(store, "a0")
    audiences.define(store, "one_more", {}, COMMON, TWO)
    assert [*audiences.read(store)] == [*(f"a{number}" for number in range(1, 8)), "one_more"]
    with pytest.raises(InvalidInput, match="'nobody' is no audience: there are a1, a2"):
        audiences.remove(store, "nobody")


@pytest.mark.parametrize("content", OF_NO_USE)
def test_a_damaged_record_is_refused_with_its_place_and_setting_one_writes_it_anew(
    store: VersionStore, content: str
) -> None:
    audiences.define(store, "brief", {}, COMMON, TWO)
    if content:
        store.replace(audiences.KEY, content, expected=store.read(audiences.KEY))
        with pytest.raises(InvalidInput) as refused:
            audiences.read(store)
        assert store.place(audiences.KEY) in str(refused.value) and "audiences set" in str(refused.value)
    audiences.define(store, "long", {"helpful": 2.0}, COMMON, TWO)
    assert audiences.read(store)["long"] == {"helpful": 2.0}


def test_of_two_who_define_at_once_neither_is_lost(tmp_path: Path) -> None:
    class Crossed(MemoryStore):
        """Another's change comes between the first read and its replacement."""

        crossed = False

        def replace(self, key: str, value: str, *, expected: str | None) -> bool:
            if not self.crossed:
                self.crossed = True
                audiences.define(self, "long", {}, COMMON, TWO)
            return super().replace(key, value, expected=expected)

    crossed = Crossed(tmp_path)
    audiences.define(crossed, "brief", {}, COMMON, TWO)
    assert [*audiences.read(crossed)] == ["brief", "long"]


def test_its_versions_are_a_line_of_their_own_which_others_know_nothing_of(tmp_path: Path) -> None:
    registry = open_registry(tmp_path / "versions")

    def made(kind: str, *, parent: str = "") -> str:
        version = registry.reserve(kind)
        (registry.stage(version) / "w").write_text(version)
        registry.publish(Manifest(version=version, tuning="lora", parent=parent))
        registry.promote(version)
        return version

    common, kind = made("policy"), audience_kind("brief")
    assert audiences.live(registry, "brief") is None
    first = made(kind, parent=common)
    second, other = made(kind, parent=first), made(audience_kind("long"), parent=common)
    assert (first, second, other) == ("policy.brief-000000", "policy.brief-000001", "policy.long-000000")
    assert registry.versions() == [common, first, second, other]
    assert (registry.versions("policy"), registry.lineage(kind)) == ([common], [first, second])
    assert (registry.live("policy"), audiences.live(registry, "brief")) == (common, second)
    states = {name: registry.status(name).state for name in registry.versions()}
    assert states == {common: "live", first: "retired", second: "live", other: "live"}
    registry.rollback(kind, reason="a test")
    assert (audiences.live(registry, "brief"), audiences.live(registry, "long")) == (first, other)
    registry.mark(first, "failed", reason="a test")
    assert audiences.live(registry, "brief") is None, "the common adapter answers"
    assert registry.references() == [common]
