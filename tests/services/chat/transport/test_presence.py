"""Work on a request ends with its client's going, and with nothing else."""

import asyncio

import pytest

from services.chat.transport.presence import STATE, ClientDisconnected, Presence, until_disconnect


def scope(presence: Presence) -> dict[str, dict[str, Presence]]:
    return {"state": {STATE: presence}}


async def test_the_result_of_a_request_whose_client_stays() -> None:
    presence = Presence()
    assert await until_disconnect(scope(presence), asyncio.sleep(0, "done")) == "done"
    presence.left()
    await asyncio.sleep(0)  # nothing is cancelled any more


async def test_a_client_that_goes_ends_its_work_alone() -> None:
    presence, ended = Presence(), asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def request() -> str:
        with pytest.raises(ClientDisconnected):
            await until_disconnect(scope(presence), work())
        await asyncio.sleep(0)  # the request's own task goes on
        return "cleaned up"

    asked, other = asyncio.create_task(request()), asyncio.create_task(until_disconnect(scope(Presence()), work()))
    await asyncio.sleep(0)
    presence.left()
    assert await asked == "cleaned up"
    assert ended.is_set()
    assert not other.done()
    other.cancel()
    with pytest.raises(asyncio.CancelledError):  # by somebody else
        await other


async def test_work_that_cleans_up_is_not_cut_short_by_a_client_that_goes_twice() -> None:
    presence, cleaned = Presence(), asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.set()

    asked = asyncio.create_task(until_disconnect(scope(presence), work()))
    await asyncio.sleep(0)
    presence.left()  # what it sent was no request
    await asyncio.sleep(0)
    presence.left()  # and then the connection ended
    with pytest.raises(ClientDisconnected):
        await asked
    assert cleaned.is_set()


async def test_work_for_a_client_that_has_gone_is_not_begun() -> None:
    presence = Presence()
    presence.left()
    begun: list[bool] = []

    async def work() -> None:
        begun.append(True)

    with pytest.raises(ClientDisconnected):
        await until_disconnect(scope(presence), work())
    assert not begun


async def test_a_time_out_inside_the_work_stays_one() -> None:
    async def work() -> None:
        async with asyncio.timeout(0):
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        await until_disconnect(scope(Presence()), work())
