"""The operator's weights: a record beside the live version, which all services read and change by compare-and-set."""

from pathlib import Path

import pytest

from rlhf_online.durable import write_json
from rlhf_online.errors import InvalidInput
from rlhf_online.rewards import weights
from rlhf_online.state import StateDir
from rlhf_online.versions.folder_store import FolderStore
from rlhf_online.versions.store import VersionStore
from tests.support.memory_store import MemoryStore

TWO = ("helpful", "harmless")
OF_NO_USE = [
    "",
    "{",
    "[1]",
    '{"a": -1}',
    '{"a": "1"}',
    '{"a": true}',
    '{"a": NaN}',
    f'{{"a": 1{"0" * 400}}}',
    '{"a": 1e300}',
]


@pytest.fixture(params=["folder", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> VersionStore:
    return FolderStore(tmp_path / "versions") if request.param == "folder" else MemoryStore(tmp_path)


def test_what_one_pod_sets_another_reads_who_shares_nothing_but_the_store(store: VersionStore, tmp_path: Path) -> None:
    here, there = StateDir(tmp_path / "here"), StateDir(tmp_path / "there")
    assert weights.read(store, there) == {}
    assert weights.change(store, here, {"harmless": 0.5}, TWO) == {"helpful": 1.0, "harmless": 0.5}
    assert weights.read(store, there) == {"helpful": 1.0, "harmless": 0.5}
    assert weights.change(store, there, {"helpful": 2.0}, TWO) == {"helpful": 2.0, "harmless": 0.5}, "the others stay"
    assert not here.root.exists() and not there.root.exists()


def test_weights_of_another_models_objectives_are_kept_and_do_not_count(store: VersionStore, tmp_path: Path) -> None:
    state = StateDir(tmp_path)
    weights.change(store, state, {"terse": 9.0}, ("terse",))
    weights.change(store, state, {"harmless": 0.5}, TWO)
    assert weights.read(store, state) == {"terse": 9.0, "helpful": 1.0, "harmless": 0.5}
    assert weights.applicable(weights.read(store, state), TWO) == {"helpful": 1.0, "harmless": 0.5}
    assert list(weights.applicable({"b": 2.0, "a": 3.0}, ("a", "b"))) == ["a", "b"], "in the model's order"


def test_of_two_who_change_at_once_neither_is_lost(tmp_path: Path) -> None:
    state = StateDir(tmp_path)

    class Crossed(MemoryStore):
        """Another's change comes between each first read and replacement."""

        crossed = False

        def replace(self, key: str, value: str, *, expected: str | None) -> bool:
            if not self.crossed:
                self.crossed = True
                weights.change(self, state, {"helpful": 3.0}, TWO)
            return super().replace(key, value, expected=expected)

    crossed = Crossed(tmp_path)
    assert weights.change(crossed, state, {"harmless": 2.0}, TWO) == {"helpful": 3.0, "harmless": 2.0}
    assert weights.read(crossed, state) == {"helpful": 3.0, "harmless": 2.0}


@pytest.mark.parametrize("content", OF_NO_USE)
def test_a_damaged_record_is_refused_by_name_and_the_next_change_writes_it_anew(
    store: VersionStore, tmp_path: Path, content: str
) -> None:
    state = StateDir(tmp_path)
    write_json(state.reward_weights, {"helpful": 7.0})
    assert store.replace(weights.KEY, content, expected=None)
    with pytest.raises(InvalidInput) as refused:
        weights.read(store, state)
    assert store.place(weights.KEY) in str(refused.value) and "reward-weights NAME=VALUE" in str(refused.value)
    weights.change(store, state, {"harmless": 0.5}, TWO)
    assert weights.read(store, state) == {"helpful": 1.0, "harmless": 0.5}


@pytest.mark.parametrize("content", OF_NO_USE)
def test_a_file_of_an_earlier_release_that_is_damaged_is_refused_by_name(
    store: VersionStore, tmp_path: Path, content: str
) -> None:
    state = StateDir(tmp_path)
    state.reward_weights.write_text(content)
    with pytest.raises(InvalidInput, match=r"reward-weights\.json.*: set the weights"):
        weights.read(store, state)
    weights.change(store, state, {"harmless": 0.5}, TWO)
    assert weights.read(store, state) == {"helpful": 1.0, "harmless": 0.5}


def test_a_file_of_an_earlier_release_counts_until_the_record_is_written(store: VersionStore, tmp_path: Path) -> None:
    state = StateDir(tmp_path)
    write_json(state.reward_weights, {"harmless": 0.5, "terse": 9.0})
    assert weights.read(store, state) == {"harmless": 0.5, "terse": 9.0}
    weights.change(store, state, {"helpful": 2.0}, TWO)
    assert weights.read(store, state) == {"helpful": 2.0, "harmless": 0.5, "terse": 9.0}, "what it said is taken along"
    write_json(state.reward_weights, {"harmless": 8.0})
    assert weights.read(store, state) == {"helpful": 2.0, "harmless": 0.5, "terse": 9.0}


def test_a_file_of_an_earlier_release_becomes_the_record_of_a_store_that_has_none(
    store: VersionStore, tmp_path: Path
) -> None:
    state, elsewhere = StateDir(tmp_path), StateDir(tmp_path / "elsewhere")
    weights.adopt(store, state)
    assert store.read(weights.KEY) is None
    for said in (0.5, 0.7):
        write_json(state.reward_weights, {"harmless": said})
        weights.adopt(store, state)
        assert weights.read(store, elsewhere) == {"harmless": 0.5}


@pytest.mark.parametrize(
    ("given", "words"),
    [({"c": 1.0}, "'c' is no objective"), ({"a": -1.0}, "weight of a"), ({"a": 0.0, "b": 0.0}, "all weights are 0")],
)
def test_weights_of_no_use_are_refused(given: dict[str, float], words: str):
    with pytest.raises(InvalidInput, match=words):
        weights.complete(given, ("a", "b"))


def test_a_change_of_no_use_changes_nothing(store: VersionStore, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="all weights are 0"):
        weights.change(store, StateDir(tmp_path), {"helpful": 0.0, "harmless": 0.0}, TWO)
    assert store.read(weights.KEY) is None
