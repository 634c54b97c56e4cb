"""Content keys, a key a person: what people wrote is sealed with them, and deleting one erases it wherever it is kept.

    places     where keys lie: a folder, a bucket
    vault      a key store: which one it is, its keys, wrapped or not
    key        sealing and opening with one
    keyring    keys as a process uses them
    owned      values of checkpoints and reports that are sealed for whose they are

What is sealed, and why, says docs/decisions/0040.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from rlhf_online.config import KeystoreSettings
from rlhf_online.errors import ConfigError, SecretLost
from rlhf_online.keystore.places import BucketKeys, FolderKeys
from rlhf_online.state import SHORTEST_SECRET

if TYPE_CHECKING:
    from rlhf_online.keystore.keyring import Keyring, Patience

FOLDER = "keystore"
"""Of the state folder: the key store of `keystore.url = "file:"`."""


def open_keyring(
    settings: KeystoreSettings, root: Path, *, fresh_s: float | None = None, patience: "Patience | None" = None
) -> "Keyring | None":
    """The keys that the settings name (for `file:` those in the state folder `root`); None where nothing is sealed.

    See `keyring.Keyring` for the others. Raises ConfigError, SecretLost.
    """
    if not settings.url:
        return None
    try:
        from rlhf_online.keystore import keyring, vault
    except ModuleNotFoundError as error:
        raise ConfigError("keystore.url needs the package cryptography: install rlhf-online[keystore]") from error
    kek = os.environ.get(vault.KEK, "").strip()
    if kek and len(kek) < SHORTEST_SECRET:
        raise SecretLost(
            f"{vault.KEK} holds {len(kek)} characters, and a secret has at least {SHORTEST_SECRET}: write as many "
            "random characters there, the same for chat and trainer"
        )
    return keyring.Keyring(
        vault.Vault(_place(settings, root), kek),
        fresh_s=keyring.FRESH_S if fresh_s is None else fresh_s,
        patience=patience or keyring.impatient,
    )


def open_for_log(settings: KeystoreSettings, root: Path, log: Path) -> "Keyring | None":
    """The keys by which the log in `log` is to be sealed. See `open_keyring`, `Vault.bind`.

    Raises SecretLost also where the log was sealed before, and the settings name no key store.
    """
    if (keys := open_keyring(settings, root)) is not None:
        keys.vault.bind(log)
    elif (log / FOLDER).exists():
        raise SecretLost(
            f"the log in {log} was sealed with the keys of a key store: set keystore.url to it again; without it "
            "nobody can read what was said"
        )
    return keys


def _place(settings: KeystoreSettings, root: Path) -> FolderKeys | BucketKeys:
    if not settings.in_bucket:
        return FolderKeys(Path(settings.url.removeprefix("file:") or root / FOLDER))
    from rlhf_online.versions import open_bucket

    return BucketKeys(open_bucket(settings.url))
