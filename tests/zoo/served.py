"""What vLLM makes of each model of the zoo, all of them in one process: `make zoo`, ARGS="Mixtral GPT-2" for some.

The engine is started as the product starts it (its flags, its worker's `load`), but without a server: seconds a model
instead of minutes. What it says of an answer's tokens is compared with what transformers says, before and after weights
that were learned: a full version by a reload from dummy weights, an adapter by its folder. Prints a row a model, and
ends with exit code 1 if one differs from what the zoo says.
"""

import gc
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "HF_HUB_OFFLINE": "1", "VLLM_LOGGING_LEVEL": "ERROR"}

import torch
from vllm import LLM, SamplingParams
from vllm.lora.request import LoRARequest

from rlhf_online.models.policy import Policy
from rlhf_online.models.trunk import Lora
from rlhf_online.versions import open_registry
from rlhf_online.versions.genesis import genesis
from tests.zoo.models import ZOO, Animal, Tuning, copied

PROMPT = (2, 5, 12, 3, 2, 6, 9, 10, 11)
EXACT = 1e-3
"""Nats that a token's log-probability may differ by."""
TAUGHT = 0.05
"""What is added to each weight, times a normal deviate."""


def main() -> int:
    """Returns the exit code."""
    wanted, failed = sys.argv[1:], 0
    print("| model folder | tuning | first version | learned version |\n| --- | --- | --- | --- |", flush=True)
    for animal in ZOO:
        for tuning in ("lora", "full"):
            if getattr(animal, tuning) or (wanted and not any(word in f"{animal.name}, {tuning}" for word in wanted)):
                continue
            try:
                first, learned = served(animal, tuning)
            except Exception as error:  # whatever vLLM raises is the result
                print(
                    f"| {animal.name} | {tuning} | {type(error).__name__}: {str(error).splitlines()[:1]} | |",
                    flush=True,
                )
                failed += 1
                continue
            failed += max(first, learned) > EXACT
            print(f"| {animal.name} | {tuning} | {first:.1e} | {learned:.1e} |", flush=True)
    return int(failed > 0)


def served(animal: Animal, tuning: Tuning) -> tuple[float, float]:
    """The largest differences to transformers in nats: of the first version, and of the learned one."""
    with tempfile.TemporaryDirectory() as root:
        folder, learned = copied(animal, Path(root) / "model"), Path(root) / "learned"
        policy = Policy.load(folder, tuning=tuning, lora=Lora(4))
        engine = LLM(
            model=str(folder), dtype="float32", max_model_len=128, max_num_seqs=4, enforce_eager=True,
            kv_cache_memory_bytes=1 << 26, config_format="hf", tokenizer_mode="hf", logprobs_mode="processed_logprobs",
            load_format="safetensors" if tuning == "lora" else "dummy", disable_log_stats=True,
            worker_extension_cls="rlhf_online.engine.worker.Probe",
            **({"enable_lora": True, "max_lora_rank": 8} if tuning == "lora" else {}),
        )  # fmt: skip
        try:
            if tuning == "full":
                registry = open_registry(Path(root) / "versions")
                _load(engine, registry.path(genesis(registry, folder, tuning="full")))
            first = difference(engine, policy, None)
            generator = torch.Generator().manual_seed(0)
            with torch.no_grad():
                for parameter in policy.parameters().values():
                    parameter += TAUGHT * torch.randn(parameter.shape, generator=generator)
            policy.write_version(learned)
            if tuning == "full":
                _load(engine, learned)
                return first, difference(engine, policy, None)
            return first, difference(engine, policy, LoRARequest("learned", 1, str(learned)))
        finally:
            engine.llm_engine.engine_core.shutdown()
            del engine
            gc.collect()


def _load(engine: LLM, folder: Path) -> None:
    engine.collective_rpc("load", kwargs={"weights_path": str(folder)})
    engine.reset_prefix_cache()


def difference(engine: LLM, policy: Policy, adapter: LoRARequest | None) -> float:
    sampling = SamplingParams(max_tokens=24, temperature=1.0, logprobs=0, ignore_eos=True, seed=0)
    prompt: Any = {"prompt_token_ids": list(PROMPT)}
    answer = engine.generate([prompt], sampling, lora_request=adapter, use_tqdm=False)[0].outputs[0]
    assert answer.logprobs is not None, "they were asked for"
    told = [entry[token].logprob for token, entry in zip(answer.token_ids, list[Any](answer.logprobs), strict=True)]
    expected = policy.logprobs([(PROMPT, tuple(answer.token_ids))])[0]
    return max(abs(one - other) for one, other in zip(told, expected, strict=True))


if __name__ == "__main__":
    began = time.monotonic()
    code = main()
    print(f"{time.monotonic() - began:.0f} s")
    sys.exit(code)
