"""Norms by hand."""

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from rlhf_online.errors import VersionCorrupt
from rlhf_online.models import tensor_differences
from rlhf_online.models.tensor_differences import compare


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    for name in ("before", "after"):
        (tmp_path / name).mkdir()
    return tmp_path / "before", tmp_path / "after"


def test_each_tensor_is_told_by_its_relative_norm_the_most_different_first(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensor_differences, "PIECE", 1)  # norms of pieces add up
    before, after = folders
    old = {
        "far": torch.tensor([[3.0, 4.0]]),
        "near": torch.tensor([10.0], dtype=torch.bfloat16),
        "same": torch.tensor([1.0]),
        "shorter": torch.zeros(2),
        "gone": torch.zeros(1),
        "zero": torch.zeros(1),
    }
    new = old | {
        "far": torch.tensor([[3.0, 9.0]]),
        "near": torch.tensor([11.0], dtype=torch.bfloat16),
        "shorter": torch.zeros(1),
        "zero": torch.ones(1),
        "came": torch.ones(1),
    }
    del new["gone"]
    save_file(old, before / "model.safetensors")
    save_file(new, after / "model.safetensors")
    found = compare(before, after)
    assert [(each.name, each.what) for each in found.differences] == [
        ("came", "added"),
        ("gone", "removed"),
        ("shorter", "reshaped"),
        ("zero", "changed"),
        ("far", "changed"),
        ("near", "changed"),
    ]
    assert [each.relative for each in found.differences[3:]] == [math.inf, 1.0, 0.1]
    assert found.tensors == 7
    assert found.relative == pytest.approx(math.sqrt((25 + 1 + 1) / (25 + 100 + 1)))


def test_what_is_no_safetensors_file_is_named(folders: tuple[Path, Path]) -> None:
    for folder in folders:
        (folder / "model.safetensors").write_bytes(b"no header")
    with pytest.raises(VersionCorrupt, match="before: its tensors cannot be read"):
        compare(*folders)
