"""The store of people's content keys: whether it is the one that the log is sealed with, opens, and can be written.

Without its keys every word that was sealed is lost, and a key that cannot be deleted erases nobody.
"""

import os
import shutil
import tempfile
import uuid
from pathlib import Path

from rlhf_online.config import KeystoreSettings
from rlhf_online.doctor.finding import Finding, ok, refuse, warn
from rlhf_online.errors import ConfigError, FileDamaged, KeysUnavailable, RlhfError, SecretLost
from rlhf_online.keystore import FOLDER, open_keyring

TRIED = "doctor"
"""A record in a bucket's key store, of no person."""
CLOSED = 0o077
"""What others must not be allowed to do with a folder of keys."""


def keystore(settings: KeystoreSettings, root: Path, log: Path) -> list[Finding]:
    """Of the service whose state folder is `root`, and whose log's folder is `log`."""
    bound = log / FOLDER
    if not settings.url:
        if not bound.exists():
            return []
        what = f"the log in {log} is sealed with the keys of a key store, and keystore.url names none"
        return [refuse("key store", what, "set keystore.url to it again: without it nobody can read what was said")]
    about = f"key store {settings.url}"
    try:
        keys = open_keyring(settings, root)
        assert keys is not None, "there is an address"
        known = bound.read_text().strip() if bound.exists() else ""
        if not known and not keys.vault.is_there():
            return [ok(about, "none yet"), *_wrapped(about, settings)]
        identity = keys.vault.identity(make=False)
        if known and known != identity:
            what = f"it is another one ({identity}) than that with which the log in {log} is sealed ({known})"
            return [refuse(about, what, "set keystore.url to that one, mount it, or bring its copy back")]
        return [_writable(about, settings, root), *_wrapped(about, settings)]
    except ConfigError as error:
        return [refuse(about, str(error), "correct keystore.url, or install what it needs")]
    except SecretLost as error:
        return [refuse(about, str(error), "nothing that was sealed can be read until then")]
    except (KeysUnavailable, FileDamaged, RlhfError, OSError) as error:
        return [refuse(about, str(error), "mount it, or start what it lies in; check the credentials of a bucket")]


def _writable(about: str, settings: KeystoreSettings, root: Path) -> Finding:
    """By a file beside the keys, which is removed; in a bucket by a record of its own. Raises OSError."""
    if settings.in_bucket:
        from rlhf_online.versions import open_bucket

        bucket = open_bucket(settings.url)
        if bucket.put(TRIED, uuid.uuid4().hex.encode(), bucket.get(TRIED)) is None:
            return warn(about, "another doctor tries it just now", "ask again")
        return ok(about, "it opens, and takes what is written; it must keep no earlier versions of its objects")
    folder = Path(settings.url.removeprefix("file:") or root / FOLDER)
    try:
        shutil.rmtree(tempfile.mkdtemp(prefix=".doctor-", dir=folder))
    except OSError as error:
        return refuse(about, f"{folder} cannot be written ({error.strerror or error})", "let this user write there")
    if folder.stat().st_mode & CLOSED:
        return refuse(about, f"{folder} is open to others", f"chmod 700 {folder}")
    return ok(about, "it opens, and can be written")


def _wrapped(about: str, settings: KeystoreSettings) -> list[Finding]:
    from rlhf_online.keystore.vault import KEK

    if os.environ.get(KEK, "").strip() or not settings.in_bucket:
        return []
    todo = f"set {KEK} for chat and trainer before the first key is made: of a store that is there it is part"
    return [warn(about, "keys lie there as they are: whoever reads the bucket opens every word", todo)]
