"""The rules in force: a record in the store of versions, with the text as the operator wrote it.

    reward-rules    {"rules": TOML of `rewards.rules.ruleset`}; "" or no record: no rules

It lies beside the weights of the objectives, and for the same reason (`rewards.weights`). The reward service reads it
every moment, for callers that name no weights; the trainer reads it once a cycle and sends what it read with every
request, so that all scores of a policy update are by one set. A record that is damaged is refused: the reward service
goes on with the rules that it read last, the trainer waits, and `rlhf-online rules apply` writes it anew.
"""

import json
import tomllib

from rlhf_online.errors import FileDamaged, InvalidInput
from rlhf_online.rewards.rules.ruleset import NONE, PREFIX, Rules, parse
from rlhf_online.versions.store import VersionStore

KEY = "reward-rules"
REMEDY = "put rules in force with `rlhf-online rules apply`"


def read(store: VersionStore) -> Rules:
    """The rules in force. Raises InvalidInput for a record that holds none that can be read, OSError."""
    text = _text(store)
    return parse(text, store.place(KEY)) if text else NONE


def objectives(store: VersionStore) -> list[str]:
    """Those that the rules in force are, without looking at what they say. Raises InvalidInput, OSError."""
    try:
        found = tomllib.loads(_text(store)).get("rules", {})
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput(f"{store.place(KEY)} holds no TOML ({error}): {REMEDY}") from error
    return [PREFIX + name for name in found] if isinstance(found, dict) else []


def apply(store: VersionStore, rules: Rules) -> bool:
    """Put the rules in force; False if they are. Raises OSError, FileDamaged for a record that is not permitted."""
    value = json.dumps({"rules": rules.text})
    while True:
        recorded = store.read(KEY)
        if recorded == value or (recorded is None and not rules.text):
            return False
        if store.replace(KEY, value, expected=recorded):
            return True


def _text(store: VersionStore) -> str:
    """Raises InvalidInput, OSError."""
    try:
        recorded = store.read(KEY)
        values = {"rules": ""} if recorded is None else json.loads(recorded)
    except FileDamaged as error:
        raise InvalidInput(str(error)) from error
    except ValueError as error:
        raise InvalidInput(f"{store.place(KEY)} holds no JSON ({error}): {REMEDY}") from error
    if not isinstance(values, dict) or not isinstance(values.get("rules"), str):
        raise InvalidInput(f"{store.place(KEY)} must hold the text of the rules: {REMEDY}")
    return values["rules"]
