"""The operator's weights: a file that is there wholly, or not at all, or is refused."""

from pathlib import Path

import pytest

from rlhf_online.errors import InvalidInput
from rlhf_online.rewards import weights
from rlhf_online.state import StateDir


def test_what_was_written_is_read_and_the_rest_counts_one(tmp_path: Path):
    state = StateDir(tmp_path)
    assert weights.read(state) == {}
    weights.write(state, {"harmless": 0.5, "terse": 9.0})
    assert weights.read(state) == {"harmless": 0.5, "terse": 9.0}
    assert weights.applicable(weights.read(state), ("helpful", "harmless")) == {"helpful": 1.0, "harmless": 0.5}
    assert list(weights.applicable({"b": 2.0, "a": 3.0}, ("a", "b"))) == ["a", "b"], "in the model's order"


@pytest.mark.parametrize("content", ["{", "[1]", '{"a": -1}', '{"a": "1"}', '{"a": true}', '{"a": NaN}'])
def test_a_file_of_no_use_is_refused_by_name(tmp_path: Path, content: str):
    state = StateDir(tmp_path)
    state.reward_weights.write_text(content)
    with pytest.raises(InvalidInput, match=r"reward-weights\.json"):
        weights.read(state)


@pytest.mark.parametrize(
    ("given", "words"),
    [({"c": 1.0}, "'c' is no objective"), ({"a": -1.0}, "weight of a"), ({"a": 0.0, "b": 0.0}, "all weights are 0")],
)
def test_weights_of_no_use_are_refused(given: dict[str, float], words: str):
    with pytest.raises(InvalidInput, match=words):
        weights.complete(given, ("a", "b"))
