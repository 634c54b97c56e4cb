"""One frozen model of settings a service, read from a TOML file and from the environment.

`RLHF_CHAT__ENGINE__MODEL=…` overrides `[engine] model` of the chat service's file, and so for `RLHF_REWARD__…` and
`RLHF_TRAINER__…`. An unknown name or a wrong value raises ConfigError naming the field, the expectation and the value.
"""

import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tomli_w
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from rlhf_online.errors import ConfigError
from rlhf_online.gate.settings import GateSettings


def _different(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        raise ValueError("a name stands there twice")
    return names


Port = Annotated[int, Field(ge=0, le=65535)]
Positive = Annotated[int, Field(gt=0)]
Tuning = Literal["full", "lora"]
Device = Literal["auto", "cpu", "cuda"]
Algorithm = Literal["ppo", "grpo", "rloo", "reinforce", "online-dpo", "kto", "best-of-n"]
ObjectiveName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,31}$")]
Objectives = Annotated[tuple[ObjectiveName, ...], Field(min_length=1), AfterValidator(_different)]
"""What answers are judged by; the first is that of a vote which names none."""


class Section(BaseModel):
    """A table of a settings file."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class KafkaSettings(Section):
    partitions: Positive = Field(1, description="Partitions of the event topics; a conversation stays in one.")
    replication: Annotated[int, Field(ge=0)] = Field(0, description="Replicas of each topic; 0: the brokers' default.")
    min_insync: Annotated[int, Field(ge=0)] = Field(
        0, description="Replicas that must have an event before it counts as shipped; 0: the brokers' default."
    )
    retention_days: float = Field(30.0, ge=0, description="How long events stay in Kafka; 0: for ever.")
    tls: bool = Field(False, description="Speak TLS; certificates are verified.")
    ca_file: Path | None = Field(None, description="PEM file of the authorities to trust; the system's by default.")
    cert_file: Path | None = Field(None, description="PEM file of our own certificate, where brokers ask for one.")
    key_file: Path | None = Field(None, description="PEM file of its key.")
    mechanism: Literal["", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] = Field(
        "", description="SASL mechanism by which we say who we are."
    )
    username: str = Field("", description="Name for PLAIN and SCRAM.")
    password_file: Path | None = Field(None, description="File of the password; or set RLHF_KAFKA_PASSWORD.")
    token_file: Path | None = Field(None, description="File of the bearer token, read anew for each connection.")


class LogSettings(Section):
    url: str = Field(
        "file:",
        description="'file:' keeps the log in the state folder, 'file:/path' there; 'kafka://host:port,…' ships it.",
    )
    segment_bytes: Positive = Field(64 << 20, description="Size at which the local log begins a new segment.")
    retain_gib: float = Field(
        0.0, ge=0, description="Size of the local log beyond which what everybody has read or Kafka has goes; 0: none."
    )
    retain_days: float = Field(
        0.0, ge=0, description="Age beyond which what everybody has read or Kafka has goes from the local log; 0: none."
    )
    topic_prefix: str = Field("rlhf", description="First part of the Kafka topics' names.")
    kafka: KafkaSettings = KafkaSettings()  # pyright: ignore[reportCallIssue]


class EngineSettings(Section):
    mode: Literal["managed", "external"] = Field("managed", description="Start vLLM here, or connect to one.")
    url: str = Field("", description="Address of an external engine, 'http://127.0.0.1:8001' or 'unix:/path'.")
    model: str = Field("", description="Folder of the base model (config, tokenizer, weights).")
    tuning: Tuning = Field("full", description="What versions hold: all weights, or a LoRA adapter on the base model.")
    device: Device = Field("auto", description="Where the engine computes.")
    dtype: str = Field("auto", description="Weights' type in the engine; auto: float32 on a CPU, the model's on a GPU.")
    max_model_len: Positive = Field(2048, description="Longest prompt and answer together, in tokens.")
    max_num_seqs: Positive = Field(64, description="Answers computed at once.")
    kv_cache_gib: float = Field(1.0, gt=0, description="Memory for the key-value cache on a CPU, GiB.")
    max_lora_rank: Positive = Field(16, description="Largest rank of an adapter.")
    start_timeout_s: float = Field(600.0, gt=0, description="How long a start may take before it counts as failed.")
    threads: int = Field(0, ge=0, description="CPU threads of the engine; 0: vLLM's own choice.")


class LimitSettings(Section):
    max_body_bytes: Positive = Field(1 << 20, description="Largest request body.")
    max_answers: Positive = Field(16, description="Largest n of one request.")
    max_concurrent: Positive = Field(512, description="Chat requests in progress at once; beyond that 429.")
    max_tokens: Positive = Field(1024, description="Largest, and default, token limit of an answer.")


class SwapSettings(Section):
    pause_timeout_s: float = Field(30.0, gt=0, description="How long the engine may take to pause before giving up.")
    probe_tolerance: float = Field(0.02, gt=0, description="Largest mean |Δlog-prob| on the probe, nats a token.")
    poll_s: float = Field(0.25, gt=0, description="How often the registry is asked for a new live version.")


class ServiceSettings(BaseSettings):
    """What the three services have in common."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", env_nested_delimiter="__")

    state_dir: Path = Field(description="Folder that holds the log, the versions, the checkpoints and the secrets.")
    host: str = Field("127.0.0.1", description="Address to listen on.")
    ready_file: Path | None = Field(None, description="Written, as JSON with the real ports, once the ports are open.")
    die_with_parent: bool = Field(False, description="End when the process that started this one ends (Linux).")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least severe line shown.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment wins over the file, whose content arrives as the constructor's arguments."""
        return env_settings, init_settings


class ChatSettings(ServiceSettings):
    """Settings of services/chat."""

    model_config = SettingsConfigDict(env_prefix="RLHF_CHAT__")

    http_port: Port = Field(8000, description="OpenAI-compatible HTTP; 0 lets the system choose.")
    grpc_port: Port = Field(8001, description="gRPC; 0 lets the system choose.")
    log: LogSettings = LogSettings()  # pyright: ignore[reportCallIssue]
    engine: EngineSettings = EngineSettings()  # pyright: ignore[reportCallIssue]
    limits: LimitSettings = LimitSettings()  # pyright: ignore[reportCallIssue]
    swap: SwapSettings = SwapSettings()  # pyright: ignore[reportCallIssue]
    objectives: Objectives = Field(("helpful",), description="What a vote may name; the trainer's `reward.objectives`.")


class RewardSettings(ServiceSettings):
    """Settings of services/reward."""

    model_config = SettingsConfigDict(env_prefix="RLHF_REWARD__")

    grpc_port: Port = Field(8002, description="gRPC; 0 lets the system choose.")
    metrics_port: Port = Field(8003, description="Prometheus metrics over HTTP; 0 lets the system choose.")
    model: str = Field(description="Folder of the base model that the reward model's trunk starts from.")
    device: Device = Field("auto", description="Where scores are computed.")
    threads: Positive = Field(1, description="CPU threads.")
    max_batch_tokens: Positive = Field(16384, description="Tokens, padding included, of one forward pass.")
    max_wait_ms: float = Field(2.0, ge=0, description="How long a request waits for others to share its batch.")
    max_queue: Positive = Field(4096, description="Items waiting at once; beyond that RESOURCE_EXHAUSTED.")
    poll_s: float = Field(0.25, gt=0, description="How often the registry is asked for a new reward version.")


class RewardTraining(Section):
    tuning: Tuning = Field("full", description="Train the whole trunk, or a LoRA adapter on it.")
    trunk: str = Field(
        "", description="Folder of the model that the trunk begins as, of the same tokenizer; the policy's by default."
    )
    objectives: Objectives = Field(
        ("helpful",), description="What answers are judged by, each with heads of its own; votes may name one."
    )
    heads: Positive = Field(4, description="Ensemble members of each objective, on one trunk.")
    readout: Literal["last", "mean"] = Field(
        "last",
        description="An answer's utility is read at its last token, or is the mean over its tokens: for few votes on a "
        "pretrained model.",
    )
    lr: float = Field(1e-3, gt=0, description="Adam's learning rate.")
    batch: Positive = Field(16, description="Comparisons or thumbs a step.")
    epochs: Positive = Field(2, description="Passes over what an update was given, replay included.")
    cold_epochs: Positive = Field(4, description="Passes of the first update.")
    replay: float = Field(1.0, ge=0, description="Replayed votes for each new one.")
    replay_capacity: Positive = Field(20_000, description="Votes kept for replay.")
    held_out: float = Field(0.05, ge=0, lt=1, description="Share of conversations that no update ever sees.")
    centring: float = Field(0.0, ge=0, description="Weight of the penalty that keeps utilities around 0; .01 is usual.")
    policy_accuracy: float = Field(
        0.5,
        ge=0,
        lt=1,
        description="The policy stays as it is until the reward model orders more than this share of held-out votes "
        "rightly, by the lower end of the 95 % interval; 0 asks for no more than votes that say what is better.",
    )
    pessimism: float = Field(0.0, ge=0, description="Standard deviations taken off a score: mean − k·spread.")
    lora_rank: Positive = Field(8, description="Rank of the adapter.")
    reference_answers: Annotated[int, Field(ge=2)] = Field(
        512,
        description="First answers of the log, none held out, on which scores are normalised to mean 0, deviation 1.",
    )


class PolicyStage(Section):
    algorithm: Algorithm = Field(description="How the policy learns in this stage.")
    updates: Annotated[int, Field(ge=0, description="Updates that the stage lasts; 0: for ever.")] = 0
    lr: Annotated[
        float | None,
        Field(gt=0, description="Learning rate in this stage, value_lr in proportion; without it, that of the table."),
    ] = None


class PolicyTraining(Section):
    algorithm: Algorithm = Field("ppo", description="How the policy learns from its scored answers.")
    schedule: tuple[PolicyStage, ...] = Field(
        (), description="Stages, one after another, instead of one algorithm; the last one goes on."
    )
    lr: float = Field(6e-4, gt=0, description="Adam's learning rate.")
    lr_decay_updates: Annotated[int, Field(ge=0)] = Field(
        0, description="Updates over which the learning rates fall linearly to 0; 0: they stay."
    )
    value_lr: float = Field(6e-4, gt=0, description="Learning rate of the value head.")
    epochs: Positive = Field(4, description="Passes over the rollouts of an update.")
    minibatches: Positive = Field(4, description="Optimiser steps a pass.")
    micro_batch_tokens: Positive = Field(16384, description="Tokens, padding included, of one forward pass.")
    kl_coef: float = Field(0.03, ge=0, description="β of the KL penalty against the reference.")
    kl_in: Literal["reward", "loss"] = Field(
        "reward", description="Where the penalty goes: k1 into the reward, or k2 as a loss."
    )
    kl_target: float = Field(0.0, ge=0, description="Nats an answer that an adaptive β aims at; 0 keeps β fixed.")
    kl_horizon: float = Field(10_000.0, gt=0, description="Answers over which an adaptive β moves by its error.")
    gamma: float = Field(1.0, gt=0, le=1, description="Discount.")
    gae_lambda: float = Field(0.95, ge=0, le=1, description="λ of GAE.")
    clip: float = Field(0.2, gt=0, description="Clip range of the ratio.")
    dual_clip: float | None = Field(None, gt=1, description="Largest ratio that a bad answer's loss grows with.")
    correction: Literal["behaviour", "decoupled", "none"] = Field(
        "behaviour",
        description="Older answers: the ratio is to the policy that wrote them; or decoupled PPO; or as if fresh.",
    )
    max_weight: float = Field(
        2.0, gt=0, description="Largest weight of a token where decoupled, and of an older answer in a KL loss."
    )
    reject_above: float = Field(10.0, gt=0, description="Decoupled: a token whose weight is larger is left out.")
    entropy_coef: float = Field(0.0, ge=0, description="Weight of the entropy bonus.")
    grpo_std: bool = Field(True, description="grpo divides by the deviation of the group's rewards.")
    beta: float = Field(0.1, gt=0, description="β of online-dpo and kto; τ of ipo.")
    dpo_loss: Literal["dpo", "ipo"] = Field("dpo", description="Loss of online-dpo.")
    value_clip: float = Field(0.2, gt=0, description="Clip range of the value.")
    value_coef: float = Field(1.0, ge=0, description="Weight of the value loss.")
    missing_eos_penalty: float = Field(1.0, ge=0, description="Taken off an answer that did not end by itself.")
    reward_clip: float = Field(5.0, gt=0, description="Scores are clipped to ± this.")
    whiten_rewards: Literal["off", "scale", "shift"] = Field(
        "off", description="Rewards to deviation 1: 'scale' keeps their mean, 'shift' takes it away."
    )
    ptx_coef: float = Field(0.0, ge=0, description="Weight of the loss on demonstrations that is mixed in (PTX).")
    demonstrations: Path | None = Field(
        None,
        description="File of the demonstrations, JSONL as for `rlhf-online sft`; needed where ptx_coef is above 0.",
    )
    ema: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="What publishes is an average of the weights that keeps this much of itself an update; 0: none.",
    )
    max_grad_norm: float = Field(1.0, gt=0, description="Gradient norm limit.")
    max_step_kl: float = Field(1.0, gt=0, description="KL of one update (nats an answer) beyond which it is undone.")
    lora_rank: Positive = Field(16, description="Rank of the adapter where tuning is lora.")


class RolloutSettings(Section):
    per_cycle: Positive = Field(512, description="Answers of one policy update.")
    answers_per_prompt: Positive = Field(4, description="Fresh answers sampled a prompt.")
    max_tokens: Positive = Field(64, description="Token limit of a fresh answer.")
    max_staleness: Annotated[int, Field(ge=0)] = Field(4, description="Versions behind beyond which it is dropped.")
    prompts: Positive = Field(4096, description="Recent logged prompts that fresh answers are sampled for.")
    curriculum: Literal["uniform", "spread"] = Field(
        "uniform", description="Which of them: all alike, or those more often whose answers' scores differ."
    )


class LeaseSettings(Section):
    kind: Literal["file", "kubernetes"] = Field(
        "file", description="What keeps a second trainer out: a lock in the state folder, or a Lease object of the API."
    )
    name: str = Field(
        "rlhf-trainer",
        pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$",
        description="Name of the Lease object, in the pod's namespace; one for each state_dir.",
    )
    duration_s: float = Field(
        15.0, gt=0, description="Seconds after which a Lease object that is not renewed counts as free."
    )


class TrainerSettings(ServiceSettings):
    """Settings of services/trainer."""

    model_config = SettingsConfigDict(env_prefix="RLHF_TRAINER__")

    seed: int = Field(0, description="Seed of every random choice.")
    chat_url: str = Field(description="Address of the chat service, 'http://127.0.0.1:8000': fresh rollouts.")
    reward_address: str = Field(description="gRPC address of the reward service, '127.0.0.1:8002'.")
    model: str = Field(description="Folder of the base model.")
    tuning: Tuning = Field("full", description="Train all weights of the policy, or a LoRA adapter.")
    device: Device = Field("auto", description="Where training computes.")
    threads: Positive = Field(1, description="CPU threads.")
    metrics_port: Port = Field(8004, description="Prometheus metrics over HTTP; 0 lets the system choose.")
    min_votes: Positive = Field(32, description="New votes that begin a cycle.")
    cold_votes: Positive = Field(200, description="Votes before the first reward model, and so the first cycle.")
    policy_updates: Positive = Field(
        1, description="Policy updates, each a version of its own, for each update of the reward model."
    )
    join_window_s: float = Field(86_400.0, gt=0, description="How long feedback waits for its answer, and back.")
    keep_checkpoints: Positive = Field(3, description="Checkpoints kept.")
    keep_versions: Positive = Field(
        10,
        description="Old versions of each kind that keep their weights, to go back to; of older ones the record stays.",
    )
    lease: LeaseSettings = LeaseSettings()  # pyright: ignore[reportCallIssue]
    log: LogSettings = LogSettings()  # pyright: ignore[reportCallIssue]
    reward: RewardTraining = RewardTraining()  # pyright: ignore[reportCallIssue]
    policy: PolicyTraining = PolicyTraining()  # pyright: ignore[reportCallIssue]
    rollout: RolloutSettings = RolloutSettings()  # pyright: ignore[reportCallIssue]
    gate: GateSettings = GateSettings()


class SftSettings(Section):
    """Settings of supervised fine-tuning."""

    model: Path = Field(description="Folder of the model; without weights in it, training begins with random ones.")
    data: Path | None = Field(None, description="JSONL file of conversations in OpenAI's format for fine-tuning.")
    log: str = Field(
        "", description="Learn people's corrections too: a state folder, 'file:/path' of a log, 'kafka://host:port,…'."
    )
    log_config: Path | None = Field(None, description="Settings (TOML) of a service; its table log says the rest.")
    out: Path = Field(description="New folder for the fine-tuned model: complete, as `rlhf-online up` takes it.")
    epochs: float = Field(3.0, gt=0, description="Passes over the demonstrations.")
    steps: Annotated[int, Field(ge=0)] = Field(0, description="Optimiser steps; 0: as many as the epochs take.")
    batch: Positive = Field(32, description="Demonstrations a step.")
    lr: float = Field(2e-5, gt=0, description="AdamW's highest learning rate.")
    seed: int = Field(0, description="Seed of the order, and of random weights.")
    held_out: float = Field(
        0.05, ge=0, lt=1, description="Share of logged conversations left out, the trainer's reward.held_out."
    )
    device: Device = Field("auto", description="Where training computes.")
    threads: int = Field(0, ge=0, description="CPU threads; 0: torch's own choice.")
    child: bool = Field(False, description="Tell progress as JSON lines, and end with the process that started it.")


class StandaloneSettings(ServiceSettings):
    """Settings of services/standalone: the three services on one machine, with the local log by default."""

    model_config = SettingsConfigDict(env_prefix="RLHF_UP__")

    model: str = Field(description="Folder of the base model.")
    tuning: Tuning = Field("lora", description="Train a LoRA adapter, or all weights.")
    http_port: Port = Field(8000, description="OpenAI-compatible HTTP; 0 lets the system choose.")
    grpc_port: Port = Field(8001, description="gRPC; 0 lets the system choose.")
    seed: int = Field(0, description="Seed of every random choice of the trainer.")
    device: Device = Field("auto", description="Where everything computes.")
    trainer_threads: Positive = Field(1, description="CPU threads of the trainer.")
    min_votes: Positive = Field(32, description="New votes that begin a training cycle.")
    cold_votes: Positive = Field(200, description="Votes before the first training cycle.")
    policy_updates: Positive = Field(1, description="Policy updates for each update of the reward model.")
    keep_versions: Positive = Field(10, description="Old versions of each kind that keep their weights, to go back to.")
    log: LogSettings = LogSettings()  # pyright: ignore[reportCallIssue]
    engine: EngineSettings = EngineSettings()  # pyright: ignore[reportCallIssue]
    limits: LimitSettings = LimitSettings()  # pyright: ignore[reportCallIssue]
    swap: SwapSettings = SwapSettings()  # pyright: ignore[reportCallIssue]
    reward: RewardTraining = RewardTraining()  # pyright: ignore[reportCallIssue]
    policy: PolicyTraining = PolicyTraining()  # pyright: ignore[reportCallIssue]
    rollout: RolloutSettings = RolloutSettings()  # pyright: ignore[reportCallIssue]
    gate: GateSettings = GateSettings()


Settings = TypeVar("Settings", bound=ServiceSettings)


def load(kind: type[Settings], path: Path | None) -> Settings:
    """The settings in the TOML file at `path` (None: environment and defaults alone).

    Raises ConfigError.
    """
    with _explained(path):
        values = {} if path is None else TomlConfigSettingsSource(kind, _existing(path))()
        return kind(**values)


def load_log(path: Path | None, given: dict[str, Any]) -> LogSettings:
    """The table `log` of any service's file (None: defaults), in which `given` wins; its "kafka" is merged.

    Raises ConfigError.
    """
    with _explained(path):
        table = tomllib.loads(_existing(path).read_text()).get("log", {}) if path is not None else {}
        kafka = table.get("kafka", {}) | given.get("kafka", {})
        return LogSettings(**{**table, **given, "kafka": kafka})


def dump(settings: ServiceSettings, path: Path) -> None:
    """Write `settings` as a file that `load` reads back."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(tomli_w.dumps(settings.model_dump(mode="json", exclude_none=True)))


@contextmanager
def _explained(path: Path | None) -> Iterator[None]:
    """Turns what pydantic and the TOML parser raise into ConfigErrors that name field and file."""
    try:
        yield
    except ValidationError as error:
        where = f"{path}: " if path else ""
        lines = [f"{where}{_explain(dict(item))}" for item in error.errors()]
        raise ConfigError("\n".join(lines)) from error
    except ConfigError:
        raise
    except (SettingsError, ValueError) as error:
        raise ConfigError(f"{path or 'environment'}: {error}") from error


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise ConfigError(f"no settings file at {path}: give the path of a TOML file with --config")
    return path


def _explain(error: dict) -> str:
    field = ".".join(str(part) for part in error["loc"])
    match error["type"]:
        case "extra_forbidden":
            return f"{field} is no setting: check its spelling (rlhf_online/config.py lists them all)"
        case "missing":
            return f"{field} is missing and has no default"
        case _:
            return f"{field}: {error['msg']} (got {error['input']!r})"
