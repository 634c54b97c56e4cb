"""Work that ends when its client goes away.

ASGI tells of a client's going only to a task that waits for nothing else. Here the connection says so itself
(`Connection`, by the `Presence` in each request's scope): a request then is one task, as long as it is worked on.
"""

import asyncio
from collections.abc import Callable, Coroutine, MutableMapping
from typing import Any, TypeVar

STATE = "presence"
Result = TypeVar("Result")


class ClientDisconnected(Exception):
    """The client closed its connection while its request was worked on."""


class Presence:
    """Of the client at the other end of a connection: until it is `gone`, whoever must know then is in `leaving`."""

    def __init__(self) -> None:
        self.gone = False
        self.leaving: set[Callable[[], object]] = set()

    def left(self) -> None:
        """May be called again, which changes nothing: what is told is cleaning up by then."""
        if self.gone:
            return
        self.gone = True
        for leave in [*self.leaving]:
            leave()


async def until_disconnect(scope: MutableMapping[str, Any], work: Coroutine[Any, Any, Result]) -> Result:
    """The result of `work`, which is cancelled if the client goes away; then raises ClientDisconnected."""
    presence: Presence = scope["state"][STATE]
    task = asyncio.current_task()
    assert task is not None
    if presence.gone:
        work.close()
        raise ClientDisconnected
    cancelled_by_others = task.cancelling()
    presence.leaving.add(task.cancel)
    try:
        return await work
    except asyncio.CancelledError:
        if presence.gone and task.uncancel() <= cancelled_by_others:
            raise ClientDisconnected from None
        raise
    finally:
        presence.leaving.discard(task.cancel)
