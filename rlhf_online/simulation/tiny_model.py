"""The tiny world's model folder: a Llama of 0.11 M parameters and a tokenizer of whole words.

A prompt is the words of the last user message, between `<bos>` and `<answer>`; an answer is words and `<eos>`. Words
are separated by single spaces in text, so text → tokens → text is the identity on the world's vocabulary.
"""

import json
from pathlib import Path

from rlhf_online.simulation import world

HIDDEN, LAYERS, HEADS, INTERMEDIATE, POSITIONS = 64, 2, 2, 176, 128

CHAT_TEMPLATE = (
    "<bos>{{ (messages | selectattr('role', 'equalto', 'user') | list | last)['content'] }}"
    "{% if add_generation_prompt %}<answer>{% endif %}"
)


def write_tiny_model(path: Path, *, weights_seed: int | None, tied: bool = False) -> None:
    """Write configuration and tokenizer below `path`, and random weights if a seed is given.

    Without weights it is what supervised fine-tuning starts from, and an engine that waits for its first version.
    `tied`: its output layer is its embedding, as in most small models.
    """
    path.mkdir(parents=True, exist_ok=True)
    _write_json(path / "config.json", _config() | {"tie_word_embeddings": tied})
    _write_json(path / "generation_config.json", {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0})
    _write_json(path / "tokenizer.json", _tokenizer())
    _write_json(path / "tokenizer_config.json", _tokenizer_config())
    if weights_seed is not None:
        _write_weights(path, weights_seed)


def _config() -> dict:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "dtype": "float32",
        "head_dim": HIDDEN // HEADS,
        "hidden_act": "silu",
        "hidden_size": HIDDEN,
        "initializer_range": 0.08,
        "intermediate_size": INTERMEDIATE,
        "max_position_embeddings": POSITIONS,
        "mlp_bias": False,
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "num_key_value_heads": HEADS,
        "rms_norm_eps": 1e-5,
        "rope_theta": 100.0,
        "vocab_size": len(world.VOCABULARY),
    }


def _tokenizer() -> dict:
    """A `tokenizers` file: words by white space and punctuation, one token each.

    The WordPiece decoder (no piece begins with its prefix) puts one space between words and none before the first.
    """
    special = [
        {
            "id": index,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for index, token in enumerate(world.SPECIALS)
    ]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": special,
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": None,
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": False},
        "model": {
            "type": "WordLevel",
            "vocab": {word: index for index, word in enumerate(world.VOCABULARY)},
            "unk_token": world.UNKNOWN,
        },
    }


def _tokenizer_config() -> dict:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": world.BOS,
        "eos_token": world.EOS,
        "pad_token": world.PAD,
        "unk_token": world.UNKNOWN,
        "additional_special_tokens": [world.ANSWER],
        "clean_up_tokenization_spaces": False,
        "model_max_length": POSITIONS,
        "padding_side": "right",
        "chat_template": CHAT_TEMPLATE,
    }


def _write_weights(path: Path, seed: int) -> None:
    # Imported here: the demo's own process, which writes the folder without weights, needs no torch.
    import torch
    from safetensors.torch import save_file
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(path), dtype=torch.float32)
    tensors = dict(model.state_dict())
    if model.config.tie_word_embeddings:
        del tensors["lm_head.weight"]
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})


def _write_json(path: Path, values: dict) -> None:
    path.write_text(json.dumps(values, indent=2))
