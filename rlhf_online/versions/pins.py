"""Versions that keep their weights whatever becomes of them: an operator's choice, one record in the store.

    pins    ["policy-000012", …]

A record that is damaged keeps all weights of all versions until pins are set anew: what it named cannot be known.
"""

import json

from rlhf_online.errors import FileDamaged, UnknownVersion
from rlhf_online.versions.store import VersionStore

KEY = "pins"


def read(store: VersionStore) -> list[str]:
    """The versions that are pinned, in their order. Raises FileDamaged, OSError."""
    return _parsed(store, store.read(KEY))


def pin(store: VersionStore, version: str) -> None:
    """From now on its weights are kept. Raises UnknownVersion, OSError; a damaged record is written anew."""
    if not store.contains(version):
        raise UnknownVersion(f"no version {version!r}: `rlhf-online versions list` shows them")
    _change(store, version, add=True)


def unpin(store: VersionStore, version: str) -> None:
    """Its weights are kept only for as long as those of others are. Raises OSError."""
    _change(store, version, add=False)


def _change(store: VersionStore, version: str, *, add: bool) -> None:
    while True:
        before = store.read(KEY)
        try:
            known = _parsed(store, before)
        except FileDamaged:
            known = []
        after = json.dumps(sorted({*known, version} if add else {*known} - {version}))
        if after == before or store.replace(KEY, after, expected=before):
            return


def _parsed(store: VersionStore, value: str | None) -> list[str]:
    try:
        names = json.loads(value or "[]")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError("it is no list of versions")
    except ValueError as error:
        raise FileDamaged(
            f"{store.place(KEY)} cannot be read ({error}): no version loses its weights until "
            "`rlhf-online versions pin` has named those to keep anew"
        ) from error
    return names
