"""The tokenizer of the tiny world, and the layout of batches."""

from pathlib import Path

import pytest

from rlhf_online.errors import InvalidInput
from rlhf_online.events import Message
from rlhf_online.models.tokens import ChatTokenizer, fit
from rlhf_online.simulation.tiny_model import write_tiny_model


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> ChatTokenizer:
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny_model(folder, weights_seed=None)
    return ChatTokenizer(folder)


def test_a_prompt_ends_where_the_answer_begins(tokenizer: ChatTokenizer):
    ids = tokenizer.prompt_ids([Message(role="user", content="name three metal")])
    assert tokenizer.decode(ids) == "name three metal"
    assert len(ids) == 5, "begin, three words, the mark of the answer"


def test_an_answer_ends_with_the_end_of_sequence(tokenizer: ChatTokenizer):
    ids = tokenizer.answer_ids("zinc iron")
    assert ids[-1] == tokenizer.eos_ids[0] and len(ids) == 3
    assert tokenizer.decode(ids) == "zinc iron"


def test_a_prompt_is_edited_with_its_marks_unless_its_text_gives_other_tokens(tokenizer: ChatTokenizer):
    ids = tokenizer.prompt_ids([Message(role="user", content="i think yes")])
    assert tokenizer.edited(ids, lambda text: text) == ids
    no = tokenizer.edited(ids, lambda text: text.replace("yes", "no"))
    assert no == tokenizer.prompt_ids([Message(role="user", content="i think no")])
    assert tokenizer.edited((*ids, 999), lambda text: text) is None


def test_ends_are_those_of_tokenizer_and_generation_settings(tmp_path: Path):
    write_tiny_model(tmp_path, weights_seed=None)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [7, 2, 9]}')
    assert ChatTokenizer(tmp_path).eos_ids == (2, 7, 9)
    (tmp_path / "generation_config.json").unlink()
    assert ChatTokenizer(tmp_path).eos_ids == (2,)


def test_a_folder_without_model_is_refused(tmp_path: Path):
    with pytest.raises(InvalidInput, match=r"no config\.json"):
        ChatTokenizer(tmp_path)


def test_a_prompt_is_cut_from_the_left_and_an_answer_never():
    assert fit(([1, 2, 3, 4], [5, 6]), 4) == ([3, 4], [5, 6])
    assert fit(([1, 2], [5, 6]), 4) == ([1, 2], [5, 6])
    with pytest.raises(InvalidInput, match="does not fit"):
        fit(([1], [2, 3, 4, 5]), 4)
