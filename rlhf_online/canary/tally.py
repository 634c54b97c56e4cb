"""What the log says of a canary: people's votes for the test, and how its answers fare for the guardrails. Pure.

Votes that count are thumbs on answers of either version, and comparisons of one with the other that were shown blind by
the service: a vote that could know who wrote what does not count, nor does an order that a client put together itself.
Of the guardrails' shares each conversation (of thumbs, each person) counts once, with its mean, as in `people`.
"""

from collections.abc import Mapping
from typing import Any, Self

from rlhf_online.canary.people import Once, People, Side
from rlhf_online.events import Answer, AnswerRef, Completion, Erasure, Feedback, Pairwise, Ranking, Thumb

BY_STEP = ("aborted", "empty", "slow")
GUARDS = (*BY_STEP, "thumbs_down")
ANSWERS_A_LOOK = 10


class Tally:
    """Of `version` against `live`; of none while `version` is empty.

    `answers` are those of the canary since `since_ms`, when its step began, and so are the guardrails' shares of them:
    what breaks only under more load would be outweighed by how the steps before went.
    """

    def __init__(self, version: str = "", live: str = "") -> None:
        self.version = version
        self.live = live
        self.people = People()
        self.guards = {name: Once() for name in GUARDS}
        self.votes = 0
        self.answers = 0
        self.since_ms = 0
        self._answered = 0

    def step(self, since_ms: int) -> None:
        """The canary's step is the one that began then."""
        if since_ms != self.since_ms:
            self.since_ms, self.answers, self._answered = since_ms, 0, 0
            self.guards.update({name: Once() for name in BY_STEP})

    def add_completion(self, completion: Completion, slow_s: float) -> None:
        """Take in what was asked and answered."""
        key = completion.conversation_id
        for answer in completion.answers:
            if self._side(answer) != "candidate":
                continue
            about = _about(completion, answer)
            held = answer.text.strip() or answer.reasoning or answer.tool_calls
            took_s = (completion.finished_ms - completion.started_ms) / 1000
            self.guards["aborted"].add(key, about, float(answer.finish_reason == "abort"))
            self.guards["empty"].add(key, about, float(not held and answer.finish_reason != "abort"))
            self.guards["slow"].add(key, about, float(took_s > slow_s))
            self.answers += completion.finished_ms >= self.since_ms
            self._answered += 1
            if self._answered % ANSWERS_A_LOOK == 0:
                for name in ("aborted", "empty", "slow"):
                    self.guards[name].look()

    def add_vote(self, feedback: Feedback, answers: Mapping[AnswerRef, tuple[Completion, Answer]], look: int) -> None:
        """Take in a person's vote with the answers that it judges; people are counted after every `look` that count."""
        if feedback.by_ai:
            return
        person = _person(feedback)
        match feedback.kind:
            case Thumb(answer=ref, up=up):
                completion, answer = answers[ref]
                if (side := self._side(answer)) is None:
                    return
                self.people.rate(person, _about(completion, answer), side, up=up)
                if side == "candidate":
                    self.guards["thumbs_down"].add(person, _about(completion, answer), float(not up))
            case Pairwise() | Ranking() if feedback.comparison_id and not feedback.could_know:
                if (value := self._value(feedback.kind, answers)) is None:
                    return
                about = " ".join(sorted(_about(*answers[ref]) for ref in feedback.answers()))
                self.people.compare(person, about, value)
            case _:
                return
        self.votes += 1
        if self.votes % look == 0:
            self.people.look()
            self.guards["thumbs_down"].look()

    def withdraw(self, feedback: Feedback) -> None:
        """A person took back what they said of an answer: it goes, unless they are counted."""
        for ref in feedback.answers():
            self.people.forget(_person(feedback), _name(ref))
            self.guards["thumbs_down"].forget(_person(feedback), _name(ref))

    def erase(self, erasure: Erasure) -> None:
        """A person erased a conversation, or all of them: what they said there goes, unless they are counted."""
        where = "" if erasure.whole else _place(erasure.conversation_id)
        self.people.forget(erasure.person, where)
        self.guards["thumbs_down"].forget(erasure.person, where)

    def _side(self, answer: Answer) -> Side | None:
        """Whose answer it is, if it is wholly of either."""
        sides: dict[str, Side] = {self.version: "candidate", self.live: "live"} if self.version else {}
        return sides.get(answer.sole_version)

    def _value(self, kind: Pairwise | Ranking, answers: Mapping[AnswerRef, tuple[Completion, Answer]]) -> float | None:
        """The share of the pairs of both versions' answers in which the candidate's is better; None without such."""
        ranks = kind.ranks()
        upon, against = (
            [rank for ref, rank in ranks.items() if self._side(answers[ref][1]) == side]
            for side in ("candidate", "live")
        )
        pairs = [0.5 if a == b else float(a < b) for a in upon for b in against]
        return sum(pairs) / len(pairs) if pairs else None

    def to_json(self) -> dict[str, Any]:
        """What `from_json` takes."""
        return {
            "version": self.version,
            "live": self.live,
            "people": self.people.to_json(),
            "guards": {name: once.to_json() for name, once in self.guards.items()},
            "votes": self.votes,
            "answers": self.answers,
            "since_ms": self.since_ms,
            "answered": self._answered,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        tally = cls(values["version"], values["live"])
        tally.people = People.from_json(values["people"])
        tally.guards = {name: Once.from_json(values["guards"][name]) for name in GUARDS}
        tally.votes, tally.answers = values["votes"], values["answers"]
        tally.since_ms, tally._answered = values["since_ms"], values["answered"]
        return tally


def _person(feedback: Feedback) -> str:
    return feedback.person or f"nobody in {feedback.conversation_id}"


def _place(conversation_id: str) -> str:
    return f"in {len(conversation_id)} {conversation_id} "


def _name(ref: AnswerRef) -> str:
    return f"answer {ref.completion_id}/{ref.index};"


def _about(completion: Completion, answer: Answer) -> str:
    ref = AnswerRef(completion_id=completion.completion_id, index=answer.index)
    return _place(completion.conversation_id) + _name(ref)
