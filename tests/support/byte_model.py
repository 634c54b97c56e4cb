"""A model folder that can spell anything: a tiny Llama with random weights whose tokens are bytes.

Its marks of thoughts and calls are those of Qwen, which vLLM's parsers `qwen3` and `hermes` read. What it says is
noise, but for what it is made to say.
"""

import json
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from rlhf_online.simulation.tiny_model import write_tiny_model

EOS, CONTEXT = 1, 256
MARKS = ("<think>", "</think>", "<tool_call>", "</tool_call>")
TEMPLATE = (
    "{% for tool in tools or [] %}{{ tool.function.name }};{% endfor %}"
    "{% for message in messages %}{{ message.role }}:{{ message.content or '' }}"
    "{% for call in message.tool_calls or [] %}!{{ call.function.name }}{{ call.function.arguments }}{% endfor %}<end>"
    "{% endfor %}"
    "{% if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}"
)


def write_byte_model(path: Path) -> None:
    """Write the folder, with weights."""
    write_tiny_model(path, weights_seed=None)
    tokens = ["<pad>", "<end>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={token: number for number, token in enumerate(tokens)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<pad>", "<end>"])
    tokenizer.add_tokens([AddedToken(mark, special=False, normalized=False) for mark in MARKS])
    tokenizer.save(str(path / "tokenizer.json"))
    _change(path / "tokenizer_config.json", chat_template=TEMPLATE, eos_token="<end>", model_max_length=CONTEXT)
    for name in ("bos_token", "unk_token", "additional_special_tokens"):
        _change(path / "tokenizer_config.json", **{name: None})
    _change(path / "generation_config.json", bos_token_id=None, eos_token_id=EOS)
    vocabulary = len(tokens) + len(MARKS)
    _change(
        path / "config.json",
        **{"bos_token_id": None, "eos_token_id": EOS, "vocab_size": vocabulary, "max_position_embeddings": CONTEXT},
    )
    _write_weights(path)


def _change(path: Path, **values: object) -> None:
    kept = {name: value for name, value in (json.loads(path.read_text()) | values).items() if value is not None}
    path.write_text(json.dumps(kept))


def _write_weights(path: Path) -> None:
    import torch
    from safetensors.torch import save_file
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(path), dtype=torch.float32)
    save_file(dict(model.state_dict()), path / "model.safetensors", metadata={"format": "pt"})
