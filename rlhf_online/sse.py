"""Server-sent events as OpenAI's API sends them: one `data:` line of JSON an event, `[DONE]` at the end."""

DONE = b"[DONE]"


class EventParser:
    """Finds the data of each event in a stream that arrives in pieces, cut anywhere.

    Lines without `data:` (comments, event names, ids) are passed over.
    """

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, piece: bytes) -> list[bytes]:
        """The data of the events whose line ends in this piece, in order."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        return [line[5:].strip() for line in lines if line.startswith(b"data:")]
