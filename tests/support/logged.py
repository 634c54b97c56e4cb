"""Events as the chat service logs them, made up for tests."""

import uuid
from collections.abc import Sequence
from pathlib import Path

from rlhf_online import events as ev
from rlhf_online.eventlog.local import LocalLog
from rlhf_online.state import StateDir
from rlhf_online.wire import encode


def completion(
    name: str,
    *,
    prompt: Sequence[int] = (1, 2, 3),
    answers: Sequence[Sequence[int]] = ((5, 6), (7, 8)),
    at_ms: int = 1_000,
    conversation: str = "",
    person: str = "asker",
) -> ev.Envelope:
    """A completion called `name`, whose answers have these token ids, by default of a conversation of its own."""
    event = ev.Completion(
        completion_id=name,
        conversation_id=conversation or f"talk {name}",
        person=person,
        messages=(ev.Message(role="user", content="hello"),),
        prompt_token_ids=tuple(prompt),
        answers=tuple(
            ev.Answer(
                index=index,
                text=" ".join(str(token) for token in tokens),
                token_ids=tuple(tokens),
                logprobs=(-0.5,) * len(tokens),
                spans=(ev.VersionSpan(policy_version="policy-000001", first_token=0),),
                finish_reason="stop",
            )
            for index, tokens in enumerate(answers)
        ),
        sampling=ev.Sampling(),
        started_ms=at_ms - 1,
        finished_ms=at_ms,
    )
    return ev.Envelope(event_id=name, event=event)


def ref(name: str, index: int = 0) -> ev.AnswerRef:
    return ev.AnswerRef(completion_id=name, index=index)


def feedback(
    kind: ev.FeedbackKind,
    *,
    event_id: str = "",
    at_ms: int = 2_000,
    shown: Sequence[ev.AnswerRef] = (),
    conversation: str = "talk",
    objective: str = "",
) -> ev.Envelope:
    """A feedback of that kind; without an id it gets a random one."""
    event = ev.Feedback(
        conversation_id=conversation,
        person="rater",
        kind=kind,
        shown=tuple(shown),
        created_ms=at_ms,
        objective=objective,
    )
    return ev.Envelope(event_id=event_id or str(uuid.uuid4()), event=event)


def erasure(conversation: str, *, person: str = "asker", at_ms: int = 5_000) -> ev.Envelope:
    """That person erases their conversation."""
    event = ev.Erasure(conversation_id=conversation, person=person, erased_ms=at_ms)
    return ev.Envelope(event_id=f"erasure of {conversation} by {person} at {at_ms}", event=event)


def thumb(name: str, *, index: int = 0, up: bool = True, event_id: str = "", at_ms: int = 2_000) -> ev.Envelope:
    return feedback(ev.Thumb(answer=ref(name, index), up=up), event_id=event_id, at_ms=at_ms)


def two_answers(state: Path) -> Path:
    """`state`, a state folder whose log holds one question, what a metal is, with a long and a short answer."""
    texts = ("zinc, which is a metal", "zinc")
    answers = tuple(
        ev.Answer(index=i, text=text, token_ids=(1,), logprobs=(-1.0,), spans=(), finish_reason="stop")
        for i, text in enumerate(texts)
    )
    asked = ev.Completion(
        completion_id="c", conversation_id="talk", person="ann",
        messages=(ev.Message(role="user", content="a metal?"),), prompt_token_ids=(1,), answers=answers,
        sampling=ev.Sampling(), started_ms=1, finished_ms=2,
    )  # fmt: skip
    with LocalLog(StateDir(state).log) as log:
        log.append(encode(ev.Envelope(event_id="e", event=asked))).result(10)
    return state
