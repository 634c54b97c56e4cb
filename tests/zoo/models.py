"""Small model folders of every kind that people bring, each made by a few lines, and what is to become of each.

`ZOO` is the table of what is supported: docs/models.md shows it, `test_zoo` takes each folder through its life, and
`served` has the real engine serve those that are accepted.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    CodeGenConfig,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    LlamaForSequenceClassification,
    MistralConfig,
    MixtralConfig,
    Phi3Config,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
    Qwen3MoeConfig,
)

Tuning = Literal["lora", "full"]
SPECIALS = ("<pad>", "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<unk>")
WORDS = (
    "user",
    "assistant",
    "system",
    "hello",
    "zinc",
    "iron",
    "gold",
    "is",
    "a",
    "metal",
    "yes",
    "no",
    "fig",
    "fruit",
)
VOCABULARY = (*SPECIALS, *WORDS, *(f"w{number}" for number in range(45)))
END_OF_TEXT, END_OF_TURN = 1, 3
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }} {{ message.content }}<|im_end|> {% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant {% endif %}"
)
SIZES: dict[str, Any] = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 128,
    "initializer_range": 0.2,
    "bos_token_id": None,
    "eos_token_id": END_OF_TURN,
    "pad_token_id": 0,
}
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Animal:
    """`lora` and `full` are the words of the refusal, "" where it is served and learns."""

    name: str
    make: Callable[[Path], None]
    lora: str = ""
    full: str = ""
    told: str = ""
    """Words of a warning."""


def write_model(
    folder: Path,
    config: PreTrainedConfig,
    *,
    dtype: torch.dtype = torch.float32,
    shard: str = "1GB",
    eos: str = "<|im_end|>",
    ends: int | list[int] = END_OF_TURN,
    template: str | None = CHATML,
) -> None:
    """A complete folder of the configuration, with random weights. `ends` are those of generation_config.json."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    model.save_pretrained(folder, max_shard_size=shard)
    _write(folder / "generation_config.json", {"eos_token_id": ends})
    write_tokenizer(folder, eos=eos, template=template)


def write_tokenizer(folder: Path, *, eos: str = "<|im_end|>", template: str | None = CHATML, more: int = 0) -> None:
    """Words by white space, one token each, and `more` words that the model does not know."""
    vocabulary = [*VOCABULARY, *(f"more{number}" for number in range(more))]
    special = [
        {"id": index, "content": token, "special": True}
        | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        for index, token in enumerate(SPECIALS)
    ]
    words = {"type": "WordLevel", "vocab": {w: i for i, w in enumerate(vocabulary)}, "unk_token": "<unk>"}
    pieces: dict[str, Any] = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": special}
    pieces |= {"normalizer": None, "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": None}
    decoder = {"type": "WordPiece", "prefix": "##", "cleanup": False}
    _write(folder / "tokenizer.json", {**pieces, "decoder": decoder, "model": words})
    values = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>", "eos_token": eos}
    values |= {"unk_token": "<unk>", "model_max_length": 128, "clean_up_tokenization_spaces": False}
    _write(folder / "tokenizer_config.json", values | ({"chat_template": template} if template else {}))


def llama(**values: Any) -> LlamaConfig:
    chosen: dict[str, Any] = {**SIZES, "tie_word_embeddings": False, **values}
    return LlamaConfig(**chosen)


def plain(folder: Path) -> None:
    write_model(folder, llama())


def of(config: Callable[[], PreTrainedConfig], **how: Any) -> Callable[[Path], None]:
    return lambda folder: write_model(folder, config(), **how)


def changed(change: Callable[[Path], None], make: Callable[[Path], None] = plain) -> Callable[[Path], None]:
    def made(folder: Path) -> None:
        make(folder)
        change(folder)

    return made


def tensors(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Callable[[Path], None]:
    """With the tensors that `change` makes of a folder's."""

    def change_file(folder: Path) -> None:
        save_file(change(load_file(folder / WEIGHTS)), folder / WEIGHTS, metadata={"format": "pt"})

    return change_file


def settings(**values: Any) -> Callable[[Path], None]:
    """With other values in config.json."""
    return lambda folder: _write(folder / "config.json", json.loads((folder / "config.json").read_text()) | values)


def _write(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2))


def _without(names: str) -> Callable[[Path], None]:
    return tensors(lambda found: {name: tensor for name, tensor in found.items() if names not in name})


def _consolidated(folder: Path) -> None:
    """The weights a second time, as Mistral names them."""
    found: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("model*.safetensors")):
        found |= load_file(path)
    renamed = {name.removeprefix("model.").replace("self_attn.", "attention."): t for name, t in found.items()}
    save_file(renamed, folder / "consolidated.safetensors", metadata={"format": "pt"})
    _write(folder / "params.json", {"dim": 64, "n_layers": 2})


def _pickled(folder: Path) -> None:
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()


def _template_file(folder: Path) -> None:
    write_tokenizer(folder, template=None)
    (folder / "chat_template.jinja").write_text(CHATML)


def _shard(folder: Path) -> Path:
    return sorted(folder.glob("model-*.safetensors"))[1]


def _truncate(folder: Path) -> None:
    path = _shard(folder)
    path.write_bytes(path.read_bytes()[:-100])


def _spoil_index(folder: Path) -> None:
    (folder / INDEX).write_text("{")


def _classifier(folder: Path) -> None:
    plain(folder)
    LlamaForSequenceClassification(llama()).save_pretrained(folder)


def _adapter_alone(folder: Path) -> None:
    plain(folder)
    for name in ("config.json", WEIGHTS):
        (folder / name).unlink()
    _write(folder / "adapter_config.json", {"peft_type": "LORA", "r": 8, "base_model_name_or_path": "org/base"})


YARN = {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 64, "rope_theta": 10000.0}
LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64, "rope_theta": 10000.0,
}  # fmt: skip
EXPERTS: dict[str, Any] = {"num_experts_per_tok": 2, "tie_word_embeddings": False}
MOE = "mixture of experts, whose learned versions vLLM does not serve on a CPU"
DIFFERENT_HEAD = "lm_head.weight is not model.embed_tokens.weight"


def _mixtral() -> PreTrainedConfig:
    return MixtralConfig(**SIZES, **EXPERTS, num_local_experts=4, sliding_window=None)


def _qwen3_moe() -> PreTrainedConfig:
    heads: dict[str, Any] = {"head_dim": 32}
    return Qwen3MoeConfig(**SIZES, **EXPERTS, **heads, num_experts=4, moe_intermediate_size=32)


def _gpt2() -> PreTrainedConfig:
    ends: dict[str, Any] = {"bos_token_id": END_OF_TEXT, "eos_token_id": END_OF_TURN}
    return GPT2Config(vocab_size=len(VOCABULARY), n_embd=64, n_layer=2, n_head=2, n_positions=128, **ends)


def _codegen() -> PreTrainedConfig:
    return CodeGenConfig(
        vocab_size=len(VOCABULARY), n_embd=64, n_layer=2, n_head=2, n_positions=128, rotary_dim=8,
        bos_token_id=END_OF_TEXT, eos_token_id=END_OF_TURN, tie_word_embeddings=False,
    )  # fmt: skip


def _both(words: str) -> dict[str, str]:
    return {"lora": words, "full": words}


SHARDED = of(llama, shard="60KB")
TIED = of(lambda: llama(tie_word_embeddings=True))

ZOO = (
    # Architectures
    Animal(name="Llama", make=plain),
    Animal(name="Llama, tied embeddings", make=TIED),
    Animal(name="Qwen2, tied embeddings, biases", make=of(lambda: Qwen2Config(**SIZES, tie_word_embeddings=True))),
    Animal(name="Qwen3, norms of queries and keys", make=of(lambda: Qwen3Config(**SIZES, head_dim=32))),
    Animal(name="Phi-3, layers fused", make=of(lambda: Phi3Config(**SIZES, tie_word_embeddings=False))),
    Animal(name="rope scaling: llama3", make=of(lambda: llama(rope_parameters=LLAMA3))),
    Animal(name="rope scaling: yarn", make=of(lambda: llama(rope_parameters=YARN))),
    Animal(name="sliding window (Mistral)", make=of(lambda: MistralConfig(**SIZES, sliding_window=32))),
    Animal(name="mixture of experts (Mixtral), on a CPU", make=of(_mixtral), **_both(MOE)),
    Animal(name="mixture of experts (Qwen3), on a CPU", make=of(_qwen3_moe), **_both(MOE)),
    Animal(name="GPT-2 (Conv1D)", make=of(_gpt2), lora="vLLM serves no adapters.*--tuning full"),
    Animal(
        name="logits capped (Gemma 2)",
        make=of(lambda: Gemma2Config(**SIZES, head_dim=32)),
        **_both("rescales its logits"),
    ),
    Animal(name="unknown to vLLM (CodeGen)", make=of(_codegen), **_both("vLLM can serve neither")),
    Animal(
        name="attention heads of 16, on a CPU",
        make=of(lambda: llama(num_attention_heads=4)),
        **_both("attention heads of 16"),
    ),
    Animal(name="a classifier", make=_classifier, **_both("no causal language model")),
    Animal(
        name="code of the model's own",
        make=changed(settings(model_type="own", auto_map={"AutoConfig": "own.Config"})),
        **_both("cannot be read by transformers"),
    ),
    # Files of weights
    Animal(name="shards with an index", make=SHARDED),
    Animal(name="bfloat16", make=of(llama, dtype=torch.bfloat16)),
    Animal(name="vocabulary padded to 96", make=of(lambda: llama(vocab_size=96))),
    Animal(
        name="shards, and consolidated.safetensors (Mistral)",
        make=changed(_consolidated, SHARDED),
        told="consolidated.safetensors.*it is ignored",
    ),
    Animal(
        name="one file, and consolidated.safetensors",
        make=changed(_consolidated),
        lora="consolidated.safetensors beside its weights, and no index.*remove it",
        told="consolidated.safetensors.*it is ignored",
    ),
    Animal(
        name="tied, with an equal lm_head.weight",
        make=changed(tensors(lambda t: t | {"lm_head.weight": t["model.embed_tokens.weight"].clone()}), TIED),
    ),
    Animal(
        name="tied, with another lm_head.weight",
        make=changed(settings(tie_word_embeddings=True)),
        **_both(DIFFERENT_HEAD),
    ),
    Animal(
        name="tensors that the model does not have",
        make=changed(tensors(lambda t: t | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(16)})),
        full="inv_freq, which learned versions would lack",
        told="inv_freq, which its kind of model does not have",
    ),
    Animal(name="missing tensors", make=changed(_without("layers.1.mlp.up")), **_both(r"lacks model\.layers\.1\.mlp")),
    Animal(
        name="a merged adapter's prefixes",
        make=changed(tensors(lambda t: {f"base_model.model.{name}": tensor for name, tensor in t.items()})),
        **_both("names 21 of 21 tensors as peft does.*merge_and_unload"),
    ),
    Animal(
        name="names without `model.`",
        make=changed(tensors(lambda t: {name.removeprefix("model."): tensor for name, tensor in t.items()})),
        **_both("names its tensors otherwise.*save_pretrained"),
    ),
    Animal(
        name="tensors of another size",
        make=changed(settings(intermediate_size=128)),
        **_both(r"of shape \(64, 96\), where its config\.json asks for \(64, 128\)"),
    ),
    Animal(name="a truncated shard", make=changed(_truncate, SHARDED), **_both("only a part of one")),
    Animal(name="an absent shard", make=changed(lambda f: _shard(f).unlink(), SHARDED), **_both("lacks model-00002")),
    Animal(
        name="an index that cannot be read",
        make=changed(_spoil_index, SHARDED),
        **_both("index.json that cannot be read"),
    ),
    Animal(
        name="pickled weights alone (.bin)", make=changed(_pickled), **_both("pytorch_model.bin, which is not read")
    ),
    Animal(
        name="quantised weights",
        make=changed(settings(quantization_config={"quant_method": "gptq", "bits": 4})),
        **_both(r"is quantised \(gptq\)"),
    ),
    Animal(name="an adapter without its base", make=_adapter_alone, **_both("holds a LoRA adapter")),
    # Tokenizer and chat template
    Animal(name="chat template as a file", make=changed(_template_file)),
    Animal(
        name="no chat template", make=of(llama, template=None), **_both("has no chat template.*chat_template.jinja")
    ),
    Animal(
        name="a template with a mistake",
        make=of(llama, template="{% for message in messages %}"),
        **_both("chat template that cannot be used"),
    ),
    Animal(
        name="a template without an end of turn",
        make=of(llama, template="{% for m in messages %}{{ m.role }} {{ m.content }} {% endfor %}"),
        told="no token of its own.*<|im_end|>",
    ),
    Animal(
        name="the turn ends otherwise than the tokenizer's eos",
        make=of(llama, eos="<|endoftext|>", ends=[END_OF_TEXT, END_OF_TURN]),
    ),
    Animal(
        name="the turn's end is not in generation_config.json",
        make=of(llama, eos="<|endoftext|>", ends=END_OF_TEXT),
        **_both("at which the engine would not stop: add 3 to eos_token_id"),
    ),
    Animal(
        name="a tokenizer with more ids than the model",
        make=changed(lambda folder: write_tokenizer(folder, more=3)),
        **_both("ids up to 66, and its model knows those below 64"),
    ),
)


def table() -> str:
    """As docs/models.md shows it."""
    rows = [f"| {animal.name} | {_verdict(animal.lora)} | {_verdict(animal.full)} |" for animal in ZOO]
    return "\n".join(["| model folder | `--tuning lora` | `--tuning full` |", "| --- | --- | --- |", *rows])


def _verdict(refusal: str) -> str:
    return "refused" if refusal else "yes"


def copied(animal: Animal, folder: Path) -> Path:
    """The animal's folder, made anew."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    animal.make(folder)
    return folder


if __name__ == "__main__":
    print(table())
