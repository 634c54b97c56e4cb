"""A GPU where there is none."""

import pytest

from rlhf_online.doctor import gpu


@pytest.mark.skipif(gpu.DRIVER.exists(), reason="there is a GPU here")
def test_no_gpu_where_one_is_asked_for() -> None:
    found = gpu.gpu("trainer's device")
    assert found.severity == "refuse" and "no NVIDIA driver" in found.what
    assert "trainer's device to 'cpu'" in found.todo


def test_what_torch_says_is_asked_in_another_process(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    """With a driver's file in place torch itself is asked, which sees no device on a machine without one."""
    (tmp_path / "version").write_text("NVRM")
    monkeypatch.setattr(gpu, "DRIVER", tmp_path / "version")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    found = gpu.gpu("trainer's device")
    assert found.severity == "refuse"
    assert "sees no device" in found.what or "built for CPUs" in found.what
