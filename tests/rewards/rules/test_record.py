"""The rules in force: a record beside the live version."""

from pathlib import Path

import pytest

from rlhf_online.errors import InvalidInput
from rlhf_online.rewards.rules import record
from rlhf_online.rewards.rules.ruleset import NONE, parse
from rlhf_online.versions.folder_store import FolderStore
from rlhf_online.versions.store import VersionStore
from tests.support.memory_store import MemoryStore

TERSE = parse("[propositions.short]\nlength = { max = 3 }\n[rules.terse]\nweights = { short = 1 }\n")


@pytest.fixture(params=["folder", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> VersionStore:
    return FolderStore(tmp_path / "versions") if request.param == "folder" else MemoryStore(tmp_path)


def test_what_is_applied_is_in_force_until_it_is_replaced(store: VersionStore) -> None:
    assert record.read(store) == NONE and record.objectives(store) == []
    assert not record.apply(store, NONE)
    assert record.apply(store, TERSE) and not record.apply(store, TERSE)
    assert record.read(store).version == TERSE.version and record.objectives(store) == ["rule:terse"]
    assert record.apply(store, NONE)
    assert record.read(store) == NONE and record.objectives(store) == []


@pytest.mark.parametrize(
    "content",
    ["", "{", "[1]", '{"rules": 1}', '{"rules": "[rules"}', '{"rules": "[rules.terse]\\nweights = { short = 1 }\\n"}'],
)
def test_a_record_of_no_use_is_refused_and_the_next_one_counts(store: VersionStore, content: str) -> None:
    assert store.replace(record.KEY, content, expected=None)
    with pytest.raises(InvalidInput, match=f"^{store.place(record.KEY)}"):
        record.read(store)
    assert record.apply(store, TERSE) and record.read(store).text == TERSE.text
