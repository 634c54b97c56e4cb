"""What every service's settings are made of: tables that know which of their settings mean something, and where."""

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError


def _different(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        raise ValueError("a name stands there twice")
    return names


def _quiet_libraries(levels: dict[str, "LogLevel"]) -> dict[str, "LogLevel"]:
    for module, level in levels.items():
        if not re.fullmatch(r"[A-Za-z_]\w*(\.\w+)*", module):
            raise ValueError(f"{module!r} is no module's name: it looks like 'rlhf_online.engine'")
        if level == "debug" and module.partition(".")[0] not in OURS:
            raise ValueError(f"{module} = 'debug': a library's lines may hold what people wrote; from 'info' on it may")
    return levels


def _no_float16(dtype: object) -> object:
    if dtype in ("float16", "fp16", "half"):
        raise PydanticCustomError(
            "float16",
            "nothing is learned in {dtype}: gradients below 6e-8 are 0 in it, and the loss scale that would save them "
            "is found by updates that overflow and are lost; use 'bfloat16', or 'float32' where the device lacks that",
            {"dtype": dtype},
        )
    return dtype


OURS = ("rlhf_online", "services")
LogLevel = Literal["debug", "info", "warning", "error"]
LogLevels = Annotated[dict[str, LogLevel], AfterValidator(_quiet_libraries)]
Port = Annotated[int, Field(ge=0, le=65535)]
Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Tuning = Literal["full", "lora"]
Device = Literal["auto", "cpu", "cuda"]
Dtype = Literal["auto", "float32", "bfloat16"]
Computed = Annotated[Dtype, BeforeValidator(_no_float16)]
"""What layers compute in, as a setting."""
Sharding = Literal["none", "full"]
ObjectiveName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,31}$")]
Tags = Annotated[tuple[ObjectiveName, ...], Field(max_length=64), AfterValidator(_different)]
Objective = Annotated[str, Field(pattern=r"^(rule:)?[a-z][a-z0-9_-]{0,31}$")]
"""`rule:NAME` is what people say of an answer by a rule (Sparrow): a head of the reward model like any other."""
Objectives = Annotated[tuple[Objective, ...], Field(min_length=1), AfterValidator(_different)]
"""What answers are judged by; the first is that of a vote which names none."""


class Only:
    """Values of another setting under which one has an effect: `Only("mechanism", "PLAIN", "SCRAM-*")`."""

    def __init__(self, setting: str, *values: object, above: float | None = None) -> None:
        """`*` in a value stands for anything, `?*` for anything but nothing; `above` is for numbers."""
        self.setting = setting
        self.values = values
        self.above = above

    def allows(self, value: Any) -> bool:
        if self.above is not None:
            return value > self.above
        if self.values == ("?*",):
            return bool(value)
        return any(fnmatchcase(value, v) if isinstance(v, str) else value == v for v in self.values)

    def __str__(self) -> str:
        if self.above is not None:
            return f"above {self.above:g}"
        return "a value" if self.values == ("?*",) else " or ".join(repr(value) for value in self.values)


class Section(BaseModel):
    """A table of a settings file.

    `only_with` says which settings have an effect only under values of another one, `{"url": Only("mode",
    "external")}`: given under any other value they are refused, naming both. `moved` says what is set under another
    name, `{"clip": "algorithm.clip"}`, which the refusal then names. Names in both may lead into tables of this one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    only_with: ClassVar[Mapping[str, Only]] = {}
    moved: ClassVar[Mapping[str, str]] = {}

    @model_validator(mode="after")
    def _has_an_effect(self) -> Self:
        for name, only in self.only_with.items():
            if _given(self, name) and not only.allows(value := attrgetter(only.setting)(self)):
                raise PydanticCustomError(
                    "no_effect",
                    "{name} has no effect while {setting} is {value}: it needs {only}",
                    {"name": name, "setting": only.setting, "value": value, "only": str(only)},
                )
        return self


def _given(section: BaseModel, name: str) -> bool:
    first, _, rest = name.partition(".")
    value = getattr(section, first) if first in section.model_fields_set else None
    return value is not None and (not rest or _given(value, rest))


class VersionsSettings(Section):
    """Where the versions are."""

    only_with: ClassVar = {"cache_gib": Only("url", "s3:*", "gs:*", "az:*")}

    url: str = Field(
        default="",
        pattern=r"^((s3|gs|az)://[^/@\s]+(/[^\s]*)?|file:/[^\s]+)?$",
        description="A bucket that all services share, 's3://bucket/prefix', with credentials and endpoint from the "
        "usual variables (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, …), or a folder that they all reach under this name, "
        "'file:/path', whose file system has working locks; empty: the state folder.",
    )
    cache_gib: float = Field(
        default=32.0,
        ge=0,
        description="Size of the local copies of a bucket's versions beyond which those that were used least recently "
        "go; the four of a kind that were used last stay.",
    )

    @property
    def in_bucket(self) -> bool:
        """Whether `url` names one."""
        return not self.url.startswith("file:") and bool(self.url)


class ProcessSettings(Section):
    """What one process reads. Variables of the environment that begin with `variables` are settings too."""

    variables: ClassVar[str]


class ServiceSettings(ProcessSettings):
    """What the services have in common."""

    state_dir: Path = Field(description="Folder that holds the log, the versions, the checkpoints and the secrets.")
    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    ready_file: Path | None = Field(
        default=None, description="Written, as JSON with the real ports, once the ports are open."
    )
    versions: VersionsSettings = VersionsSettings()
    die_with_parent: bool = Field(default=False, description="End when the process that started this one ends (Linux).")
    log_level: LogLevel = Field(
        default="info", description="Least severe line shown; taken up while the service runs, as `log_levels` is."
    )
    log_levels: LogLevels = Field(
        default_factory=dict,
        description="The same for modules and what is below them: {'rlhf_online.engine' = 'debug', 'kafka' = 'info'}.",
    )
    log_format: Literal["text", "json"] = Field(default="text", description="How a line is written.")
