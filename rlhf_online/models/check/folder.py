"""What files, headers and configuration alone say of a model folder: without torch, within milliseconds.

The parts that start the engine and the services look here first; `contents` knows more, and needs transformers.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rlhf_online.models.check import Finding, vllm_source
from rlhf_online.models.check.weights import inspect_weights

RESCALING = {"logit_scale": 1.0, "logits_scaling": 1.0, "final_logit_softcapping": None}
"""Settings with which a model does more to its logits than multiply by the output embedding; the values that do not."""
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")
"""Settings that say how many experts a layer has."""
TEMPLATE_FILE = "chat_template.jinja"
NO_TEMPLATE = Finding(
    "refuse",
    "chat template",
    "has no chat template, without which no conversation can be put to it",
    f"put one into {TEMPLATE_FILE} in that folder (Jinja, as transformers and vLLM read it)",
)


def inspect_folder(folder: Path, *, tuning: str, served: bool = True, cpu: bool | None = None) -> list[Finding]:
    """The findings, the weightiest first. `served`: vLLM is to serve it, not only transformers to train it.

    `cpu`: the engine computes on one; None: as the installed vLLM does.
    """
    return list(_inspect(folder, tuning, served, vllm_source.computes_on_cpu() if cpu is None else cpu))


def context(config: dict[str, Any]) -> int:
    """The most tokens of prompt and answer that an engine takes by the configuration; 0 where that does not say it."""
    length = next((config[n] for n in ("max_position_embeddings", "n_positions") if isinstance(config.get(n), int)), 0)
    scaling = config.get("rope_parameters") or config.get("rope_scaling") or {}
    factor, original = scaling.get("factor"), scaling.get("original_max_position_embeddings")
    if not isinstance(factor, int | float):
        return length
    return max(length, round(factor * (original if isinstance(original, int) else length)))


def read_config(path: Path) -> dict[str, Any]:
    """A JSON object. Raises ValueError, OSError."""
    values = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(values, dict):
        raise ValueError("it is no JSON object")
    return values


def _inspect(folder: Path, tuning: str, served: bool, cpu: bool) -> Iterator[Finding]:
    if not folder.is_dir():
        yield _refuse("folder", "is no folder", "give that of a model (config.json, tokenizer, *.safetensors)")
        return
    if (folder / "adapter_config.json").is_file():
        yield _refuse(
            "folder",
            "holds a LoRA adapter (adapter_config.json)",
            "give the folder of its base model, or merge the two with peft's merge_and_unload and save that",
        )
        return
    read: dict[str, dict[str, Any]] = {}
    for name in ("config.json", "tokenizer_config.json"):
        if not (folder / name).is_file():
            yield _refuse("folder", f"holds no {name}", "give the folder of a Hugging Face model, or fetch it again")
            return
        try:
            read[name] = read_config(folder / name)
        except (OSError, ValueError) as error:
            yield _refuse("folder", f"holds a {name} that cannot be read ({error})", "fetch the model again")
            return
    config = read["config.json"]
    yield from _architecture(config, tuning, served, cpu)
    yield from inspect_weights(folder, config, needed=tuning == "lora" and served)
    if not read["tokenizer_config.json"].get("chat_template") and not (folder / TEMPLATE_FILE).is_file():
        yield NO_TEMPLATE


def _architecture(config: dict[str, Any], tuning: str, served: bool, cpu: bool) -> Iterator[Finding]:
    names = config.get("architectures")
    if not isinstance(names, list) or not names or not isinstance(names[0], str):
        yield _refuse("architecture", "names no architectures in config.json", "add that of a causal language model")
        return
    name = names[0]
    if not name.endswith(("ForCausalLM", "LMHeadModel")):
        yield _refuse(
            "architecture",
            f"is a {name}, which is no causal language model of text",
            "take one whose architecture ends with ForCausalLM",
        )
        return
    for setting, plain in RESCALING.items():
        if config.get(setting) not in (None, plain):
            yield _refuse(
                "architecture",
                f"rescales its logits ({setting} = {config[setting]} in config.json), which training does not do",
                "take another model",
            )
    if served:
        yield from _engine(name, config, tuning, cpu)


def _engine(name: str, config: dict[str, Any], tuning: str, cpu: bool) -> Iterator[Finding]:
    """What vLLM cannot serve."""
    if vllm_source.serves(name) is False:
        yield Finding(
            "warn",
            "architecture",
            f"is a {name}, which the installed vLLM does not list",
            "the engine tries to serve it through transformers, and says so if it cannot",
        )
    if tuning == "lora" and vllm_source.serves_adapters(name) is False:
        yield _refuse(
            "LoRA", f"is a {name}, for which vLLM serves no adapters", "train all weights, with --tuning full"
        )
    # There vLLM 0.32 ends at the first request beside adapters, and is nats off after a reload of all weights.
    if cpu and any(config.get(setting) for setting in EXPERTS):
        yield _refuse(
            "architecture",
            "is a mixture of experts, whose learned versions vLLM does not serve on a CPU",
            "take another model, or a GPU",
        )
    size = _head_size(config)
    if cpu and size and size not in vllm_source.CPU_HEAD_SIZES:
        sizes = ", ".join(map(str, vllm_source.CPU_HEAD_SIZES))
        yield _refuse(
            "architecture",
            f"has attention heads of {size}, and vLLM on a CPU computes those of {sizes}",
            "take another model, or a GPU",
        )


def _head_size(config: dict[str, Any]) -> int:
    """0 where it cannot be told: heads of several sizes, or settings of other names."""
    if config.get("kv_lora_rank"):
        return 0
    width, heads = (
        next((config[name] for name in names if isinstance(config.get(name), int)), 0)
        for names in (("hidden_size", "n_embd"), ("num_attention_heads", "n_head"))
    )
    own = config.get("head_dim")
    return own if isinstance(own, int) else width // heads if heads else 0


def _refuse(about: str, what: str, todo: str) -> Finding:
    return Finding("refuse", about, what, todo)
