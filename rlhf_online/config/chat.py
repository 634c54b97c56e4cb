"""Settings of services/chat and of the engine that it starts."""

import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from rlhf_online.config import engine_args
from rlhf_online.config.base import (
    Count,
    Device,
    Objectives,
    Only,
    Port,
    Positive,
    Section,
    ServiceSettings,
    Tags,
    Tuning,
)
from rlhf_online.config.engine_args import ONE_CORE
from rlhf_online.config.grpc import GrpcSettings
from rlhf_online.config.keystore import KeystoreSettings
from rlhf_online.config.limits import LimitSettings
from rlhf_online.config.log import LogSettings
from rlhf_online.config.tls import TlsSettings
from rlhf_online.config.tracing import ChatTracingSettings


def _host_name(value: str) -> str:
    if not re.fullmatch(r"(\*\.)?[a-z0-9]([a-z0-9.-]*[a-z0-9])?", value):
        raise ValueError(
            "expected a name in lower case, 'chat.example.org' or '*.example.org', without scheme and port"
        )
    return value


def _origin(value: str) -> str:
    if not re.fullmatch(r"https?://[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:\d{1,5})?", value):
        raise ValueError(
            "expected an origin in lower case, 'https://app.example.org' or with a port, without path, and no '*'"
        )
    return value


HostName = Annotated[str, AfterValidator(_host_name)]


def _template_variables(values: dict[str, Any]) -> dict[str, Any]:
    """`true` and `false` of an option, or of the environment, come as text. A settings file knows no null."""
    for name, value in values.items():
        if _holds_null(value):
            raise ValueError(f"{name} holds null: leave out what has no value")
    return {name: WORDS.get(value, value) if isinstance(value, str) else value for name, value in values.items()}


def _holds_null(value: Any) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return value is None or any(map(_holds_null, inner))


WORDS = {"true": True, "false": False}
ExtraArgs = Annotated[tuple[str, ...], AfterValidator(engine_args.checked)]
TemplateVariables = Annotated[dict[str, Any], AfterValidator(_template_variables)]


class EngineSettings(Section):
    only_with: ClassVar = {
        "url": Only("mode", "external"),
        **dict.fromkeys(
            (
                *("device", "dtype", "kv_cache_gib", "gpu_memory_utilization", "tensor_parallel_size"),
                *("start_timeout_s", "threads", "reasoning_parser", "chat_template_kwargs", "extra_args"),
            ),
            Only("mode", "managed"),
        ),
        **dict.fromkeys(("max_lora_rank", "audiences"), Only("tuning", "lora")),
    }

    @model_validator(mode="before")
    @classmethod
    def _one_core(cls, values: Any) -> Any:
        if isinstance(values, dict) and "data_parallel_size" in values:
            raise PydanticCustomError("one_core", "data_parallel_size is no setting: {why}", {"why": ONE_CORE})
        return values

    mode: Literal["managed", "external"] = Field(default="managed", description="Start vLLM here, or connect to one.")
    url: str = Field(default="", description="Address of an external engine, 'http://127.0.0.1:8001' or 'unix:/path'.")
    model: str = Field(default="", description="Folder of the base model (config, tokenizer, weights).")
    tuning: Tuning = Field(
        default="full", description="What versions hold: all weights, or a LoRA adapter on the base model."
    )
    device: Device = Field(default="auto", description="Where the engine computes.")
    dtype: str = Field(
        default="auto", description="Weights' type in the engine; auto: float32 on a CPU, the model's on a GPU."
    )
    tool_call_parser: str = Field(
        default="",
        description="How the model writes calls of tools, a name that vLLM's --tool-call-parser takes ('hermes'); "
        "empty: requests with tools are refused. Of an external engine the one that it was started with.",
    )
    reasoning_parser: str = Field(
        default="",
        description="How the model writes what it thinks, a name that vLLM's --reasoning-parser takes ('qwen3').",
    )
    chat_template_kwargs: TemplateVariables = Field(
        default_factory=dict, description="Variables of the chat template for requests that do not give them."
    )
    max_model_len: Positive = Field(default=2048, description="Longest prompt and answer together, in tokens.")
    max_num_seqs: Count = Field(
        default=0,
        description="Answers computed at once; 0: 64 on a CPU, 256 on a GPU. Of an external engine what it was started "
        "with (0: 64), so that the trainer asks for as many.",
    )
    kv_cache_gib: float = Field(default=1.0, gt=0, description="Memory for the key-value cache on a CPU, GiB.")
    gpu_memory_utilization: float = Field(
        default=0.9,
        gt=0,
        le=1,
        description="Share of a GPU's memory that the engine takes, weights and cache; less where trainer or reward "
        "service compute on the same one.",
    )
    tensor_parallel_size: Positive = Field(default=1, description="GPUs that hold the model together.")
    max_lora_rank: Positive = Field(default=16, description="Largest rank of an adapter.")
    audiences: int = Field(
        default=0,
        ge=0,
        le=8,
        description="Audiences (`rlhf-online audiences`) whose adapters have a place beside the live one; each takes "
        "the memory of two adapters of max_lora_rank: its own, and its canary. Profiles of others are refused.",
    )
    start_timeout_s: float = Field(
        default=600.0, gt=0, description="How long a start may take before it counts as failed."
    )
    threads: int = Field(default=0, ge=0, description="CPU threads of the engine; 0: vLLM's own choice.")
    extra_args: ExtraArgs = Field(
        default=(),
        description="Flags of vLLM's own, handed on as they are: ['--kv-cache-dtype', 'fp8']. Refused are those that "
        "the product sets, that open the engine to others, or that run code which came with a model.",
    )


class SwapSettings(Section):
    pause_timeout_s: float = Field(
        default=30.0, gt=0, description="How long the engine may take to pause before giving up."
    )
    probe_tolerance: float = Field(
        default=0.0,
        ge=0,
        description="Largest mean |Δlog-prob| on the probe, nats a token; 0: 0.001 for an engine started here that "
        "computes in float32 on a CPU, which refuses a layer 1 % off; else 0.1, as bfloat16 rounds.",
    )
    poll_s: float = Field(
        default=0.25,
        gt=0,
        description="How often the store is asked for a new live version; less often where many pods ask it.",
    )
    canary: bool = Field(
        default=False,
        description="This pod serves the canary, while there is one, in the live version's place: for versions of all "
        "weights, of which an engine holds one; the share of the conversations is then that of such pods.",
    )
    quorum: float = Field(
        default=0.5,
        ge=0,
        lt=1,
        description="A version fails for all pods once more than this share of them could not serve it; 0: once one "
        "could not.",
    )
    max_lag_s: float = Field(
        default=60.0,
        gt=0,
        description="A pod that has not served the live version for so long, while others do, is not ready.",
    )


class ChatSettings(ServiceSettings):
    """Settings of services/chat."""

    variables = "RLHF_CHAT__"

    http_port: Port = Field(default=8000, description="OpenAI-compatible HTTP; 0 lets the system choose.")
    grpc_port: Port = Field(default=8001, description="gRPC; 0 lets the system choose.")
    http_keep_alive_s: Positive = Field(default=75, description="How long an idle HTTP connection is kept open.")
    drain_s: Positive = Field(
        default=15,
        description="How long requests in progress may take to end after SIGTERM; with `limits.answer_timeout_s` none "
        "is cut off.",
    )
    grpc: GrpcSettings = GrpcSettings()
    tls: TlsSettings = TlsSettings()
    local_socket: Path | None = Field(
        default=None,
        description="Unix socket that speaks HTTP in the clear beside the ports, to processes of the same user alone.",
    )
    allowed_hosts: tuple[HostName, ...] = Field(
        default=(),
        description="Names under which browsers reach the page, 'chat.example.org' or '*.example.org'; localhost, IP "
        "addresses and the machine's own name always may.",
    )
    keys_file: Path | None = Field(
        default=None,
        description="Who may call, as `rlhf-online keys` keeps it; 'keys.json' in the state folder by default.",
    )
    allowed_origins: tuple[Annotated[str, AfterValidator(_origin)], ...] = Field(
        default=(),
        description="Other sites whose pages may use the API from a browser (CORS), 'https://app.example.org'.",
    )
    log: LogSettings = LogSettings()
    keystore: KeystoreSettings = KeystoreSettings()
    comparison_prompts: Path | None = Field(
        default=None,
        description='Prompts to compare answers to, JSON lines {"messages": […]}; without, each person\'s own.',
    )
    annotation_guidelines: Path | None = Field(
        default=None,
        description="How annotators are to judge, a Markdown (.md) or text file; read anew when the page is opened.",
    )
    keep_conversations_days: float = Field(
        default=0.0,
        ge=0,
        description="How long people's conversations and votes are kept for them to read; 0: until they erase them.",
    )
    keep_conversations_gib: float = Field(
        default=4.0,
        ge=0,
        description="Size of what is kept for people to read beyond which the oldest of it goes; 0: none.",
    )
    engine: EngineSettings = EngineSettings()
    limits: LimitSettings = LimitSettings()
    swap: SwapSettings = SwapSettings()
    tracing: ChatTracingSettings = ChatTracingSettings()
    reasons: Tags = Field(
        default=("correct", "helpful", "well_written", "incorrect", "incomplete", "unclear", "too_long", "unsafe"),
        description="Tags by which a vote may say why; they are logged with it.",
    )
    objectives: Objectives = Field(
        default=("helpful",), description="What a vote may name; the trainer's `reward.objectives`."
    )
