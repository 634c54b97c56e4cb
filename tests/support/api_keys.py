"""Keys that a service can be started with: one of each role, some that do not hold, and a backend's."""

from datetime import UTC, datetime
from pathlib import Path

from rlhf_online import keys
from rlhf_online.keys import Key

_PAST = datetime(2026, 1, 2, tzinfo=UTC)
_MADE = {
    **{role: keys.make(f"owner of {role}", [role]) for role in ("chat", "feedback", "read", "operator")},
    "expired": keys.make("late", ["chat"], expires=_PAST),
    "revoked": keys.make("gone", ["chat"]),
    "backend": keys.make("shop", ["chat", "feedback"], signs=True),
    "another shop": keys.make("other shop", ["chat", "feedback"], signs=True),
}
ENTRIES: dict[str, Key] = {name: key for name, (key, _) in _MADE.items()}
ENTRIES["revoked"] = ENTRIES["revoked"].model_copy(update={"revoked": _PAST})
TOKENS: dict[str, str] = {name: token for name, (_, token) in _MADE.items()}
TOKENS |= {"unknown": keys.make("nobody", ["operator"])[1], "none": ""}
SECRETS: dict[str, str] = {name: key.signing_secret for name, key in ENTRIES.items()}


def write(folder: Path) -> Path:
    """The file of keys of a state folder."""
    path = folder / "keys.json"
    for key in ENTRIES.values():
        keys.add(path, key)
    return path
