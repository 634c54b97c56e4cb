"""Votes from messages as a program holds them, without a log: the entry of the reward model's updater as a library.

    votes = to_votes(
        [
            {"prompt": [{"role": "user", "content": "Is fig a fruit?"}], "chosen": "Yes.", "rejected": "No."},
            {"prompt": "Name a tool.", "completion": "A saw.", "label": True},
            {"prompt": "Name a tool.", "tiers": [["A saw.", "A file."], ["A fig."]]},
        ],
        ChatTokenizer(model),
    )
    RewardUpdater(…).update(votes, held_out, [])

The first two are TRL's preference and unpaired preference. An answer is a text, or a list of one message of the
assistant's. `person`, `objective` and, for a pair, `strength` may stand beside.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from rlhf_online.errors import InvalidInput
from rlhf_online.feedback.votes import Candidate, Comparison, Rating, Vote

KINDS = {"chosen": "rejected", "completion": "label", "tiers": ""}
"""What an example is known by, and what it must have with it."""


class Tokenizer(Protocol):
    """`models.tokens.ChatTokenizer` is one."""

    def prompt_ids(self, messages: Sequence[Any]) -> tuple[int, ...]: ...

    def answer_ids(self, text: str) -> tuple[int, ...]: ...


def to_votes(examples: Iterable[Mapping[str, Any]], tokenizer: Tokenizer) -> list[Vote]:
    """A vote for each example, in their order: the same examples give the same votes, ids included.

    Examples of one prompt are one conversation, which is held out as a whole. Raises InvalidInput, naming the example.
    """
    votes: list[Vote] = []
    for number, example in enumerate(examples):
        try:
            votes.append(_vote(number, example, tokenizer))
        except InvalidInput as error:
            raise InvalidInput(f"example {number}: {error}") from error
    return votes


def _vote(number: int, example: Mapping[str, Any], tokenizer: Tokenizer) -> Vote:
    kind = next((name for name, other in KINDS.items() if name in example and (not other or other in example)), "")
    prompt = example.get("prompt")
    if not kind or not prompt:
        known = "'chosen' and 'rejected', or 'completion' and 'label', or 'tiers'"
        raise InvalidInput(f"expected a 'prompt' and {known}; it has {', '.join(map(repr, example)) or 'nothing'}")
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    ids = tokenizer.prompt_ids(messages)
    common: dict[str, Any] = {
        "event_id": f"example-{number}",
        "conversation_id": hashlib.blake2b(repr(ids).encode(), digest_size=16).hexdigest(),
        "person": example.get("person", ""),
        "prompt_token_ids": ids,
        "objective": example.get("objective", ""),
    }

    def candidate(answer: Any) -> Candidate:
        return Candidate(token_ids=tokenizer.answer_ids(_text(answer)))

    match kind:
        case "chosen":
            pair = (candidate(example["chosen"]), candidate(example["rejected"]))
            return Comparison(**common, candidates=pair, tiers=((0,), (1,)), strength=example.get("strength", 0))
        case "completion":
            return Rating(**common, candidate=candidate(example["completion"]), up=bool(example["label"]))
        case _:
            tiers, start = [], 0
            for tier in example["tiers"]:
                tiers.append(tuple(range(start, start + len(tier))))
                start += len(tier)
            if start < 2 or not all(tiers):
                raise InvalidInput("'tiers' must hold two answers or more, and no empty tier")
            candidates = tuple(candidate(answer) for tier in example["tiers"] for answer in tier)
            return Comparison(**common, candidates=candidates, tiers=tuple(tiers))


def _text(answer: Any) -> str:
    if isinstance(answer, list) and len(answer) == 1 and isinstance(answer[0], Mapping):
        answer = answer[0].get("content")
    if not isinstance(answer, str) or not answer.strip():
        raise InvalidInput("an answer must be a text, or a list of one message of the assistant's, and not empty")
    return answer
