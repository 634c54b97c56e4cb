"""Which files of a model folder are its weights, and an index that does not say."""

import json
from pathlib import Path

import pytest

from rlhf_online.errors import InvalidInput
from rlhf_online.versions import open_registry
from rlhf_online.versions.genesis import genesis
from rlhf_online.versions.weight_files import BadIndex, other_weights, read_index, weight_files

INDEX = "model.safetensors.index.json"


def _folder(path: Path, *names: str, index: object = None) -> Path:
    path.mkdir(exist_ok=True)
    for name in names:
        (path / name).touch()
    if index is not None:
        (path / INDEX).write_text(index if isinstance(index, str) else json.dumps(index))
    return path


def _names(paths: list[Path]) -> list[str]:
    return [path.name for path in paths]


def test_the_index_says_and_else_the_single_file_and_else_all(tmp_path: Path) -> None:
    """As Mistral ships them: the same weights a second time in another file."""
    shards = ["model-00002-of-2.safetensors", "model-00001-of-2.safetensors"]
    several = _folder(tmp_path / "a", *shards, "consolidated.safetensors")
    assert _names(weight_files(several)) == ["consolidated.safetensors", *reversed(shards)] and not other_weights(
        several
    )
    weight_map = {"x": shards[0], "y": shards[1], "z": shards[0], "lost": "model-00003.safetensors"}
    _folder(several, index={"weight_map": weight_map})
    assert _names(weight_files(several)) == [shards[1], shards[0], "model-00003.safetensors"], "also one that is absent"
    assert _names(other_weights(several)) == ["consolidated.safetensors"]
    single = _folder(tmp_path / "b", "model.safetensors", "consolidated.safetensors", "another.safetensors")
    assert _names(weight_files(single)) == ["model.safetensors"]
    assert _names(other_weights(single)) == ["another.safetensors", "consolidated.safetensors"]
    assert weight_files(_folder(tmp_path / "c")) == []
    others = [f"part-{number}.safetensors" for number in range(9)]
    assert _names(other_weights(_folder(tmp_path / "d", "model.safetensors", *others[::-1]))) == others


@pytest.mark.parametrize(
    "index",
    [
        "",
        "{",
        "[]",
        {},
        {"weight_map": {}},
        {"weight_map": ["x"]},
        {"weight_map": {"x": 1}},
        {"weight_map": {"x": "model.safetensors", "y": "../elsewhere/model.safetensors"}},
        {"weight_map": {"x": "/model.safetensors"}},
    ],
)
def test_an_index_that_names_no_files_of_its_folder_is_none(tmp_path: Path, index: object) -> None:
    model = _folder(tmp_path / "model", "model.safetensors", index=index)
    with pytest.raises(BadIndex, match="cannot be read"):
        read_index(model / INDEX)
    with pytest.raises(
        InvalidInput, match=rf"the index of the weights in {model} cannot be read .*fetch the model again"
    ):
        genesis(open_registry(tmp_path / "versions"), model, tuning="full", probe_of=lambda model: ())
