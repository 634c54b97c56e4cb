"""Messages and texts → token ids. A pair is (prompt ids, answer ids), which a model reads one after the other.

Invariants: an answer is never cut; a prompt that does not fit into the context loses its oldest tokens.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from transformers import AutoTokenizer

from rlhf_online.errors import InvalidInput
from rlhf_online.events import Message
from rlhf_online.models.chat_template import ChatTemplate, Turn, text_of

Pair = tuple[Sequence[int], Sequence[int]]


class ChatTokenizer:
    """The tokenizer and chat template in a model's folder, as the engine uses them.

    `eos_ids` end an answer: first what is taught as the end, which is the token that the template puts after an
    assistant's turn (the tokenizer's end of sequence where it puts none), then the others at which the engine stops.
    """

    def __init__(self, model_dir: Path) -> None:
        if not (model_dir / "config.json").is_file():
            raise InvalidInput(f"{model_dir} holds no model (no config.json): give the folder of a model")
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(model_dir, local_files_only=True, trust_remote_code=False)
        except (OSError, ValueError) as error:
            raise InvalidInput(f"the tokenizer in {model_dir} cannot be read: {error}") from error
        self.template = ChatTemplate(self._tokenizer)
        self.stop_ids = _stop_ids(model_dir, self._tokenizer.eos_token_id)
        """The ends of an answer that the engine knows, from the folder's files."""
        self.turn_end = self._turn_end()
        """The template's own end of an assistant's turn; None where it has none, or shows no such turns."""
        first = () if self.turn_end is None else (self.turn_end,)
        self.eos_ids: tuple[int, ...] = tuple(dict.fromkeys((*first, *self.stop_ids)))
        if not self.eos_ids:
            raise InvalidInput(
                f"{model_dir} names no end-of-sequence token: set eos_token_id in generation_config.json"
            )
        pad_id = self._tokenizer.pad_token_id
        self.pad_id: int = self.eos_ids[0] if pad_id is None else pad_id

    def prompt_ids(self, messages: Sequence[Message | Turn], tools: Sequence[Turn] = ()) -> tuple[int, ...]:
        """The conversation in the model's chat template, up to where the answer begins, as the engine renders it.

        Raises InvalidInput for messages that the template refuses.
        """
        return self._ids(self.template.prompt([_turn(message) for message in messages], tools))

    def answer_ids(self, text: str) -> tuple[int, ...]:
        """The tokens of an answer, with the end of the turn."""
        return (*self._ids(text), self.eos_ids[0])

    def call_ids(self, messages: Sequence[Turn], answer: Turn, tools: Sequence[Turn] = ()) -> tuple[int, ...]:
        """The tokens of an answer that calls tools, as the chat template writes it, with the end of the turn.

        Raises InvalidInput if the template refuses the messages, or does not write the calls.
        """
        text = self.template.answer(messages, answer, tools)
        if missing := [name for call in answer["tool_calls"] if (name := call["function"]["name"]) not in text]:
            raise InvalidInput(
                f"the model's chat template does not write a call of {missing[0]!r}: choose a model for tools"
            )
        ids = self._ids(text)
        ends = [place for place, token in enumerate(ids) if token in self.eos_ids]
        return ids[: ends[-1] + 1] if ends else (*ids, self.eos_ids[0])

    def edited(self, prompt_ids: Sequence[int], change: Callable[[str], str]) -> tuple[int, ...] | None:
        """The prompt with its text changed, its template's marks included; None where the text as it is does not give
        the same tokens back."""
        text = str(self._tokenizer.decode(list(prompt_ids), skip_special_tokens=False))
        return self._ids(change(text)) if self._ids(text) == tuple(prompt_ids) else None

    def wrote(self, prompt_ids: Sequence[int], messages: Sequence[Turn]) -> bool:
        """Whether these tokens, which an engine was given for the messages, are of this tokenizer: it reads the last
        thing that the user said in them."""
        said = next((text_of(turn["content"]) for turn in reversed(messages) if turn["role"] == "user"), "")
        known = 0 <= max(prompt_ids, default=-1) < len(self._tokenizer)
        return known and self._read(self._ids(said.strip())) in self._read(prompt_ids)

    def _read(self, ids: Sequence[int]) -> str:
        """The text without its white space."""
        return "".join(self.decode(ids).split())

    def _ids(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    @property
    def has_template(self) -> bool:
        return bool(self._tokenizer.chat_template)

    @property
    def vocabulary(self) -> Mapping[str, int]:
        """The id of every token, special ones included."""
        return self._tokenizer.get_vocab()

    def added(self, token_id: int) -> bool:
        """Whether the token was added to the tokenizer's own vocabulary: text alone never gives it."""
        return token_id in self._tokenizer.added_tokens_decoder

    def token(self, token_id: int) -> str:
        """What stands for a token in a text."""
        return str(self._tokenizer.convert_ids_to_tokens(token_id))

    def _turn_end(self) -> int | None:
        """The first token after an assistant's answer that is no text: one that was added, or an end that is known."""
        try:
            after = self.template.after_answer() if self.has_template else None
        except InvalidInput:  # prompts are refused for the same reason, where somebody asks for them
            return None
        ids = self._ids(after or "")
        return next((token for token in ids if token in self.stop_ids or self.added(token)), None)

    @property
    def digest(self) -> str:
        """SHA-256 of how text becomes tokens: equal for tokenizers that give every text the same ids."""
        values = json.loads(self._tokenizer.backend_tokenizer.to_str())
        how = {name: value for name, value in values.items() if name not in ("truncation", "padding")}
        return hashlib.sha256(json.dumps(how, sort_keys=True).encode()).hexdigest()

    def decode(self, ids: Sequence[int]) -> str:
        """The text of tokens, special ones skipped."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))


def _turn(message: Message | Turn) -> Turn:
    return {"role": message.role, "content": message.content} if isinstance(message, Message) else message


def _stop_ids(model_dir: Path, tokenizer_eos: int | None) -> tuple[int, ...]:
    """The tokenizer's end of sequence first, then those of the generation settings (else the model's)."""
    found: list[int] = [] if tokenizer_eos is None else [tokenizer_eos]
    for name in ("generation_config.json", "config.json"):
        path = model_dir / name
        value = json.loads(path.read_text()).get("eos_token_id") if path.is_file() else None
        if value is not None:
            found += value if isinstance(value, list) else [value]
            break
    return tuple(dict.fromkeys(found))


def fit(pair: Pair, max_length: int) -> Pair:
    """The pair with its prompt cut from the left to `max_length` tokens together. Raises InvalidInput."""
    prompt, answer = pair
    room = max_length - len(answer)
    if room < 1 or len(prompt) < 1:
        raise InvalidInput(
            f"an answer of {len(answer)} tokens to a prompt of {len(prompt)} does not fit a context of {max_length}"
        )
    return prompt[-room:], answer


def length(pair: Pair) -> int:
    """Tokens of prompt and answer together."""
    return len(pair[0]) + len(pair[1])
