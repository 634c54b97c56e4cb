"""What is rendered here is what vLLM renders: its own code is the oracle, in a process of its own."""

import json
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from rlhf_online.errors import InvalidInput
from rlhf_online.models.tokens import ChatTokenizer
from rlhf_online.simulation.tiny_model import write_tiny_model
from tests.support.conversations import CALL, CHAT_ML, CONVERSATIONS, TEMPLATES, TOOLS, WITH_TOOLS, user

ROOT = Path(__file__).resolve().parents[2]
VLLM = """
import asyncio, json, sys
from vllm.config import ModelConfig
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.renderers.chat_utils import parse_chat_messages
from vllm.renderers.hf import resolve_chat_template_content_format, safe_apply_chat_template
from vllm.tokenizers import get_tokenizer

folder, cases = sys.argv[1], json.load(sys.stdin)
config, tokenizer = ModelConfig(model=folder, dtype="float32"), get_tokenizer(folder)
for template, messages, tools in cases:
    request = ChatCompletionRequest(messages=messages, tools=tools)
    how = resolve_chat_template_content_format(template, tools, "auto", tokenizer, model_config=config)
    turns, _, _ = parse_chat_messages(request.messages, config, how)
    print(json.dumps(safe_apply_chat_template(
        config, tokenizer, turns, tools=tools, chat_template=template, tokenize=False, add_generation_prompt=True)))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_tiny_model(tmp_path / "model", weights_seed=None)
    return tmp_path / "model"


def _with_template(folder: Path, template: str) -> ChatTokenizer:
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": template}))
    return ChatTokenizer(folder)


def test_every_conversation_is_rendered_as_vllm_does(folder: Path) -> None:
    """vLLM refuses a name that is null; the gateway sends it none of what is null."""
    cases: list[tuple[str, str, Any]] = list(product(TEMPLATES, CONVERSATIONS, (None, TOOLS)))
    told = {
        name: [{key: value for key, value in message.items() if value is not None} for message in messages]
        for name, messages in CONVERSATIONS.items()
    }
    ended = subprocess.run(
        [sys.executable, "-c", VLLM, str(folder)],
        input=json.dumps([(TEMPLATES[name], told[said], tools) for name, said, tools in cases]),
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    theirs = [json.loads(line) for line in ended.stdout.splitlines() if line.startswith('"')]
    ours = [
        _with_template(folder, TEMPLATES[name]).template.prompt(CONVERSATIONS[said], tools or ())
        for name, said, tools in cases
    ]
    assert len(theirs) == len(ours) == len(cases)
    for case, made, expected in zip(cases, ours, theirs, strict=True):
        assert made == expected, case


def test_an_answer_that_calls_a_tool_ends_where_its_turn_ends(folder: Path) -> None:
    tokenizer = _with_template(folder, WITH_TOOLS.replace("<|im_end|>", "<eos>"))
    answer = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    ids = tokenizer.call_ids([user("fig")], answer, TOOLS)
    assert ids[-1] == tokenizer.eos_ids[0] and ids.count(tokenizer.eos_ids[0]) == 1
    assert "zinc" in tokenizer.decode(ids)


def test_a_template_that_writes_no_calls_is_refused(folder: Path) -> None:
    tokenizer = _with_template(folder, CHAT_ML)
    with pytest.raises(InvalidInput, match="does not write a call of 'weigh'"):
        tokenizer.call_ids([user()], {"role": "assistant", "content": None, "tool_calls": [CALL]})


def test_a_template_says_why_it_refuses(folder: Path) -> None:
    tokenizer = _with_template(folder, "{{ raise_exception('one system message, first') }}")
    with pytest.raises(InvalidInput, match="refuses these messages: one system message, first"):
        tokenizer.prompt_ids([user()])


def test_tokens_of_another_tokenizer_are_told_by_what_the_user_said(folder: Path) -> None:
    tokenizer = ChatTokenizer(folder)
    said = [user("name one tool")]
    assert tokenizer.wrote(tokenizer.prompt_ids(said), said)
    assert not tokenizer.wrote(tokenizer.prompt_ids([user("name two metal")]), said)
    assert not tokenizer.wrote((5_000_000, 70_000, 3), said)
    assert not tokenizer.wrote((5_000_000,), [user("")]) and not tokenizer.wrote((), said)
