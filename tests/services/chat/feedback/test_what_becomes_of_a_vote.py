"""From POST /v1/feedback to what GET /v1/feedback/{id} says of it: the real service, log, trainer and versions."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from rlhf_online.events import Completion, Envelope, Erasure, Message
from rlhf_online.feedback.held_out import is_held_out
from rlhf_online.training.publication import Publisher
from tests.support.chat_service import Service, running
from tests.support.crash import Crash
from tests.support.trainer_world import MAX_TOKENS, PROMPTS, World, world


class Circle:
    """`tiny` is what the trainer works with, `service` what people reach; both have one log and one store."""

    def __init__(self, tiny: World, service: Service) -> None:
        self.tiny = tiny
        self.service = service

    def answered(self, *, held_out: bool = False) -> Completion:
        """Two answers to a prompt in a conversation of its own."""
        prompt = self.tiny.tokenizer.prompt_ids([Message(role="user", content=PROMPTS[0])])
        while True:
            completion = self.tiny.completion(PROMPTS[0], self.tiny.engine.sample([prompt], 2, MAX_TOKENS, 1.0))
            if is_held_out(completion.conversation_id, 0.2) == held_out:
                self.tiny.append(Envelope(event_id=completion.completion_id, event=completion))
                return completion

    async def vote(self, completion_id: str, **fields: Any) -> str:
        """Ann prefers the first answer."""
        chosen, rejected = ({"completion_id": completion_id, "index": index} for index in (0, 1))
        key = f"{completion_id} {fields}"
        body = {"pairwise": {"chosen": chosen, "rejected": rejected}, "user": "ann", "idempotency_key": key, **fields}
        status, reply = await self.service.post("/v1/feedback", body)
        assert status == 200, reply
        return reply["event_id"]

    async def status(self, event_id: str, user: str = "ann") -> dict[str, Any]:
        status, reply = await self.service.get(f"/v1/feedback/{event_id}?user={user}")
        assert status == 200, reply
        return reply

    async def state(self, event_id: str, user: str = "ann") -> str:
        return (await self.status(event_id, user))["state"]


@pytest.fixture
async def circle(tmp_path: Path) -> AsyncIterator[Circle]:
    """Votes have the same ids each time: which of them each head of the ensemble reads is told by the id, and some are
    read by none."""
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "person.salt").write_text("salt" * 8)
    with world(tmp_path) as tiny:
        async with running(tmp_path, log=tiny.log) as service:
            yield Circle(tiny, service)


async def test_a_vote_goes_its_way_until_what_serves_has_learned_from_it(circle: Circle) -> None:
    tiny = circle.tiny
    vote = await circle.vote(circle.answered().completion_id)
    status = await circle.status(vote)
    assert (status["state"], status["serving"], status["reward_version"]) == ("accepted", False, "")
    with tiny.trainer() as trainer:
        assert not trainer.run_once()
        assert await circle.state(vote) == "joined"
        tiny.chat(20)
        assert trainer.run_once()
        status = await circle.status(vote)
        assert (status["reward_version"], status["policy_version"]) == ("reward-000000", "policy-000001")
        assert (status["state"], status["serving"]) == ("live", True)
        assert status["live_since_ms"] == tiny.registry.status("policy-000001").changed_ms
        way = "accepted → joined → trained in reward-000000 → policy-000001, live since "
        assert status["message"].startswith(way) and status["message"].endswith(" UTC")
        tiny.chat(20)
        assert trainer.run_once()
    later = await circle.status(vote)
    assert tiny.registry.live("policy") == "policy-000002"
    assert later == status, "a later version knows it too"
    tiny.registry.rollback("policy", reason="worse")
    tiny.registry.promote("policy-000000")
    back = await circle.status(vote)
    assert (back["state"], back["policy_version"], back["serving"]) == ("trained", "policy-000001", False)
    assert back["message"].endswith("policy-000001, which was live; what serves now is older")


async def test_what_else_may_become_of_it(circle: Circle) -> None:
    tiny = circle.tiny
    held_out = await circle.vote(circle.answered(held_out=True).completion_id)
    lost = await circle.vote("chatcmpl-lost")
    of_one = circle.answered().completion_id
    broken = await circle.vote(of_one, user="eve", pairwise={
        "chosen": {"completion_id": of_one, "index": 0}, "rejected": {"completion_id": of_one, "index": 9},
    })  # fmt: skip
    first = await circle.vote(circle.answered().completion_id)
    edit = await circle.vote(of_one, replaces=first)
    back = await circle.vote(circle.answered().completion_id, user="bob")
    async with circle.service.session.delete(f"{circle.service.url}/v1/feedback/{back}?user=bob") as reply:
        taken_back = (await reply.json())["event_id"]
    assert (await circle.status(first))["replaced_by"] == edit
    gone = circle.answered()
    erased = await circle.vote(gone.completion_id)
    erasure = Erasure(conversation_id=gone.conversation_id, person=gone.person, erased_ms=gone.finished_ms)
    tiny.append(Envelope(event_id="erasure", event=erasure))
    with tiny.trainer() as trainer:
        tiny.chat(24)
        trainer.read_log()
        assert await circle.state(lost) == "waiting"
        assert trainer.run_once()
    assert await circle.state(held_out) == "held_out"
    assert await circle.state(edit) == "live"
    status = await circle.status(broken, "eve")
    assert (status["state"], status["message"]) == (
        "dead_lettered",
        f"accepted → set aside: completion {of_one} has no answer 9",
    )
    status = await circle.status(erased)
    assert (status["state"], status["message"]) == (
        "erased",
        "accepted → erased with its conversation: it is learned from no more",
    )
    superseded = await circle.status(first)
    assert (superseded["state"], superseded["replaced_by"]) == ("superseded", edit)
    assert superseded["message"] == f"accepted → superseded by a later vote, {edit}"
    withdrawn = await circle.status(back, "bob")
    assert (withdrawn["state"], withdrawn["replaced_by"]) == ("withdrawn", taken_back)
    later = await circle.vote(of_one, replaces=edit)
    with tiny.trainer() as trainer:
        tiny.chat(16)
        assert trainer.run_once()
    status = await circle.status(edit)
    assert (status["state"], status["reward_version"]) == ("superseded", "reward-000000")
    assert status["message"].endswith(f"; then superseded by a later vote, {later}")
    assert (await circle.status(later))["state"] == "kept"


async def test_another_machine_with_the_same_store_tells_it_to_the_same_person(circle: Circle, tmp_path: Path) -> None:
    """It has a log of its own, and people of the same names: the same salt."""
    tiny = circle.tiny
    vote = await circle.vote(circle.answered().completion_id)
    with tiny.trainer() as trainer:
        tiny.chat(20)
        assert trainer.run_once()
    other = tmp_path / "other" / "state"
    other.mkdir(parents=True)
    (other / "person.salt").write_text((circle.service.state.root / "person.salt").read_text())
    (other / "versions").symlink_to(circle.service.state.versions)
    async with running(tmp_path / "other") as elsewhere:
        status, reply = await elsewhere.get(f"/v1/feedback/{vote}?user=ann")
        assert (status, reply["state"], reply["accepted_ms"]) == (200, "live", 0)
        assert (await elsewhere.get(f"/v1/feedback/{vote}?user=bob"))[0] == 404


@pytest.mark.parametrize("step", ["save", "publish_reward", "publish_policy"])
async def test_after_a_kill_it_tells_what_was_committed(
    circle: Circle, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object, **__: object) -> None:
        raise Crash

    tiny = circle.tiny
    vote = await circle.vote(circle.answered().completion_id)
    tiny.chat(20)
    with monkeypatch.context() as patch, tiny.trainer() as trainer:
        patch.setattr(trainer.parts.checkpoints if step == "save" else Publisher, step, killed)
        with pytest.raises(Crash):
            trainer.run_once()
    status = await circle.status(vote)
    assert status["state"] == ("joined" if step == "save" else "trained")
    assert (status["policy_version"], status["serving"]) == ("", False)
    with tiny.trainer() as successor:
        successor.run_once()
    assert await circle.state(vote) == "live"
