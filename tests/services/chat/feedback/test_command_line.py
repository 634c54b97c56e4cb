"""`rlhf-online feedback show`, `edit`, `withdraw` and `import` against the real service."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from rlhf_online.cli import feedback, main
from rlhf_online.eventlog.local import LocalLog
from tests.support.chat_service import Service, running


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    with LocalLog(tmp_path / "state" / "log") as log:
        async with running(tmp_path, log=log) as service:
            yield service


async def run(service: Service, *arguments: str) -> int:
    return await asyncio.to_thread(main, ["feedback", *arguments, "--url", service.url])


async def listed(service: Service, user: str = "ann") -> list[dict[str, Any]]:
    return (await service.get(f"/v1/feedback?user={user}"))[1]["data"]


async def test_a_vote_is_shown_edited_and_withdrawn(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    def printed() -> str:
        return capsys.readouterr().out.removeprefix("noted as event ").strip()

    ann = ("--user", "ann")
    assert await run(service, "thumb", "c1", "up", *ann) == 0
    first = printed()
    assert await run(service, "show", first, *ann) == 0
    assert printed() == "accepted: it is on disk, and waits for the trainer to read it"
    assert await run(service, "edit", first, '{"thumb": {"answer": {"completion_id": "c1"}, "up": false}}', *ann) == 0
    second = printed()
    assert await run(service, "withdraw", second, *ann) == 0
    votes = await listed(service)
    assert [vote["replaces"] for vote in votes] == [second, first, ""]
    assert votes[1]["thumb"]["up"] is False
    assert await run(service, "show", first, "--user", "bob") == 1
    assert "of yours is not known here" in capsys.readouterr().err


@pytest.mark.parametrize("vote", ["{", "[]"])
async def test_an_edit_that_is_none(service: Service, vote: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert await run(service, "edit", "x", vote) == 2
    assert "the vote is no JSON" in capsys.readouterr().err


async def test_a_file_of_votes_is_imported_once_and_its_bad_lines_are_named(
    service: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feedback, "IMPORT_LINES", 2)  # so that there are several requests
    file = tmp_path / "votes.ndjson"
    votes = [{"thumb": {"answer": {"completion_id": f"c{n}"}, "up": True}, "user": "ann"} for n in range(5)]
    lines = [json.dumps(vote) for vote in votes]
    file.write_text("\n".join([*lines[:3], "", "{no json", *lines[3:]]) + "\n")
    for _ in range(2):
        assert await run(service, "import", str(file)) == 1
        said = capsys.readouterr()
        assert said.out == "5 votes taken, 1 refused\n"
        assert said.err.startswith(f"{file}:5: the body is not valid JSON")
        assert len(await listed(service)) == 5
    assert await run(service, "import", str(tmp_path / "none")) == 2
    assert "cannot be read" in capsys.readouterr().err
