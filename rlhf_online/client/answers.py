"""How an answer is named, whichever client received it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rlhf_online.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of a completion: the first, unless `index` says otherwise."""

    completion_id: str
    index: int = 0

    def body(self) -> dict[str, Any]:
        return asdict(self)


def named(answer: Any) -> Answer:
    """The name of `answer`: an `Answer`, a completion's id, or what a client returned: an object of OpenAI's client or
    of one like it, a message of LangChain's, a dictionary. Raises InvalidInput for what has no id."""
    match answer:
        case Answer():
            return answer
        case str():
            found: object = answer
        case Mapping():
            found = answer.get("id")
        case _:
            found = getattr(answer, "response_metadata", {}).get("id") or getattr(answer, "id", None)
    if not isinstance(found, str) or not found:
        raise InvalidInput(
            f"a {type(answer).__name__} names no answer: give a completion, its id, or Answer(id, index)"
        )
    return Answer(found)
