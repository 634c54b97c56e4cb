"""The transaction that puts other weights into a serving engine.

    full   pause(keep) → on_pause → load → drop every cache → probe → name it → resume
                                     └─ on any failure: load the old folder → drop → probe → on_restore → resume
    lora   load the adapter beside the others → probe under its name → name it        (nothing pauses)
                                     └─ on any failure: unload it
    lora, and the version before has failed: what it still writes goes on with the new one
           pause(keep) → on_pause → drop every cache → the new adapter in the old one's place → resume

What is loaded has passed `preflight`. The probe compares the engine's own log-probs with those that transformers
computed for these weights, in the trainer or for the first version. Invariants: `resume` is called only when the
weights in the engine have passed their probe in this transaction, or were never touched; a pause that is not confirmed
in time changes nothing.
"""

import math
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rlhf_online.errors import EngineError, EngineUnavailable, SwapFailed
from rlhf_online.versions.manifest import ProbeSequence

SwapListener = Callable[[str, str], Awaitable[None]]
"""Told the names of the old and the new version."""

SMOKE_PROBE = ((0, 1),)
"""What is asked about a version without a probe of its own: are the log-probs finite?"""
MIN_COMPARED_TOKENS = 4
"""Tokens of a probe below which agreement proves nothing."""


class Engine(Protocol):
    """What a swap needs of `EngineClient`."""

    async def pause(self, timeout_s: float) -> None: ...
    async def resume(self) -> None: ...
    async def reload_weights(self, folder: Path) -> None: ...
    async def reset_prefix_cache(self) -> None: ...
    async def set_version(self, version: str) -> None: ...
    async def load_lora(self, name: str, folder: Path) -> None: ...
    async def replace_lora(self, name: str, folder: Path) -> None: ...
    async def unload_lora(self, name: str) -> None: ...
    async def probe(self, sequences: Sequence[Sequence[int]]) -> list[list[float]]: ...
    async def probe_model(self, model: str, sequences: Sequence[Sequence[int]]) -> list[list[float | None]]: ...


@dataclass(frozen=True, slots=True)
class Weights:
    """A version that passed preflight; one without files stands for the base model.

    `traceparent` is of the cycle that made it.
    """

    version: str
    folder: Path
    probe: tuple[ProbeSequence, ...] = ()
    has_files: bool = True
    traceparent: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SwapResult:
    """How a swap ended. `postponed`: the engine could not be paused, which says nothing about it.

    `pause_s` runs from the confirmed pause to the answer to `resume`; `wait_s` is how long the pause took before.
    """

    version: str
    previous: str
    ok: bool
    reason: str = ""
    pause_s: float = 0.0
    wait_s: float = 0.0
    postponed: bool = False


async def swap_full(
    engine: Engine,
    new: Weights,
    old: Weights | None,
    *,
    pause_timeout_s: float,
    tolerance: float,
    on_pause: Sequence[SwapListener] = (),
    on_restore: Sequence[SwapListener] = (),
) -> SwapResult:
    """Replace all weights. `old` None: the engine holds no version yet, and stays paused if `new` fails.

    Raises EngineUnavailable if the engine is gone, or holds weights that cannot be trusted: start it again.
    """
    previous = old.version if old else ""
    asked = time.monotonic()
    if hindered := await _pause(engine, pause_timeout_s):
        return SwapResult(version=new.version, previous=previous, ok=False, reason=hindered, postponed=True)
    paused, reason, trusted = time.monotonic(), "", True
    try:
        await _notify(on_pause, previous, new.version)
        trusted = False
        reason = await _attempt(engine, new, tolerance)
        if reason and old is not None:
            if second := await _attempt(engine, old, tolerance):
                raise EngineUnavailable(f"{new.version}: {reason}; and {old.version} could not be restored: {second}")
            await _notify(on_restore, previous, new.version)
        trusted = not reason or old is not None
    finally:
        if trusted:
            await engine.resume()
    return SwapResult(
        version=new.version,
        previous=previous,
        ok=not reason,
        reason=reason,
        pause_s=time.monotonic() - paused,
        wait_s=paused - asked,
    )


async def swap_lora(
    engine: Engine,
    new: Weights,
    *,
    base_name: str,
    adapter: bool,
    previous: str,
    tolerance: float,
    serves: bool = True,
) -> SwapResult:
    """Load the adapter under the version's name and probe it; without files (`adapter` False) probe the base model.
    `serves`: it is the live version from now on, and not another one beside it.

    Raises EngineUnavailable if the engine is gone.
    """
    reason = ""
    try:
        if adapter:
            await engine.load_lora(new.version, new.folder)
        name = new.version if adapter else base_name
        check_probe(new, await engine.probe_model(name, _sequences(new)), tolerance)
        if serves:
            await engine.set_version(new.version)
    except EngineUnavailable:
        raise
    except EngineError as error:
        reason = str(error)
        if adapter:
            await unload_quietly(engine, new.version)
    return SwapResult(version=new.version, previous=previous, ok=not reason, reason=reason)


async def replace_lora(
    engine: Engine,
    bad: str,
    good: Weights,
    *,
    folder: Path,
    pause_timeout_s: float,
    on_pause: Sequence[SwapListener] = (),
    on_restore: Sequence[SwapListener] = (),
) -> SwapResult:
    """Have the answers that the adapter `bad` is writing go on with `good`, whose adapter is in `folder`.

    Each of their tokens is written wholly by one of the two. `good` has passed its probe under its own name. If it
    fails, `bad` goes on writing them. Raises EngineUnavailable if the engine is gone.
    """
    asked, reason = time.monotonic(), ""
    if hindered := await _pause(engine, pause_timeout_s):
        return SwapResult(version=good.version, previous=bad, ok=False, reason=hindered, postponed=True)
    paused = time.monotonic()
    try:
        await _notify(on_pause, bad, good.version)
        await engine.reset_prefix_cache()
        await engine.replace_lora(bad, folder)
    except EngineUnavailable:
        raise
    except EngineError as error:
        reason = str(error)
        await _notify(on_restore, bad, good.version)
    finally:
        await engine.resume()
    return SwapResult(
        version=good.version,
        previous=bad,
        ok=not reason,
        reason=reason,
        pause_s=time.monotonic() - paused,
        wait_s=paused - asked,
    )


async def _pause(engine: Engine, timeout_s: float) -> str:
    """Why the engine could not be paused, and goes on; "" once it is."""
    try:
        await engine.pause(timeout_s)
    except EngineError as error:
        await engine.resume()
        return str(error) or type(error).__name__
    return ""


async def unload_quietly(engine: Engine, name: str) -> None:
    """Unload an adapter; one that is not there is fine."""
    try:
        await engine.unload_lora(name)
    except EngineUnavailable:
        raise
    except EngineError:
        pass


def check_probe(weights: Weights, logprobs: Sequence[Sequence[float | None]], tolerance: float) -> None:
    """Compare the engine's log-probs with the manifest's; the mean |Δ| over the tokens that it told counts, in nats.

    Raises SwapFailed if one is not finite, there are fewer than MIN_COMPARED_TOKENS, or the mean is above `tolerance`.
    """
    values = [value for row in logprobs for value in row]
    if not all(value is None or math.isfinite(value) for value in values):
        raise SwapFailed(f"{weights.version}: the engine computes log-probs that are not finite")
    if not weights.probe:
        return
    expected = [value for sequence in weights.probe for value in sequence.logprobs]
    if len(values) != len(expected):
        raise SwapFailed(f"{weights.version}: the engine answered {len(values)} of {len(expected)} probe tokens")
    differences = [abs(a - b) for a, b in zip(values, expected, strict=True) if a is not None]
    if len(differences) < min(MIN_COMPARED_TOKENS, len(expected)):
        raise SwapFailed(
            f"{weights.version}: the engine told the log-probs of {len(differences)} of {len(expected)} probe tokens, "
            "which is too few to know the weights by: give the probe likelier tokens"
        )
    difference = math.fsum(differences) / max(len(differences), 1)
    if not difference <= tolerance:
        raise SwapFailed(
            f"{weights.version}: the engine's log-probs differ from those of its manifest by {difference:.4g} nats a "
            f"token on average, {tolerance:g} are allowed (swap.probe_tolerance): it computes with other weights, or "
            "otherwise than transformers"
        )


async def _attempt(engine: Engine, weights: Weights, tolerance: float) -> str:
    """Load, drop the caches, probe, name; "" or why it failed. Raises EngineUnavailable."""
    try:
        await engine.reload_weights(weights.folder)
        await engine.reset_prefix_cache()
        check_probe(weights, await engine.probe(_sequences(weights)), tolerance)
        await engine.set_version(weights.version)
    except EngineUnavailable:
        raise
    except EngineError as error:
        return str(error)
    return ""


async def _notify(listeners: Sequence[SwapListener], old: str, new: str) -> None:
    for listener in listeners:
        await listener(old, new)


def _sequences(weights: Weights) -> list[tuple[int, ...]]:
    return [sequence.token_ids for sequence in weights.probe] or list(SMOKE_PROBE)
