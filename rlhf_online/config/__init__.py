"""Settings: one frozen model a service, read from a TOML file and the environment.

`base` is what they share, `files` how they are read, `explain` what is said of mistakes; the other modules hold the
tables of a service each. The trainer's stand in `rlhf_online.training.settings`, those of the three services together
in `services.standalone.settings`.
"""

from rlhf_online.config.base import (
    Computed,
    Device,
    Dtype,
    Objectives,
    Only,
    Port,
    Positive,
    ProcessSettings,
    Section,
    ServiceSettings,
    Sharding,
    Tuning,
    VersionsSettings,
)
from rlhf_online.config.chat import ChatSettings, EngineSettings, SwapSettings
from rlhf_online.config.engine import EngineServerSettings
from rlhf_online.config.files import dump, load
from rlhf_online.config.grpc import GrpcSettings
from rlhf_online.config.keystore import KeystoreSettings, load_keystore
from rlhf_online.config.limits import LimitSettings, PersonQuota, Quota
from rlhf_online.config.log import KafkaSettings, LogAddress, LogSettings, load_log
from rlhf_online.config.reward import RewardSettings
from rlhf_online.config.sft import SftSettings
from rlhf_online.config.tls import TlsSettings
from rlhf_online.config.tracing import ChatTracingSettings, TracingSettings
from rlhf_online.config.versions import load_versions

__all__ = [
    "ChatSettings",
    "ChatTracingSettings",
    "Computed",
    "Device",
    "Dtype",
    "EngineServerSettings",
    "EngineSettings",
    "GrpcSettings",
    "KafkaSettings",
    "KeystoreSettings",
    "LimitSettings",
    "LogAddress",
    "LogSettings",
    "Objectives",
    "Only",
    "PersonQuota",
    "Port",
    "Positive",
    "ProcessSettings",
    "Quota",
    "RewardSettings",
    "Section",
    "ServiceSettings",
    "SftSettings",
    "Sharding",
    "SwapSettings",
    "TlsSettings",
    "TracingSettings",
    "Tuning",
    "VersionsSettings",
    "dump",
    "load",
    "load_keystore",
    "load_log",
    "load_versions",
]
