"""Key stores of tests: one in a folder that can be taken away."""

from pathlib import Path

from rlhf_online.keystore.keyring import Keyring
from rlhf_online.keystore.places import FolderKeys
from rlhf_online.keystore.vault import Vault


def keyring(folder: Path, *, kek: str = "", fresh_s: float = 60.0) -> Keyring:
    """The keys in `folder`, which becomes a key store."""
    vault = Vault(FolderKeys(folder), kek)
    vault.identity()
    return Keyring(vault, fresh_s=fresh_s)


def take_away(folder: Path) -> Path:
    """As where a volume is not mounted; returns where it is meanwhile."""
    return folder.rename(folder.with_name(f"{folder.name}-away"))
