"""Operators add items: answers that were logged, answers that are written for it, and what nobody has voted on."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any

from rlhf_online.errors import EngineError, LogError, ReadModelUnavailable
from rlhf_online.events import AnswerRef
from services.chat.access.caller import Caller
from services.chat.annotation.exchanges import Exchange, exchange
from services.chat.annotation.items import AddedBatch, AddedItems, AddItem, ItemNote
from services.chat.annotation.queue import Erased, Item, OtherItem, Queue, made_of
from services.chat.annotation.votes import QueueVotes
from services.chat.bodies.api_error import ApiError, as_api_error, unavailable
from services.chat.bodies.validation import validate
from services.chat.comparisons.replies import ComparedAnswer
from services.chat.comparisons.request import MOST
from services.chat.comparisons.service import Comparisons
from services.chat.feedback.batch import MAX_VOTES as MAX_LINES
from services.chat.feedback.batch import Item as Line
from services.chat.feedback.history import VoteHistory

Prepared = tuple[AddItem, list[AnswerRef]]
"""A line, and the answers that it names or that were written for it; none for an item that is there already."""
AT_ONCE = 4
"""Items whose answers are written at the same time: people are answered beside them."""
PAGE = 128
"""Completions that are read at once, to find some that nobody voted on."""
PAGES = 200


class Adding:
    """Makes items of `history`, which knows the log, and of `comparisons`, which ask the engine.

    They go into `queue`, which `votes` keeps up with the log.
    """

    def __init__(self, queue: Queue, votes: QueueVotes, history: VoteHistory, comparisons: Comparisons) -> None:
        self.queue = queue
        self.votes = votes
        self._history = history
        self._comparisons = comparisons

    async def add_all(self, lines: Sequence[Line], caller: Caller) -> AddedBatch:
        """Each line is taken or refused by itself. Raises ApiError for a batch that is none."""
        if not lines:
            raise ApiError("the batch is empty: send one item a line", code="missing_parameter")
        if len(lines) > MAX_LINES:
            message = f"{len(lines)} lines, at most {MAX_LINES} are taken at once; none of them was"
            raise ApiError(message, status=413, code="batch_too_large")
        await asyncio.to_thread(self.votes.catch_up)
        writers = asyncio.Semaphore(AT_ONCE)
        tasks = [asyncio.create_task(self._prepared(line, caller, writers)) for line in lines]
        try:
            return {"results": [await self._added(task) for task in tasks]}
        finally:
            for task in tasks:
                task.cancel()

    async def _added(self, task: "asyncio.Task[Prepared]") -> AddedItems:
        """In the order of the lines, which is that of the queue, however long their answers take."""
        try:
            asked, refs = await task
            return {"item_ids": await asyncio.to_thread(self._keep, asked, refs)}
        except (ApiError, EngineError, LogError, ReadModelUnavailable) as error:
            return {"error": as_api_error(error).body()["error"]}

    async def _prepared(self, line: Line, caller: Caller, writers: asyncio.Semaphore) -> Prepared:
        """What the line asks for, and its answers, which may have to be written. Raises RlhfError."""
        if isinstance(line, ApiError):
            raise line
        asked = validate(AddItem, line)
        if asked.compare is None:
            return asked, self._named(asked)
        if asked.item_id and await asyncio.to_thread(self.queue.wanted, asked.item_id, asked.people):
            return asked, []
        async with writers:
            return asked, await self._written(line["compare"], caller)

    async def _written(self, values: Mapping[str, Any], caller: Caller) -> list[AnswerRef]:
        request = self._comparisons.parse(values)
        made = await self._comparisons.whole(request, values, caller)
        if not made["logged"]:
            raise unavailable("the answers were written and not logged; add the item again", "log_unavailable")
        return [AnswerRef(**answer["answer"]) for answer in made["answers"]]

    def _named(self, asked: AddItem) -> list[AnswerRef]:
        if asked.comparison_id:
            known = self._comparisons.known.find(asked.comparison_id)
            if known is None:
                message = f"comparison_id: {asked.comparison_id!r} is not known, or too long ago: name its `answers`"
                raise ApiError(message, status=404, param="comparison_id", code="comparison_not_found")
            return list(known.refs())
        return [answer.event() for answer in asked.answers]

    def _keep(self, asked: AddItem, refs: Sequence[AnswerRef]) -> list[str]:
        """Raises ApiError."""
        if asked.compare is not None and not refs:
            return [asked.item_id]
        if asked.unvoted:
            return self._keep_unvoted(asked, asked.unvoted)
        found = self._read({ref.completion_id for ref in refs})
        source = "answers" if asked.answers else "comparison_id" if asked.comparison_id else "compare"
        if asked.completion_id:
            source, found = "completion_id", self._read({asked.completion_id})
            refs = [
                AnswerRef(completion_id=asked.completion_id, index=index)
                for one in found.values()
                for index in one.answers
            ]
            if len(refs) > MOST:
                message = f"completion_id: it has {len(refs)} answers, and an item at most {MOST}: name some `answers`"
                raise ApiError(message, param=source, code="invalid_value")
        answers = [_answer(found, ref, source) for ref in refs or [AnswerRef(completion_id=asked.completion_id)]]
        if len({one.prompt for one in found.values()}) > 1:
            message = f"{source}: they were given to different prompts; an item holds answers to one"
            raise ApiError(message, param=source, code="invalid_value")
        try:
            return [self._put(asked, answers, list(found.values()), _notes(asked, answers))]
        except Erased:
            message = f"{source}: the conversation was erased by whose it was"
            raise ApiError(message, status=404, param=source, code="erased") from None
        except OtherItem:
            message = f"item_id: {asked.item_id} is the name of an item with other answers; choose another name"
            raise ApiError(message, status=409, type="conflict_error", param="item_id", code="item_id_reused") from None

    def _keep_unvoted(self, asked: AddItem, wanted: int) -> list[str]:
        """Answers that were shown side by side are left to their comparison, and empty ones to nobody."""
        kept: list[str] = []
        before = ""
        for _ in range(PAGES):
            if len(kept) == wanted or not (page := self._history.unvoted(before, PAGE)):
                break
            before, found = page[-1], self._read(page)
            for one in filter(None, map(found.get, page)):
                shown = list(one.answers.values())
                if len(kept) == wanted or one.compared or len(shown) > MOST or not all(each["text"] for each in shown):
                    continue
                with suppress(Erased):
                    kept.append(self._put(asked, shown, [one]))
        return kept

    def _read(self, completions: Collection[str]) -> dict[str, Exchange]:
        return {completion.completion_id: exchange(completion) for completion in self._history.exchanges(completions)}

    def _put(
        self,
        asked: AddItem,
        answers: list[ComparedAnswer],
        stems_from: Sequence[Exchange],
        notes: Sequence[ItemNote] = (),
    ) -> str:
        item = Item(
            item_id=asked.item_id or made_of(answers),
            people=asked.people,
            messages=stems_from[0].messages,
            answers=answers,
            notes=notes,
            origins=frozenset((one.origin, one.asked_ms) for one in stems_from if one.origin),
            tells=any(self._comparisons.known.names_itself(f"{a['reasoning']} {a['text']}") for a in answers),
        )
        self.queue.add(item)
        return item.item_id


def _notes(asked: AddItem, answers: Sequence[ComparedAnswer]) -> list[ItemNote]:
    """Raises ApiError for a note on another answer, or on words that its answer does not hold."""
    texts = {(each["answer"]["completion_id"], each["answer"]["index"]): each["text"] for each in answers}
    for number, note in enumerate(asked.notes):
        if note.quote not in texts.get((note.answer.completion_id, note.answer.index), ""):
            message = f"notes[{number}]: the item has no such answer, or the answer does not hold the words in `quote`"
            raise ApiError(message, param=f"notes[{number}]", code="invalid_value")
    return [
        ItemNote(
            answer={"completion_id": note.answer.completion_id, "index": note.answer.index},
            quote=note.quote,
            fault=note.fault,
        )
        for note in asked.notes
    ]


def _answer(found: Mapping[str, Exchange], ref: AnswerRef, param: str) -> ComparedAnswer:
    """What is shown of an answer. Raises ApiError: 404."""
    one = found.get(ref.completion_id)
    answer = one.answers.get(ref.index) if one else None
    if answer is None:
        which = f"{ref.completion_id!r}" if one is None else f"answer {ref.index} of {ref.completion_id!r}"
        message = f"{param}: the log of this service holds no {which}"
        raise ApiError(message, status=404, param=param, code="answer_not_found")
    return answer
