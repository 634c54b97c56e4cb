"""Words planted in what people say, searched for in every byte of a folder, also as encodings would hide them."""

import base64
from collections.abc import Iterable, Sequence
from pathlib import Path


def forms(word: str, token_ids: Sequence[int] = ()) -> list[bytes]:
    """As it may stand in a file: plain, as UTF-16, in each alignment of base64, and its tokens in JSON and protobuf."""
    plain = word.encode()
    found = [plain, word.encode("utf-16-le")]
    for shift in range(3):
        encoded = base64.b64encode(b"." * shift + plain)
        found.append(encoded[4 * (shift > 0) : len(encoded) - 4])
    if token_ids:
        found += [
            ", ".join(map(str, token_ids)).encode(),
            ",".join(map(str, token_ids)).encode(),
            b"".join(map(_varint, token_ids)),
        ]
    return found


def holding(folder: Path, patterns: Iterable[bytes]) -> list[str]:
    """The files below the folder that hold one of them."""
    wanted = list(patterns)
    assert all(len(each) >= 6 for each in wanted), "what is shorter is found by chance"
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return [str(path.relative_to(folder)) for path in files if any(each in path.read_bytes() for each in wanted)]


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])
