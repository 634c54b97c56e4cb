"""What the engine was given is what is logged and learned, token for token: every conversation, however asked for."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from rlhf_online.eventlog.local import LocalLog
from rlhf_online.eventlog.tail import LocalReader
from rlhf_online.models.tokens import ChatTokenizer
from rlhf_online.simulation.tiny_model import write_tiny_model
from rlhf_online.training.ledger import Ledger
from rlhf_online.training.sft.demonstrations import corrections
from rlhf_online.training.sft.fine_tuning import to_pairs
from tests.support.chat_service import Service, running
from tests.support.conversations import CONVERSATIONS, TEMPLATES, TOOLS, parts, user
from tests.support.fake_generation import Same
from tests.support.intakes import new_intake

Tokens = tuple[int, ...]


class Rendered(Same):
    """An engine that renders with a model's own tokenizer and chat template; `given` are the prompts so far."""

    def __init__(self, tokenizer: ChatTokenizer) -> None:
        super().__init__()
        self.given: list[Tokens] = []
        self._tokenizer = tokenizer

    def prompt_ids(self, body: dict[str, Any]) -> list[int]:
        ids = self._tokenizer.prompt_ids(body["messages"], body.get("tools") or ())
        self.given.append(ids)
        return list(ids)


@asynccontextmanager
async def serving(folder: Path, template: str) -> AsyncIterator[tuple[Service, Rendered, ChatTokenizer]]:
    write_tiny_model(folder / "model", weights_seed=None)
    path = folder / "model" / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": TEMPLATES[template]}))
    tokenizer = ChatTokenizer(folder / "model")
    async with running(folder) as service:
        service.engine.answers = engine = Rendered(tokenizer)
        yield service, engine, tokenizer


async def vote(service: Service, completion_id: str) -> None:
    """A correction, a thumb and a pair: each way in which a prompt is learned from."""
    first, second = ({"completion_id": completion_id, "index": index} for index in range(2))
    for said in (
        {"correction": {"answer": first, "text": "zinc iron"}},
        {"thumb": {"answer": first, "up": True}},
        {"pairwise": {"chosen": second, "rejected": first}},
    ):
        assert (await service.post("/v1/feedback", {**said, "user": "ann"}))[0] == 200


def learned(service: Service, folder: Path, tokenizer: ChatTokenizer, held_out: float) -> dict[str, list[Tokens]]:
    """The prompts that each part of the training takes from the log, in its order."""
    with LocalLog(folder / "log") as log:
        for written in [log.append(record) for record in service.sink.records]:
            written.result(30)
    with LocalReader(folder / "log") as source:
        changes = {"answer_ids": tokenizer.answer_ids, "eos_ids": {9}, "prompts": 1000, "held_out": held_out}
        intake = new_intake(source, Ledger(), folder / "answers", **changes)
        intake.read()
        shown = corrections(source, held_out=0.0).demonstrations
    taken = intake.votes.take()
    return {
        "votes": [vote.prompt_token_ids for vote in (taken.held_out if held_out else taken.learned)],
        "policy": intake.policy_inputs.prompts,
        "sft": [tuple(prompt) for prompt, _ in to_pairs(shown, tokenizer, 10_000, 10_000).pairs],
    }


@pytest.mark.parametrize("template", TEMPLATES)
async def test_every_conversation_is_learned_as_it_was_served(tmp_path: Path, template: str) -> None:
    async with serving(tmp_path, template) as (service, engine, tokenizer):
        for messages in CONVERSATIONS.values():
            for tools in ({}, {"tools": TOOLS}):
                status, reply = await service.ask(messages=messages, n=2, **tools)
                assert status == 200, reply
                await vote(service, reply["id"])
        assert [logged.prompt_token_ids for logged in service.sink.completions] == engine.given
        found = learned(service, tmp_path, tokenizer, held_out=0.0)
    assert found["votes"] == [prompt for prompt in engine.given for _ in range(3)]
    assert found["sft"] == engine.given
    assert set(found["policy"]) <= set(engine.given), "those of tools do not train the policy"


@pytest.mark.parametrize("held_out", [0.0, 1.0])
async def test_whatever_way_it_was_asked_for(tmp_path: Path, held_out: float) -> None:
    """Whole, streamed, by a client that leaves, and sent to an engine that dies under it."""
    async with serving(tmp_path, "chatml") as (service, engine, tokenizer):
        talk = [
            {"role": "developer", "content": parts("metals", "alone")},
            user(parts("fig", "owl")),
        ]
        ids = [(await service.ask(messages=talk, n=2))[1]["id"]]
        service.engine.die_after = 1
        ids.append((await service.ask(messages=talk, n=2))[1]["id"])
        body = {"messages": talk, "n": 2, "stream": True}
        async with service.session.post(service.url + "/v1/chat/completions", json=body) as response:
            assert response.status == 200
            await response.read()
        ids.append(service.sink.completions[-1].completion_id)
        for completion_id in ids:
            await vote(service, completion_id)
        assert len(set(engine.given)) == 1 and len(engine.given) == 4
        assert [logged.prompt_token_ids for logged in service.sink.completions] == engine.given[:3]
        assert service.sink.completions[0].messages[1].content == "fig\nowl"
        found = learned(service, tmp_path, tokenizer, held_out)
    assert set(found["votes"]) == set(found["sft"]) == set(found["policy"]) == set(engine.given)
    assert (len(found["votes"]), len(found["sft"])) == (9, 3)
