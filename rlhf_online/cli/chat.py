"""`rlhf-online chat`: a conversation in the terminal, answers as they are written, thumbs with + and -."""

import sys
import uuid
from typing import Annotated, Any

import typer

from rlhf_online.cli.client import DEFAULT_STATE, Service, StateOption, UrlOption, connect
from rlhf_online.errors import RlhfError

HELP = "Type a message; + or - judges the last answer; /new begins another conversation; Ctrl-D ends."


def chat(
    message: Annotated[str, typer.Argument(help="What to say; without it a conversation begins.")] = "",
    url: UrlOption = "",
    state: StateOption = DEFAULT_STATE,
    user: Annotated[str, typer.Option(help="Your name; only a keyed hash of it is kept.")] = "",
    max_tokens: Annotated[
        int | None,
        typer.Option(min=1, help="Longest answer, in tokens; by default as long as the service lets one be."),
    ] = None,
    profile: Annotated[str, typer.Option(help="The audience whose adapter answers; by default nobody's.")] = "",
    temperature: Annotated[float, typer.Option(min=0.0, max=2.0, help="0 takes the likeliest words.")] = 1.0,
) -> None:
    """Chat in the terminal."""
    options: dict[str, Any] = {"temperature": temperature}
    options |= {"max_tokens": max_tokens} if max_tokens else {}
    options |= {name: value for name, value in (("user", user), ("profile", profile)) if value}
    with connect(url, state) as service:
        if message:
            Conversation(service, options).ask(message)
        else:
            _converse(service, options)


class Conversation:
    """Messages so far, and the answer that a thumb would judge."""

    def __init__(self, service: Service, options: dict[str, Any]) -> None:
        self._service = service
        self._options = options
        self._messages: list[dict[str, str]] = []
        self._id = f"cli-{uuid.uuid4().hex}"
        self._last = ""
        self._thumb: bool | None = None
        self._vote = ""
        """Event id of the thumb that stands for the last answer."""

    def ask(self, text: str) -> None:
        """Print the answer as it comes, then which weights wrote it. A failed question is not kept."""
        asked = [*self._messages, {"role": "user", "content": text}]
        body = {"messages": asked, "stream": True, "conversation_id": self._id, **self._options}
        parts: list[str] = []
        versions: list[str] = []
        for event in self._service.stream("/v1/chat/completions", body):
            for choice in event.get("choices", ()):
                piece = choice.get("delta", {}).get("content") or ""
                parts.append(piece)
                print(piece, end="", flush=True)
            if (meta := event.get("rlhf")) is not None:
                self._last, self._thumb, self._vote = meta["completion_id"], None, ""
                versions = [span["policy_version"] for spans in meta["versions"] for span in spans]
        print(f"\n[{' → '.join(dict.fromkeys(versions)) or 'unknown weights'} · {self._last}]")
        self._messages = [*asked, {"role": "assistant", "content": "".join(parts)}]

    def judge(self, up: bool) -> None:
        """Send a thumb for the last answer; another than the one before replaces it."""
        if not self._last:
            print("there is no answer to judge yet")
            return
        if up is self._thumb:
            print("noted already")
            return
        body = {"thumb": {"answer": {"completion_id": self._last}, "up": up}, "conversation_id": self._id}
        if "user" in self._options:
            body["user"] = self._options["user"]
        if self._vote:
            body["replaces"] = self._vote
        # A thumb that is repeated because its reply was lost is the same vote; each change of mind is another.
        key = f"{self._last}:{'up' if up else 'down'}:{self._vote}"
        reply = self._service.post("/v1/feedback", {**body, "source": "cli", "idempotency_key": key})
        self._thumb, self._vote = up, reply["event_id"]
        print("noted")


def _converse(service: Service, options: dict[str, Any]) -> None:
    """Do what each line says, until there are no more."""
    print(HELP)
    conversation = Conversation(service, options)
    while (line := _read()) is not None:
        try:
            match line:
                case "":
                    continue
                case "+" | "-":
                    conversation.judge(line == "+")
                case "/new":
                    conversation = Conversation(service, options)
                case _:
                    conversation.ask(line)
        except RlhfError as error:
            print(f"error: {error}", file=sys.stderr)


def _read() -> str | None:
    try:
        return input("> " if sys.stdin.isatty() else "").strip()
    except EOFError:
        return None
