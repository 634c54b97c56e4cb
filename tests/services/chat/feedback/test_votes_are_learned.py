"""From votes over the public API to what training takes of them: each person's last word, once, and nobody else's."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rlhf_online.eventlog.local import LocalLog
from rlhf_online.eventlog.tail import LocalReader
from rlhf_online.feedback.votes import Vote
from rlhf_online.training.intake import Intake
from rlhf_online.training.ledger import Ledger
from services.chat.feedback.checks import FeedbackChecks
from tests.support.chat_service import Service
from tests.support.intakes import new_intake


class Training:
    """What the trainer's intake makes of all that the service has logged."""

    def __init__(self, folder: Path) -> None:
        self.log = LocalLog(folder / "log")
        self.source = LocalReader(folder / "log")
        self.ledger = Ledger()
        self.intake: Intake = new_intake(self.source, self.ledger, folder / "answers")
        self._shipped = 0

    def learned(self, service: Service) -> list[Vote]:
        records = service.sink.records[self._shipped :]
        for written in [self.log.append(record) for record in records]:
            written.result(30)
        self._shipped += len(records)
        self.intake.read()
        return self.intake.votes.take()[0]

    @property
    def fates(self) -> dict[str, int]:
        return {name: count for name, count in self.ledger.counts().items() if count}


@pytest.fixture
def training(tmp_path: Path) -> Iterator[Training]:
    training = Training(tmp_path)
    yield training
    training.source.close()
    training.log.close()


async def vote(service: Service, completion_id: str, **fields: Any) -> str:
    """Ann's thumb, if nothing else is said; its event id."""
    answer = {"completion_id": completion_id}
    said = {} if "withdrawal" in fields else {"thumb": {"answer": answer, "up": fields.pop("up", True)}}
    status, reply = await service.post("/v1/feedback", {"user": "ann", **said, **fields})
    assert status == 200, reply
    return reply["event_id"]


async def test_a_flood_by_one_person_on_one_answer_is_one_vote(service: Service, training: Training) -> None:
    asked = (await service.ask())[1]["id"]
    await asyncio.gather(*(vote(service, asked, idempotency_key=f"{n}", up=bool(n % 2)) for n in range(300)))
    last = await vote(service, asked, up=False)
    bob = await vote(service, asked, user="bob")
    assert [vote.event_id for vote in training.learned(service)] == [last, bob]
    assert training.fates == {"trained": 2, "withdrawn": 300}


async def test_a_flood_over_many_updates_is_learned_as_new_once(service: Service, training: Training) -> None:
    asked = (await service.ask())[1]["id"]
    sent, taken = [], []
    for turn in range(5):
        sent.append(await vote(service, asked, idempotency_key=f"{turn}", up=bool(turn % 2)))
        taken += training.learned(service)
    assert [vote.event_id for vote in taken] == sent, "each is in the ledger, once"
    assert [vote.revised for vote in taken] == [False, True, True, True, True]
    assert training.fates == {"trained": 5}


@pytest.mark.parametrize("learned", [False, True], ids=["waiting", "learned from"])
async def test_nobody_takes_back_somebody_elses_vote(service: Service, training: Training, learned: bool) -> None:
    """Neither where the service knows whose it is, nor where another pod took it."""
    asked = (await service.ask())[1]["id"]
    hers = await vote(service, asked, idempotency_key="k")
    taken = training.learned(service) if learned else []
    service.chat.feedback.checks = FeedbackChecks()  # a pod that has not seen her vote
    back = {"withdrawal": {"answer": {"completion_id": asked}}, "replaces": hers}
    await vote(service, asked, user="bob", **back)
    await vote(service, asked, user="bob", replaces=hers, up=False)
    await vote(service, asked, idempotency_key="k", up=False)  # which would be refused where her vote is known
    taken += training.learned(service)
    assert [vote.event_id for vote in taken] == [hers]
    assert training.intake.votes.take_revoked() == []
    assert training.intake.dead_letters.counts == {"stranger": 2, "reused_key": 1}
    await vote(service, asked, **back)
    training.learned(service)
    assert training.intake.votes.take_revoked() == [(hers, service.state.person_hash()("ann"))]
