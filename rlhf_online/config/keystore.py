"""Where people's content keys are."""

from collections.abc import Iterable
from pathlib import Path

from pydantic import Field

from rlhf_online.config.base import Section
from rlhf_online.config.explain import explained
from rlhf_online.config.files import from_file
from rlhf_online.config.given import Option, from_options, merged


class KeystoreSettings(Section):
    """Where the keys are by which what people wrote is sealed, a key a person."""

    url: str = Field(
        default="",
        pattern=r"^(file:(/[^\s]+)?|(s3|gs|az)://[^/@\s]+(/[^\s]*)?)?$",
        description="'file:' keeps people's content keys in keystore/ of the state folder, 'file:/path' there, "
        "'s3://bucket/prefix' in a bucket for several machines; the same for chat and trainer. What people write is "
        "sealed with them from then on, so that deleting a key erases it everywhere. Empty: nothing is sealed.",
    )

    @property
    def in_bucket(self) -> bool:
        """Whether `url` names one."""
        return bool(self.url) and not self.url.startswith("file:")


class KeystoreTable(Section):
    """What `load_keystore` reads of a service's file."""

    keystore: KeystoreSettings = KeystoreSettings()


def load_keystore(path: Path | None, options: Iterable[Option] = ()) -> KeystoreSettings:
    """The table `keystore` of any service's file (None: defaults), over it the `options`. Raises ConfigError."""
    given = [*from_file(path), *from_options(options)]
    with explained(given, KeystoreTable):
        return KeystoreTable.model_validate({"keystore": merged(given).get("keystore", {})}).keystore
