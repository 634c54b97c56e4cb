"""Flags of vLLM's own that operators hand on to the engine, `engine.extra_args`: which are refused, and why.

Refused is what the product sets itself, since two who say it differently would not notice each other; what opens the
engine to others, because whoever reaches it may replace its weights; and what runs code, or reads pickles, that came
with a model. The rest is vLLM's business: a flag that it does not know ends its start, and the reason is told.
"""

import re
from collections.abc import Sequence

OURS = {
    **dict.fromkeys(("model", "served-model-name", "tokenizer", "tokenizer-mode", "config-format"), "engine.model"),
    **dict.fromkeys(("revision", "code-revision", "tokenizer-revision", "hf-config-path"), "engine.model"),
    **dict.fromkeys(("load-format", "generation-config", "override-generation-config"), "engine.model"),
    **dict.fromkeys(("skip-tokenizer-init", "chat-template", "convert", "runner"), "engine.model"),
    **dict.fromkeys(("enable-lora", "max-loras", "max-cpu-loras", "lora-modules"), "engine.tuning"),
    "default-mm-loras": "engine.tuning",
    "max-lora-rank": "engine.max_lora_rank",
    "dtype": "engine.dtype",
    "max-model-len": "engine.max_model_len",
    "max-num-seqs": "engine.max_num_seqs",
    **dict.fromkeys(("gpu-memory-utilization", "device-memory-utilization"), "engine.gpu_memory_utilization"),
    "tensor-parallel-size": "engine.tensor_parallel_size",
    "kv-cache-memory-bytes": "engine.kv_cache_gib",
    "tool-call-parser": "engine.tool_call_parser",
    "enable-auto-tool-choice": "engine.tool_call_parser",
    "reasoning-parser": "engine.reasoning_parser",
    "default-chat-template-kwargs": "engine.chat_template_kwargs",
}
"""Flag → the setting that says it."""
FIXED = (
    *("logprobs-mode", "scheduling-policy", "worker-extension-cls", "worker-cls", "scheduler-cls", "api-server-count"),
    *("return-tokens-as-token-ids", "disable-uvicorn-access-log", "uvicorn-log-level", "response-role", "tokens-only"),
    *("pipeline-parallel-size", "enable-sleep-mode"),
)
"""What the product needs to be as it is: the log-probabilities that answers are learned from, probes, swaps."""
OPENS = (
    *("uds", "host", "port", "grpc", "grpc-port", "headless", "api-key", "root-path", "config", "log-config-file"),
    *("allow-credentials", "allowed-origins", "allowed-methods", "allowed-headers", "enable-scale-out"),
    *("allowed-local-media-path", "allowed-media-domains", "ssl-keyfile", "ssl-certfile", "ssl-ca-certs"),
    *("nnodes", "node-rank", "master-addr", "master-port", "distributed-executor-backend", "data-parallel-address"),
    *("data-parallel-rank", "data-parallel-start-rank", "data-parallel-size-local", "data-parallel-rpc-port"),
    *("data-parallel-backend", "data-parallel-hybrid-lb", "data-parallel-external-lb", "tool-server"),
    *("data-parallel-multi-port-external-lb", "data-parallel-supervisor-port", "weight-transfer-config"),
    *("kv-transfer-config", "kv-events-config", "ec-transfer-config", "ec-manager-config", "otlp-traces-endpoint"),
    *("enable-elastic-ep", "fault-tolerance-config", "enable-fault-tolerance", "logging-config"),
)
"""Ports, sockets, files of this machine, and weights from elsewhere."""
ONE_CORE = (
    "vLLM loads weights into all engine cores behind one server, and tells what the first one says of them: a probe "
    "would vouch for weights that it has not seen. More engines are more pods (chat.replicas of the chart)"
)
"""Why an engine is not data parallel (vLLM 0.32: DPLBAsyncMPClient.call_utility_async)."""
RUNS = (
    *("trust-remote-code", "trust-request-chat-template", "trust-request-mm-kwargs", "tool-parser-plugin"),
    *("reasoning-parser-plugin", "io-processor-plugin", "logits-processors", "model-class-overrides"),
    *("model-loader-extra-config", "structured-outputs-config", "enable-prompt-embeds", "enable-mm-embeds"),
    *("additional-config", "pt-load-map-location", "hf-overrides", "middleware", "hf-token"),
)
"""Code, and pickles, that the model's files or a request bring, or an object that may name such."""
_FLAG = re.compile(r"--[a-z][a-z0-9-]*")
LOW_PRIORITY = 10
"""Of requests that are nobody's. People's have 0, and a vLLM that schedules by priority serves smaller numbers first.
One that does not ignores the number (seen in 0.32, whose documentation says that it refuses it)."""


def checked(words: Sequence[str]) -> tuple[str, ...]:
    """The words, if the engine may be started with them. Raises ValueError naming the first that is refused.

    vLLM takes a flag with dashes or underscores, with its value after "=", one of an object behind a dot, abbreviated
    as long as that is unique, and its contrary after "no-".
    """
    for word in words:
        if not word.startswith("-") or re.fullmatch(r"-\d[\d.e-]*", word):
            continue
        flag = re.split(r"[=.+]", word.replace("_", "-"), maxsplit=1)[0]
        if not _FLAG.fullmatch(flag):
            raise ValueError(f"{word[:80]!r}: expected a flag of vLLM's in full, '--long-prefill-token-threshold'")
        if why := _refused(flag.removeprefix("--").removeprefix("no-")):
            raise ValueError(f"{flag}: {why}")
    return tuple(words)


def _refused(name: str) -> str:
    """Why not; "" if it may be handed on. What could be short for a refused flag is refused with it."""
    reasons = {
        **dict.fromkeys(FIXED, "the product needs it as it starts the engine"),
        **dict.fromkeys(OPENS, "it would open the engine, whose weights whoever reaches it may replace"),
        **dict.fromkeys(RUNS, "it would run code, or read pickles, that came with a model or a request"),
        "data-parallel-size": ONE_CORE,
        **{flag: f"set {setting} instead" for flag, setting in OURS.items()},
    }
    if name in reasons:
        return reasons[name]
    if longer := next((flag for flag in reasons if flag.startswith(name)), ""):
        return f"write it in full: it could be short for --{longer}"
    return ""
