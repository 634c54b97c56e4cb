"""Settings: one frozen model a service, read from a TOML file and the environment.

`base` is what they share and how they are read; the other modules hold the tables of a service each. The trainer's
stand in `rlhf_online.training.settings`, those of the three services together in `services.standalone.settings`.
"""

from rlhf_online.config.base import Device, Objectives, Port, Positive, Section, ServiceSettings, Tuning, dump, load
from rlhf_online.config.chat import ChatSettings, EngineSettings, LimitSettings, SwapSettings
from rlhf_online.config.log import KafkaSettings, LogSettings, load_log
from rlhf_online.config.reward import RewardSettings
from rlhf_online.config.sft import SftSettings

__all__ = [
    "ChatSettings",
    "Device",
    "EngineSettings",
    "KafkaSettings",
    "LimitSettings",
    "LogSettings",
    "Objectives",
    "Port",
    "Positive",
    "RewardSettings",
    "Section",
    "ServiceSettings",
    "SftSettings",
    "SwapSettings",
    "Tuning",
    "dump",
    "load",
    "load_log",
]
