"""Values of checkpoints and reports that hold what people wrote: sealed for whose words they are.

An object whose "owners" names people is sealed with their keys together, and with that of the "person" who says
something of their words, if it names one; what stays readable of it are its CLEAR names. Once one of these keys is
deleted it is read as those names and `"shredded": true`, which `is_shredded` tells. Words of people who have no key
(what was said before there was a key store) stay as they are.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rlhf_online.errors import KeysUnavailable, UndecodableEvent

if TYPE_CHECKING:
    from rlhf_online.keystore.keyring import Keyring

CLEAR = ("owners", "event_id", "person", "origin")


def seal(values: Any, keys: "Keyring | None") -> Any:
    """The values with every object that has owners sealed. Raises KeysUnavailable."""
    if keys is None:
        return values
    match values:
        case {"owners": [*_]} if whose := _whose(values):
            return _sealed(values, whose, keys)
        case dict():
            return {name: seal(value, keys) for name, value in values.items()}
        case [dict() | list() | tuple(), *_]:
            return [seal(value, keys) for value in values]
    return values


def open_all(values: Any, keys: "Keyring | None") -> Any:
    """What `seal` sealed. Raises KeysUnavailable; UndecodableEvent for what is damaged."""
    match values:
        case {"sealed": str(), "keys": dict()}:
            return _opened(values, keys)
        case dict():
            return {name: open_all(value, keys) for name, value in values.items()}
        case [dict() | list(), *_]:
            return [open_all(value, keys) for value in values]
    return values


def is_shredded(values: Mapping[str, Any]) -> bool:
    """Whether the key of one of its owners was deleted, so that nothing is left but the CLEAR names."""
    return bool(values.get("shredded"))


def _whose(values: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys(filter(None, (*values["owners"], values.get("person")))))


def _sealed(values: Mapping[str, Any], whose: Sequence[str], keys: "Keyring") -> dict[str, Any]:
    clear = {name: values[name] for name in CLEAR if name in values}
    if is_shredded(values) or any(keys.erased(each) for each in whose):
        return {**clear, "shredded": True}
    found = {each: key for each in whose if (key := keys.current(each, make=False)) is not None}
    if not found:
        return dict(values)
    rest = json.dumps({name: value for name, value in values.items() if name not in clear})
    sealed = keys.together(list(found.values())).seal(rest.encode(), _about(clear))
    ids = {each: key.id for each, key in found.items()}
    return {**clear, "keys": ids, "sealed": base64.b64encode(sealed).decode()}


def _opened(values: Mapping[str, Any], keys: "Keyring | None") -> dict[str, Any]:
    clear = {name: values[name] for name in CLEAR if name in values}
    if keys is None:
        raise KeysUnavailable("it holds what people said, which is sealed: set keystore.url to the key store again")
    found = [keys.find(each, key_id) for each, key_id in values["keys"].items()]
    whole = [key for key in found if key is not None]
    if len(whole) < len(found):
        return {**clear, "shredded": True}
    rest = keys.together(whole).open(base64.b64decode(values["sealed"]), _about(clear))
    try:
        return {**clear, **json.loads(rest)}
    except ValueError as error:
        raise UndecodableEvent(f"what was sealed is no JSON: {error}") from error


def _about(clear: Mapping[str, Any]) -> bytes:
    return json.dumps(clear, sort_keys=True).encode()
