"""What is read from the source of the vLLM that is installed."""

import importlib.util
from pathlib import Path

import pytest

from rlhf_online.models.check import vllm_source


@pytest.mark.parametrize(
    ("architecture", "served", "adapters"),
    [
        ("LlamaForCausalLM", True, True),
        ("MistralForCausalLM", True, True),  # its class is a subclass of Llama's, in another file
        ("SmolLM3ForCausalLM", True, True),  # computed by transformers' class
        ("GPT2LMHeadModel", True, False),
        ("CodeGenForCausalLM", False, None),
    ],
)
def test_what_is_served_and_whether_with_adapters(architecture: str, served: bool, adapters: bool | None) -> None:
    assert (vllm_source.serves(architecture), vllm_source.serves_adapters(architecture)) == (served, adapters)


def test_without_vllm_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_source, "_models", dict)
    assert (vllm_source.serves("LlamaForCausalLM"), vllm_source.serves_adapters("LlamaForCausalLM")) == (None, None)


def test_the_head_sizes_are_vllms_own() -> None:
    spec = importlib.util.find_spec("vllm")
    assert spec is not None and spec.origin is not None
    source = Path(spec.origin).parent / "v1" / "attention" / "backends" / "cpu_attn.py"
    assert str(list(vllm_source.CPU_HEAD_SIZES)) in source.read_text()
