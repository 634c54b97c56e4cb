"""The chat service killed, stopped, asked to end, left by its client, and doubled (FAULTS 1–5, 9).

Real processes; only the engine is written by hand. The auditor counts in the end.
"""

import asyncio
import signal
import socket
import subprocess
from pathlib import Path

import aiohttp
import pytest

from rlhf_online.config import LogSettings
from rlhf_online.eventlog.tail import LocalReader
from rlhf_online.events import Completion, Feedback
from rlhf_online.feedback.votes import Rating
from rlhf_online.training.intake import Intake
from rlhf_online.training.ledger import Ledger
from tests.faults.auditor import audit
from tests.support.chat_process import ChatProcess, chat_process
from tests.support.intakes import new_intake
from tests.support.waiting import eventually

EXIT_S = 30.0


def check(service: ChatProcess) -> None:
    assert audit(service.state.root, service.acknowledged).problems == []


def taken_in(service: ChatProcess) -> Intake:
    """What a trainer makes of the log."""
    with LocalReader(service.state.log) as reader:
        intake = new_intake(reader, Ledger(), service.state.checkpoints / "answers")
        intake.read()
        return intake


def completions(service: ChatProcess) -> dict[str, Completion]:
    events = [envelope.event for envelope in service.logged()]
    return {event.completion_id: event for event in events if isinstance(event, Completion)}


async def test_killed_in_mid_stream_what_was_acknowledged_is_there_and_the_client_asks_again(tmp_path: Path) -> None:
    async with chat_process(tmp_path) as service:
        for _ in range(20):
            await service.vote(await service.ask())
        await service.engine.hold()
        stream, _ = await asyncio.gather(service.stream(), service.engine.allow(1))
        lost = await stream.first_word()
        await service.kill()
        with pytest.raises(aiohttp.ClientError):
            await stream.rest()
        await service.engine.aborted.wait()
        check(service)
        assert len(service.acknowledged) == 40
        await service.engine.release()
        await service.start()
        await service.vote(await service.ask())
        check(service)
        assert lost not in completions(service), "its client was never told that it is on disk"
        intake = taken_in(service)
        assert (intake.votes.trainable, intake.pending, intake.duplicates) == (21, 21, 0)


async def test_killed_between_fsync_and_reply_the_vote_sent_again_is_one_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill = tmp_path / "kill"
    monkeypatch.setenv("KILL_FILE", str(kill))
    async with chat_process(tmp_path, module="tests.support.killed_chat") as service:
        answer = await service.ask()
        kill.touch()
        with pytest.raises(aiohttp.ClientError):
            await service.vote(answer, key="once")
        assert await service.ended(EXIT_S) == -signal.SIGKILL
        [on_disk] = [each.event_id for each in service.logged() if isinstance(each.event, Feedback)]
        await service.start()
        assert await service.vote(answer, key="once") == on_disk
        check(service)
        intake = taken_in(service)
        assert [vote.event_id for vote in intake.votes.take()[0]] == [on_disk]
        assert intake.duplicates == 1, "the log has it twice, its readers take it once"


async def test_sigterm_under_load_lets_everybody_finish_and_loses_nothing(tmp_path: Path) -> None:
    async with chat_process(tmp_path) as service:
        await service.engine.hold()
        asking = [asyncio.create_task(service.ask()) for _ in range(30)]
        streams = [asyncio.create_task(service.stream()) for _ in range(30)]
        await eventually(lambda: len(service.engine.requests) == 60)
        await asyncio.gather(*(service.vote("an-answer") for _ in range(30)))
        service.signal(signal.SIGTERM)
        await eventually(service.gone)
        await service.engine.release()
        assert await service.ended(EXIT_S) == 0
        await asyncio.gather(*asking)
        for stream in await asyncio.gather(*streams):
            last = (await stream.rest())[-1]
            assert last["rlhf"]["logged"] is True
            service.acknowledged.append(last["id"])
        assert len(service.acknowledged) == 90
        check(service)
        assert [answer.answers[0].finish_reason for answer in completions(service).values()] == ["stop"] * 60


async def test_after_sigterm_an_answer_without_end_is_cut_and_logged(tmp_path: Path) -> None:
    async with chat_process(tmp_path, drain_s=1) as service:
        await service.engine.hold()
        stream, _ = await asyncio.gather(service.stream(), service.engine.allow(1))
        seen = await stream.first_word()
        service.signal(signal.SIGTERM)
        assert await service.ended(EXIT_S) == 0
        [answer] = completions(service)[seen].answers
        assert (answer.text, answer.finish_reason) == ("hello", "abort")


async def test_stopped_it_is_not_ready_and_going_on_it_has_lost_nothing(tmp_path: Path) -> None:
    async with chat_process(tmp_path) as service:
        answer = await service.ask()
        await service.engine.hold()
        stream, _ = await asyncio.gather(service.stream(), service.engine.allow(1))
        await stream.first_word()
        service.signal(signal.SIGSTOP)
        votes = [asyncio.create_task(service.vote(answer)) for _ in range(30)]
        await service.engine.release()
        assert await service.ready(within_s=2.0) == 0
        assert not any(vote.done() for vote in votes)
        service.signal(signal.SIGCONT)
        await asyncio.gather(*votes)
        last = (await stream.rest())[-1]
        assert last["rlhf"]["logged"] is True
        service.acknowledged.append(last["id"])
        assert await service.answers()
        assert len(service.acknowledged) == 32
        check(service)


async def test_what_a_client_saw_before_it_left_is_logged_and_can_be_rated(tmp_path: Path) -> None:
    async with chat_process(tmp_path) as service:
        await service.engine.hold()
        stream, _ = await asyncio.gather(service.stream(), service.engine.allow(1))
        seen = await stream.first_word()
        stream.leave()
        await service.engine.aborted.wait()
        event_id = await service.vote(seen)
        await eventually(lambda: seen in completions(service))  # nobody is told when it is on disk
        check(service)
        [answer] = completions(service)[seen].answers
        assert (answer.text, answer.token_ids, answer.finish_reason) == ("hello", (11,), "abort")
        [vote], *_ = taken_in(service).votes.take()
        assert isinstance(vote, Rating)
        assert (vote.event_id, vote.candidate.token_ids) == (event_id, (11,))


async def test_a_second_service_on_the_same_spool_ends_and_says_who_holds_it(tmp_path: Path) -> None:
    with socket.socket() as nobody:  # bound and never listening: connections are refused
        nobody.bind(("127.0.0.1", 0))
        log = LogSettings(url=f"kafka://127.0.0.1:{nobody.getsockname()[1]}")
        async with chat_process(tmp_path, log=log) as service:
            second = await service.spawn("services.chat", subprocess.PIPE)
            _, errors = await second.communicate()
            assert second.returncode == 1
            [line] = [each for each in errors.decode().splitlines() if each.startswith("error: ")]
            assert f"another process (pid {service.pid}) writes to the log in {service.state.log}" in line
            assert "stop it, or give this one another folder" in line
            assert "Traceback" not in errors.decode()
            await service.vote(await service.ask())
            check(service)
