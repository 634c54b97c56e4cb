"""Which of vLLM's flags operators may hand on to the engine."""

import itertools
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from rlhf_online.config import EngineSettings
from rlhf_online.config.engine_args import FIXED, OPENS, OURS, RUNS, checked
from rlhf_online.engine.child import command


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--kv-cache-dtype", "fp8"],
        ["--no-enable-prefix-caching", "--seed", "-1", "--long-prefill-token-threshold=2048"],
        ["--speculative-config", '{"method": "ngram", "num_speculative_tokens": 3}'],
        ["--compilation-config.mode", "3"],
        ["--enable_chunked_prefill"],
    ],
)
def test_what_is_vllms_business_is_handed_on(words: list[str]) -> None:
    assert EngineSettings(extra_args=tuple(words)).extra_args == tuple(words)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("--max-num-seqs", "set engine.max_num_seqs instead"),
        ("--max_num_seqs=9", "set engine.max_num_seqs instead"),
        ("--device-memory-utilization", "set engine.gpu_memory_utilization instead"),
        ("--logging-config.pylogging_config_file=/tmp/log.json", "would open the engine"),
        ("--no-enable-lora", "set engine.tuning instead"),
        ("--host", "would open the engine"),
        ("--port=9", "would open the engine"),
        ("--kv-transfer-config.kv_port", "would open the engine"),
        ("--config=/tmp/all.yaml", "would open the engine"),
        ("--trust_remote_code", "would run code"),
        ("--trust-remote", "could be short for --trust-remote-code"),
        ("--no-trust-remote-code", "would run code"),
        ("--structured-outputs-config.reasoning_parser_plugin", "would run code"),
        ("--logprobs-mode", "the product needs it"),
        ("--data-parallel-size=2", "tells what the first one says of them"),
        ("-tp", "expected a flag of vLLM's in full"),
        ("--", "expected a flag of vLLM's in full"),
        ("--Host", "expected a flag of vLLM's in full"),
    ],
)
def test_what_would_undo_the_products_own_or_open_the_engine_is_refused_by_name(word: str, said: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(said)) as refused:
        EngineSettings.model_validate({"extra_args": ["--seed", "3", word]})
    assert refused.value.errors()[0]["loc"] == ("extra_args",) and word[:6] in str(refused.value)


def test_an_engine_of_several_cores_is_refused_by_name_with_the_reason() -> None:
    with pytest.raises(ValidationError, match="data_parallel_size is no setting: vLLM loads weights into all engine"):
        EngineSettings.model_validate({"data_parallel_size": 2})


def test_vllm_still_tells_of_the_first_core_alone() -> None:
    """What that refusal rests on; where this changes, data parallel engines can be had."""
    spec = find_spec("vllm")
    assert spec is not None and spec.origin is not None
    source = (Path(spec.origin).parent / "v1" / "engine" / "core_client.py").read_text()
    balanced = source[source.index("class DPLBAsyncMPClient") :]
    assert "return (await self.call_utility_all_async(method, *args))[0]" in balanced
    told = source[source.rindex("async def collective_rpc_async") :]
    assert "return await self.call_utility_async(" in told[:400]


@pytest.mark.parametrize("tuning", ["full", "lora"])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_nothing_that_the_product_sets_can_be_set_twice(device: str, tuning: str) -> None:
    most: dict[str, Any] = {
        "tuning": tuning, "tool_call_parser": "hermes", "reasoning_parser": "qwen3", "tensor_parallel_size": 2,
        "chat_template_kwargs": {"a": 1}, "model": "m",
    }  # fmt: skip
    words = command(EngineSettings.model_validate(most), device, Path("s"), dummy_weights=True)
    for flag in [word for word in words if word.startswith("--") and word != "--enforce-eager"]:
        with pytest.raises(ValueError, match=flag):
            checked([flag])


def test_a_flag_is_refused_for_one_reason_and_each_setting_that_is_named_is_one() -> None:
    sets = [{*OURS}, {*FIXED}, {*OPENS}, {*RUNS}]
    assert not any(one & other for one, other in itertools.combinations(sets, 2))
    assert {name.removeprefix("engine.") for name in OURS.values()} <= EngineSettings.model_fields.keys()
