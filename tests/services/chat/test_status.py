"""What the status file says, and when it is written."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from rlhf_online.engine.host import EngineHost
from rlhf_online.engine.swap import SwapResult
from rlhf_online.state import StateDir
from rlhf_online.versions.manifest import Change
from services.chat import status
from services.chat.status import StatusFile
from tests.support.chat_host import FakePod
from tests.support.waiting import eventually


def host(**more: Any) -> Any:
    swaps = [SwapResult(version="policy-000001", previous="policy-000000", ok=True, pause_s=0.1)]
    values = {"state": "ready", "serving": "policy-000001", "restarts": 0, "swaps": swaps, "pod": FakePod()}
    return SimpleNamespace(**values | more)


async def test_it_is_written_when_a_version_begins_to_serve(tmp_path: Path) -> None:
    state = StateDir(tmp_path)
    await StatusFile(cast("EngineHost", host()), state).changed(Change(version="policy-000001", state="live"))
    written = state.read_status("chat")
    assert (written["serving"], written["pod"], written["swaps"][0]["pause_s"]) == ("policy-000001", "pod-0", 0.1)
    assert written["updated_ms"] > 0


async def test_it_is_written_when_something_else_has_changed_and_only_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status, "LOOK_S", 0.001)
    state, one = StateDir(tmp_path), host()
    keeping = asyncio.create_task(StatusFile(cast("EngineHost", one), state).keep())
    await eventually(lambda: state.read_status("chat"))
    first = state.read_status("chat")["updated_ms"]
    one.pod.lag_s = 20.0
    await asyncio.sleep(0.05)
    assert state.read_status("chat")["updated_ms"] == first, "a lag that grows is no news"
    one.pod.could_not = {"policy-000002": "CUDA out of memory"}
    one.pod.behind = "it has been live for 60 s"
    await eventually(lambda: state.read_status("chat")["behind"])
    assert state.read_status("chat")["could_not"] == {"policy-000002": "CUDA out of memory"}
    keeping.cancel()
