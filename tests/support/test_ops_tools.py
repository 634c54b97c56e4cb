"""A tool is found where it was brought to, a missing one skips the test and says how to have it."""

from pathlib import Path

import pytest

from tests.support.ops_tools import tool


def test_a_tool_that_is_there_is_found_under_its_pinned_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLHF_ONLINE_TOOLS", str(tmp_path))
    with pytest.raises(pytest.skip.Exception, match=r"promtool is not here.*sh scripts/ops_tools\.sh prometheus"):
        tool("promtool")
    folder = tmp_path / "hadolint-2.15.1"
    folder.mkdir()
    (folder / "hadolint").touch()
    assert tool("hadolint") == folder / "hadolint"


def test_a_name_that_no_tool_has_fails_the_test() -> None:
    with pytest.raises(AssertionError, match=r"no tool .* has a file promtol"):
        tool("promtol")
