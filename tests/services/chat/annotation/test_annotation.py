"""The annotators' queue over HTTP: whoever asks gets an item to themselves, judges it by ordinary feedback, and is told
how far all are."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from rlhf_online.errors import ConfigError
from rlhf_online.eventlog.local import LocalLog
from rlhf_online.events import Completion, Feedback
from rlhf_online.feedback.agreement import interval
from services.chat.annotation.database import FILE
from services.chat.annotation.guidelines import MAX_BYTES, GuidelinesFile
from tests.services.chat.api.test_openapi import check
from tests.support.chat_service import ASK, Service, running
from tests.support.chromium import saying
from tests.support.fake_generation import Same


@pytest.fixture
async def kept(tmp_path: Path) -> AsyncIterator[Service]:
    """A service with a log on disk."""
    with LocalLog(tmp_path / "state" / "log") as log:
        async with running(tmp_path, log=log) as service:
            yield service


async def asked(service: Service, **fields: Any) -> str:
    status, reply = await service.ask(**{"user": "asker", **fields})
    assert status == 200, reply
    return reply["id"]


async def add(service: Service, *lines: dict[str, Any] | bytes) -> list[dict[str, Any]]:
    body = b"\n".join(line if isinstance(line, bytes) else orjson.dumps(line) for line in lines)
    status, reply = await service.post("/v1/annotation/items", body, service.state.operator_token())
    assert status == 200, reply
    return reply["results"]


async def added(service: Service, **line: Any) -> str:
    [result] = await add(service, line)
    [item_id] = result["item_ids"]
    return item_id


async def give(service: Service, user: str) -> dict[str, Any] | None:
    """What that person is to judge next, if there is anything."""
    status, reply = await service.post("/v1/annotation/next", {"user": user})
    assert status in (200, 404), reply
    return reply if status == 200 else None


def judgement(item: dict[str, Any], *order: int) -> dict[str, Any]:
    """Ranks the answers by their index in the completion, or says good or bad of a single one by 1 and 0."""
    names = {answer["answer"]["index"]: answer["answer"] for answer in item["answers"]}
    if len(names) == 1:
        return {"thumb": {"answer": names[0], "up": bool(order[0])}}
    return {"ranking": {"tiers": [[names[index]] for index in order]}}


async def judge(service: Service, item: dict[str, Any], user: str, *order: int, **fields: Any) -> str:
    vote = judgement(item, *order) | {"user": user, "source": "annotate", **fields}
    status, reply = await service.post("/v1/feedback", vote)
    assert status == 200, reply
    return reply["event_id"]


async def progress(service: Service, user: str = "") -> dict[str, Any]:
    status, reply = await service.get(f"/v1/annotation/progress?user={user}")
    assert status == 200, reply
    return reply


async def test_an_item_is_judged_by_ordinary_feedback_which_says_so(kept: Service) -> None:
    completion = await asked(kept, n=3)
    item_id = await added(kept, completion_id=completion)
    item = await give(kept, "ann")
    assert item is not None
    check(item, "AnnotationItem")
    assert item["item_id"] == item_id
    assert item["messages"] == ASK["messages"]
    assert [answer["text"] for answer in item["answers"]] == ["hello there"] * 3
    assert "policy" not in str(item)
    assert "asker" not in str(item)
    await judge(kept, item, "ann", 2, 0, 1, reason="a note", reasons=["correct"], idempotency_key="once")
    [vote] = kept.logged(Feedback)
    assert vote.annotation_item == item_id
    assert [ref.index for ref in vote.shown] == [answer["answer"]["index"] for answer in item["answers"]]
    assert (vote.reason, vote.reasons, vote.source) == ("a note", ("correct",), "annotate")
    await judge(kept, item, "ann", 2, 0, 1, reason="a note", reasons=["correct"], idempotency_key="once")
    found = await progress(kept, "ann")
    check(found, "Progress")
    assert (found["items"], found["finished"], found["annotations"], found["yours"]) == (1, 1, 1, 1)
    assert await give(kept, "ann") is None
    assert await give(kept, "bob") is None
    _, listed = await kept.get("/v1/feedback?user=ann")
    assert {said["annotation_item"] for said in listed["data"]} == {item_id}


async def test_people_who_race_for_an_item_are_as_many_as_it_wants(kept: Service) -> None:
    await added(kept, completion_id=await asked(kept), people=2)
    given = await asyncio.gather(*(give(kept, f"person {number}") for number in range(8)))
    assert sum(item is not None for item in given) == 2
    assert (await progress(kept))["in_progress"] == 1


async def test_a_person_has_one_item_until_it_is_judged_or_skipped_and_never_again(kept: Service) -> None:
    for number in range(3):
        await added(kept, item_id=f"item-{number}", completion_id=await asked(kept, n=2), people=2)
    first = await give(kept, "ann")
    assert first is not None
    again = await give(kept, "ann")
    assert again is not None
    assert (again["item_id"], again["answers"]) == ("item-0", first["answers"])
    await judge(kept, first, "ann", 0, 1)
    second = await give(kept, "ann")
    assert second is not None and second["item_id"] == "item-1"
    for _ in range(2):
        status, reply = await kept.post(
            "/v1/annotation/items/item-1/skip", {"user": "ann", "reason": "not my language"}
        )
        assert (status, reply) == (200, {"item_id": "item-1"})
    third = await give(kept, "ann")
    assert third is not None and third["item_id"] == "item-2"
    await judge(kept, third, "ann", 1, 0)
    assert await give(kept, "ann") is None
    bobs = await give(kept, "bob")
    assert bobs is not None and bobs["item_id"] == "item-0"
    found = await progress(kept)
    assert [(one["annotations"], one["skipped"]) for one in found["people"]] == [(2, 1), (0, 0)]
    assert found["people"][0]["person"] == kept.chat.feedback.person_hash("ann")
    for item_id in ("item-0", "item-2", "nothing"):
        status, reply = await kept.post(f"/v1/annotation/items/{item_id}/skip", {"user": "ann"})
        assert (status, reply["error"]["param"]) == (404, "item_id"), "judged, or never given"


async def take_back(service: Service, item_id: str, user: str) -> tuple[int, dict[str, Any]]:
    async with service.session.delete(f"{service.url}/v1/annotation/items/{item_id}/skip?user={user}") as response:
        return response.status, orjson.loads(await response.read())


async def test_who_takes_a_skip_back_has_the_item_next(kept: Service) -> None:
    for number in range(2):
        await added(kept, item_id=f"item-{number}", completion_id=await asked(kept, n=3))
    first = await give(kept, "ann")
    assert first is not None
    await kept.post("/v1/annotation/items/item-0/skip", {"user": "ann", "reason": "a slip"})
    other = await give(kept, "ann")
    assert other is not None and other["item_id"] == "item-1"
    for _ in range(2):
        assert await take_back(kept, "item-0", "ann") == (200, {"item_id": "item-0"})
    again = await give(kept, "ann")
    assert again is not None
    assert (again["item_id"], again["answers"]) == ("item-0", first["answers"])
    assert (await progress(kept))["skipped"] == 0
    assert await give(kept, "bob") is None, "both are hers"
    await judge(kept, again, "ann", 0, 1, 2)
    last = await give(kept, "ann")
    assert last is not None and last["item_id"] == "item-1"
    for item_id, user in (("item-0", "ann"), ("item-0", "bob"), ("nothing", "ann")):
        status, reply = await take_back(kept, item_id, user)
        assert (status, reply["error"]["param"]) == (404, "item_id"), "judged, or never given"


async def test_a_skip_holds_once_others_have_the_item(kept: Service) -> None:
    await added(kept, item_id="one", completion_id=await asked(kept, n=2), people=1)
    await give(kept, "ann")
    await kept.post("/v1/annotation/items/one/skip", {"user": "ann"})
    bobs = await give(kept, "bob")
    assert bobs is not None
    for judged in (False, True):
        if judged:
            await judge(kept, bobs, "bob", 1, 0)
        status, reply = await take_back(kept, "one", "ann")
        assert (status, reply["error"]["code"]) == (409, "item_taken")
    assert await give(kept, "ann") is None
    await added(kept, item_id="one", completion_id=bobs["answers"][0]["answer"]["completion_id"], people=2)
    assert (await take_back(kept, "one", "ann"))[0] == 200, "it wants one more now"


async def test_who_takes_a_vote_back_has_the_item_again_and_the_last_change_counts(kept: Service) -> None:
    await added(kept, completion_id=await asked(kept, n=2))
    item = await give(kept, "ann")
    assert item is not None
    vote = await judge(kept, item, "ann", 0, 1)
    async with kept.session.delete(f"{kept.url}/v1/feedback/{vote}?user=ann") as response:
        assert response.status == 200
    assert (await progress(kept))["finished"] == 0
    assert await give(kept, "bob") is None, "it is still ann's"
    again = await give(kept, "ann")
    assert again is not None and again["answers"] == item["answers"]
    second = await judge(kept, again, "ann", 1, 0)
    await judge(kept, again, "ann", 0, 1, replaces=second)
    found = await progress(kept)
    assert (found["finished"], found["annotations"]) == (1, 1)
    assert [vote.annotation_item for vote in kept.logged(Feedback)] == [
        item["item_id"],
        "",
        item["item_id"],
        item["item_id"],
    ]


async def test_votes_that_are_none_on_the_item_do_not_settle_it(kept: Service) -> None:
    """On some of its answers, by somebody who was not given it, or by nobody."""
    await added(kept, completion_id=await asked(kept, n=3))
    item = await give(kept, "ann")
    assert item is not None
    names = [answer["answer"] for answer in item["answers"]]
    await judge(kept, item, "bob", 0, 1, 2)
    await judge(kept, item, "", 0, 1, 2)
    for said in (
        {"thumb": {"answer": names[0], "up": True}},
        {"ranking": {"tiers": [[names[0]], [names[1]]]}},
        {"correction": {"answer": names[0], "text": "better"}},
    ):
        assert (await kept.post("/v1/feedback", {"user": "ann", **said}))[0] == 200
    assert [vote.annotation_item for vote in kept.logged(Feedback)] == [""] * 5
    assert (await progress(kept))["annotations"] == 0


async def test_an_answer_that_names_its_writer_marks_the_vote(kept: Service) -> None:
    kept.engine.answers = saying("I am policy-000012")
    await added(kept, completion_id=await asked(kept))
    item = await give(kept, "ann")
    assert item is not None
    await judge(kept, item, "ann", 1)
    assert [vote.could_know for vote in kept.logged(Feedback)] == [True]


async def test_where_items_come_from(kept: Service) -> None:
    several = await asked(kept, n=2)
    comparison = (await kept.post("/v1/comparisons", {**ASK, "user": "asker", "n": 3}))[1]
    pair = [answer["answer"] for answer in comparison["answers"][:2]]
    results = await add(
        kept,
        {"completion_id": several, "people": 2},
        {"comparison_id": comparison["comparison_id"], "item_id": "compared"},
        {"answers": pair},
        {"compare": {**ASK, "n": 4, "temperature": 0.5}, "item_id": "written"},
    )
    ids = [result["item_ids"][0] for result in results]
    assert ids[1::2] == ["compared", "written"]
    seen: dict[str, int] = {}
    while item := await give(kept, "ann"):
        seen[item["item_id"]] = len(item["answers"])
        await judge_all_alike(kept, item, "ann")
    assert seen == dict(zip(ids, (2, 3, 2, 4), strict=True))
    written = [one for one in kept.logged(Completion) if one.sampling.temperature == 0.5]
    assert len(written) == 4
    assert len({one.comparison_id for one in written}) == 1


async def judge_all_alike(service: Service, item: dict[str, Any], user: str) -> None:
    tiers = [[answer["answer"] for answer in item["answers"]]]
    assert (await service.post("/v1/feedback", {"user": user, "ranking": {"tiers": tiers}}))[0] == 200


async def test_the_newest_answers_that_nobody_voted_on(kept: Service) -> None:
    """Those of comparisons are left to them; the same again adds nothing."""
    old, voted, new = [await asked(kept) for _ in range(3)]
    await kept.post("/v1/comparisons", {**ASK, "user": "asker"})
    assert (await kept.post("/v1/feedback", {"thumb": {"answer": {"completion_id": voted}, "up": True}}))[0] == 200
    [first] = await add(kept, {"unvoted": 10})
    assert len(first["item_ids"]) == 2
    assert await add(kept, {"unvoted": 1}, {"completion_id": new}, {"completion_id": old}) == [
        {"item_ids": first["item_ids"][:1]},
        {"item_ids": first["item_ids"][:1]},
        {"item_ids": first["item_ids"][1:]},
    ]
    assert (await progress(kept))["items"] == 2


async def test_the_same_name_is_the_same_item(kept: Service) -> None:
    one, other = await asked(kept), await asked(kept)
    await add(kept, {"item_id": "a", "completion_id": one})
    item = await give(kept, "ann")
    assert item is not None
    await judge(kept, item, "ann", 1)
    assert (await progress(kept))["finished"] == 1
    results = await add(
        kept, {"item_id": "a", "completion_id": one, "people": 2}, {"item_id": "a", "completion_id": other}
    )
    assert results[0] == {"item_ids": ["a"]}
    assert (results[1]["error"]["code"], results[1]["error"]["param"]) == ("item_id_reused", "item_id")
    assert (await progress(kept))["finished"] == 0, "one more person is wanted"
    before = len(kept.engine.requests)
    for _ in range(2):
        assert await add(kept, {"item_id": "b", "compare": ASK}) == [{"item_ids": ["b"]}]
    assert len(kept.engine.requests) == before + 2, "its answers are written once"


WRONG: list[tuple[dict[str, Any] | bytes, str]] = [
    ({}, "expected exactly one of completion_id, comparison_id, answers, compare, unvoted, got none"),
    ({"completion_id": "x", "unvoted": 3}, "got completion_id and unvoted"),
    ({"completion_id": "x"}, "completion_id: the log of this service holds no 'x'"),
    ({"answers": [{"completion_id": "x", "index": 1}]}, "answers: the log of this service holds no 'x'"),
    ({"comparison_id": "x"}, "comparison_id: 'x' is not known"),
    ({"answers": [{"completion_id": f"{i}"} for i in range(7)]}, "answers: 7 answers, at most 6 are taken"),
    ({"answers": [{"completion_id": "x"}, {"completion_id": "x", "index": 0}]}, "answers: one is named twice"),
    ({"compare": {"messages": []}}, "compare.messages: expected at least one message"),
    ({"compare": {**ASK, "stream": True}}, "compare.stream: an item is shown when its answers are whole"),
    ({"compare": {**ASK, "versions": ["a", "b"]}}, "versions: 'a' cannot be asked now"),
    ({"unvoted": 0}, "unvoted: expected 1 to 1000, got 0"),
    ({"unvoted": 2, "item_id": "x"}, "item_id: unvoted makes several items"),
    ({"completion_id": "x", "people": 101}, "people: expected 1 to 100, got 101"),
    ({"completion_id": "x", "item_id": "a/b"}, "item_id: expected 1 to 128 letters"),
    ({"completion": "x"}, "unrecognized field: completion"),
    (b"[]", "the body must be a JSON object, not an array"),
]


async def test_a_line_that_is_wrong_says_what_and_leaves_the_others(kept: Service) -> None:
    good = {"completion_id": await asked(kept)}
    *refused, taken = await add(kept, *(line for line, _ in WRONG), good)
    for result, (line, said) in zip(refused, WRONG, strict=True):
        assert said in result["error"]["message"], line
    assert taken["item_ids"]


class OtherPrompt(Same):
    def prompt_ids(self, body: dict[str, Any]) -> list[int]:
        return [9, 9]


async def test_answers_of_different_prompts_are_no_item(kept: Service) -> None:
    one = await asked(kept)
    kept.engine.answers = OtherPrompt()
    other = await asked(kept, messages=[{"role": "user", "content": "something else"}])
    [bad] = await add(kept, {"answers": [{"completion_id": one}, {"completion_id": other}]})
    assert "they were given to different prompts" in bad["error"]["message"]


async def test_nobody_gets_nothing_and_an_empty_batch_is_none(kept: Service) -> None:
    status, reply = await kept.post("/v1/annotation/next", b"")
    assert (status, reply["error"]["param"]) == (400, "user")
    assert (await kept.post("/v1/annotation/next", {"user": "ann"}))[1]["error"]["code"] == "nothing_to_annotate"
    status, _ = await kept.post("/v1/annotation/items", b"\n", kept.state.operator_token())
    assert status == 400


async def test_what_its_person_erased_is_judged_by_nobody(kept: Service) -> None:
    """It goes from the queue with whatever was said of it, and cannot be added again."""
    completion = await asked(kept, conversation_id="private")
    await added(kept, completion_id=completion, people=2)
    held = await give(kept, "ann")
    assert held is not None
    async with kept.session.delete(f"{kept.url}/v1/conversations/private?user=asker") as response:
        assert response.status == 200
    assert await give(kept, "bob") is None
    assert await give(kept, "ann") is None
    assert (await progress(kept))["items"] == 0
    [refused] = await add(kept, {"completion_id": completion})
    assert refused["error"]["code"] == "erased"
    files = list(kept.state.annotation.glob(f"{FILE}*"))
    assert any(b"secret words" in path.read_bytes() for path in files), "in the journal, still"
    kept.chat.annotation.votes.tidy()
    assert not any(b"secret words" in path.read_bytes() for path in files)


async def test_a_restart_changes_nothing_and_a_lost_database_loses_no_vote(tmp_path: Path) -> None:
    with LocalLog(tmp_path / "state" / "log") as log:
        async with running(tmp_path, log=log) as service:
            one, other = await asked(service, n=2), await asked(service, n=2)
            lines = [{"item_id": name, "completion_id": each} for name, each in (("one", one), ("other", other))]
            await add(service, *lines)
            first = await give(service, "ann")
            assert first is not None
            await judge(service, first, "ann", 1, 0)
            held = await give(service, "ann")
            assert held is not None
        async with running(tmp_path, log=log) as service:
            assert await give(service, "bob") is None
            again = await give(service, "ann")
            assert again is not None and again["answers"] == held["answers"]
            assert (await progress(service))["finished"] == 1
        for path in service.state.annotation.iterdir():
            path.unlink()
        async with running(tmp_path, log=log) as service:
            assert (await progress(service))["items"] == 0
            await add(service, *lines)
            assert (await progress(service))["finished"] == 1
            item = await give(service, "ann")
            assert item is not None and item["item_id"] == "other"


async def test_how_far_people_agree(kept: Service) -> None:
    """Of three people on three answers one turns two of them round: α as in tests/feedback/test_agreement.py."""
    await added(kept, item_id="three", completion_id=await asked(kept, n=3), people=3)
    await added(kept, item_id="one", completion_id=await asked(kept), people=3)
    assert (await progress(kept))["rankings"] == {"alpha": None, "interval": None, "units": 0}
    for person, order, up in (("a", (0, 1, 2), 1), ("b", (0, 1, 2), 1), ("c", (1, 0, 2), 0)):
        for said in (order, (up,)):
            item = await give(kept, person)
            assert item is not None
            await judge(kept, item, person, *said)
    found = await progress(kept)
    assert found["rankings"] == {"alpha": round(1 - 17 * 2 / 81, 4), "interval": None, "units": 3}
    # One unit, (1, 1, 0): o(0, 1) = 2 · 1 / 2, n = 3, one 0 and two 1.
    assert found["thumbs"] == {"alpha": 1 - (3 - 1) * 1 / (1 * 2), "interval": None, "units": 1}
    assert (found["annotations"], found["wanted"], found["finished"]) == (6, 6, 2)


async def test_how_sure_that_is(kept: Service) -> None:
    """Two people on four answers, who agree on three; one item alone says nothing of how far items differ."""
    said = {"1": (1, 1), "2": (1, 1), "3": (0, 0), "4": (1, 0)}
    for item_id in said:
        await added(kept, item_id=item_id, completion_id=await asked(kept), people=2)
    for number, person in enumerate("ab"):
        while item := await give(kept, person):
            await judge(kept, item, person, said[item["item_id"]][number])
    found = (await progress(kept))["thumbs"]
    low, high = interval([[ups] for ups in said.values()], "nominal") or (0, 0)
    assert found["interval"] == [round(low, 4), round(high, 4)]
    assert low < found["alpha"] < high
    assert found["units"] == 4


async def test_guidelines_are_those_of_the_file_as_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "how.md"
    path.write_text("# Be fair")
    async with running(tmp_path, annotation_guidelines=str(path)) as service:
        assert await service.get("/v1/annotation/guidelines") == (200, {"text": "# Be fair", "markdown": True})
        path.write_text("# Be fairer")
        assert (await service.get("/v1/annotation/guidelines"))[1]["text"] == "# Be fairer"
        path.unlink()
        assert (await service.get("/v1/annotation/guidelines"))[1]["text"] == "# Be fairer"


@pytest.mark.parametrize(
    ("content", "said"), [(None, "No such file"), (b"\xff", "no UTF-8"), (b"x" * (MAX_BYTES + 1), "at most")]
)
def test_guidelines_that_cannot_be_shown_are_refused_at_the_start(
    tmp_path: Path, content: bytes | None, said: str
) -> None:
    path = tmp_path / "how.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=f"annotation_guidelines: .*{said}"):
        GuidelinesFile(path)


async def test_a_critics_notes_stand_beside_the_answers_for_those_who_are_to_see_them(kept: Service) -> None:
    completion = await asked(kept)
    name = {"completion_id": completion, "index": 0}
    note = {"answer": name, "quote": "hello", "fault": "It greets nobody by name."}
    await added(kept, completion_id=completion, people=20, notes=[note])
    said = set()
    for number in range(12):
        item = await give(kept, f"person {number}")
        assert item is not None and item["notes"] in ([note], [])
        check(item, "AnnotationItem")
        await judge(kept, item, f"person {number}", 1)
        said.add((bool(item["notes"]), kept.logged(Feedback)[-1].notes))
    assert said == {(True, "shown"), (False, "withheld")}
    for wrong in ({"quote": "goodbye"}, {"answer": name | {"index": 1}}):
        [result] = await add(kept, {"completion_id": completion, "notes": [note | wrong]})
        assert "notes[0]" in result["error"]["message"]
    [result] = await add(kept, {"unvoted": 3, "notes": [note]})
    assert "answers that were logged" in result["error"]["message"]
