"""What the chat service needs of the engine; `rlhf_online.engine.host.EngineHost` has it, and so do fakes."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from rlhf_online.canary.record import Canary
from rlhf_online.versions.manifest import Change

SwapListener = Callable[[str, str], Awaitable[None]]
ChangeListener = Callable[[Change], Awaitable[None]]


class Client(Protocol):
    """The way to the engine."""

    url: str
    """ "unix:/path" or "http://host:port"."""

    async def health(self) -> bool: ...

    async def metrics(self) -> str: ...


class Swap(Protocol):
    """How an attempt to load a version went."""

    @property
    def ok(self) -> bool: ...

    @property
    def pause_s(self) -> float: ...


class Store(Protocol):
    """Whether the store of versions answers."""

    @property
    def silent_s(self) -> float: ...

    @property
    def failure(self) -> str: ...


class Pod(Protocol):
    """How this pod keeps up with the store, and with the other pods."""

    @property
    def name(self) -> str: ...

    @property
    def store(self) -> Store: ...

    @property
    def lag_s(self) -> float:
        """Since when another version is live than the one that serves here; 0 if it is the live one."""
        ...

    @property
    def behind(self) -> str:
        """Why this pod should get no more requests, "" if it should."""
        ...

    @property
    def could_not(self) -> Mapping[str, str]:
        """What this pod could not serve, and why."""
        ...


class Engine(Protocol):
    """An engine that is kept serving the live version."""

    @property
    def state(self) -> str:
        """ "starting", "waiting" (for the first version, or `failure` says why none serves), "ready", "restarting" or
        "failed"."""
        ...

    @property
    def failure(self) -> str: ...

    @property
    def serving(self) -> str:
        """The policy version that writes tokens now, "" before the first."""
        ...

    @property
    def model_name(self) -> str:
        """The "model" of upstream requests."""
        ...

    @property
    def models(self) -> Mapping[str, str]:
        """The "model" of upstream requests for each version that can be asked for by its name, oldest first."""
        ...

    @property
    def canary(self) -> Canary | None:
        """The candidate that some conversations get, where it is held beside the live version."""
        ...

    @property
    def audience_canaries(self) -> Mapping[str, Canary]:
        """The same of each audience that has one."""
        ...

    @property
    def audiences(self) -> Mapping[str, str]:
        """The version that answers for each audience that requests may name; "" for the common one, while the engine
        holds none of its own."""
        ...

    @property
    def client(self) -> Client: ...

    @property
    def pod(self) -> Pod: ...

    @property
    def swaps(self) -> Sequence[Swap]: ...

    @property
    def restarts(self) -> int: ...

    @property
    def on_pause(self) -> list[SwapListener]:
        """Called with (old, new) while the engine is paused, before new weights are loaded."""
        ...

    @property
    def on_restore(self) -> list[SwapListener]:
        """Called with (old, new) if the old weights go on after all."""
        ...

    @property
    def on_change(self) -> list[ChangeListener]:
        """Called when a version begins to serve or is refused."""
        ...
