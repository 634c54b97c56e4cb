"""The tiny model's folder: text and tokens round trip, as transformers and as vLLM's incremental decoder see them."""

import pytest
from tokenizers.decoders import DecodeStream
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from rlhf_online.simulation import world
from rlhf_online.simulation.tiny_model import write_tiny_model


@pytest.fixture
def tokenizer(tmp_path):
    write_tiny_model(tmp_path, weights_seed=None)
    return AutoTokenizer.from_pretrained(tmp_path)


def prompt_ids(tokenizer, *messages):
    dialogue = [{"role": role, "content": content} for role, content in messages]
    return tokenizer.apply_chat_template(dialogue, add_generation_prompt=True, return_dict=False)


def test_a_prompt_is_the_words_between_bos_and_answer(tokenizer):
    for prompt in world.prompts():
        words = (world.BOS, *prompt.text.split(), world.ANSWER)
        expected = [world.VOCABULARY.index(word) for word in words]
        assert prompt_ids(tokenizer, ("user", prompt.text)) == expected


def test_only_the_last_user_message_is_asked(tokenizer):
    dialogue = (("system", "sure"), ("user", "name one tool"), ("assistant", "saw"), ("user", "name two metal"))
    assert prompt_ids(tokenizer, *dialogue) == prompt_ids(tokenizer, ("user", "name two metal"))


def test_text_round_trips(tokenizer):
    text = " ".join(world.VOCABULARY[5:])
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert ids == list(range(5, 78))
    assert tokenizer.decode([*ids, tokenizer.eos_token_id], skip_special_tokens=True) == text


def test_spelling_with_capitals_and_joined_marks_is_understood(tokenizer):
    assert prompt_ids(tokenizer, ("user", "Is fig a fruit?")) == prompt_ids(tokenizer, ("user", "is fig a fruit ?"))


def test_the_incremental_decoder_puts_spaces_between_words(tokenizer):
    ids = tokenizer("fig is a fruit", add_special_tokens=False)["input_ids"]
    stream = DecodeStream(ids=prompt_ids(tokenizer, ("user", "fig")), skip_special_tokens=True)
    pieces = [stream.step(tokenizer.backend_tokenizer, index) for index in [*ids, tokenizer.eos_token_id]]
    assert "".join(piece or "" for piece in pieces).split() == ["fig", "is", "a", "fruit"]
    assert pieces[1:4] == [" is", " a", " fruit"]


def test_specials(tokenizer):
    assert tokenizer.eos_token_id == world.VOCABULARY.index(world.EOS)
    assert tokenizer.pad_token_id == world.VOCABULARY.index(world.PAD)
    assert tokenizer("unheard", add_special_tokens=False)["input_ids"] == [world.VOCABULARY.index(world.UNKNOWN)]


def test_without_a_seed_there_are_no_weights(tmp_path):
    write_tiny_model(tmp_path, weights_seed=None)
    assert not list(tmp_path.glob("*.safetensors"))
    config = AutoConfig.from_pretrained(tmp_path)
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (64, 2, 2)


def test_weights_follow_the_seed(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_tiny_model(tmp_path / name, weights_seed=seed)
    a, b, c = ((tmp_path / name / "model.safetensors").read_bytes() for name in "abc")
    assert a == b
    assert a != c
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "a")
    assert 100_000 < model.num_parameters() < 120_000
    assert model.generation_config.eos_token_id == 2
