"""Where the versions are, for commands that read a service's file and no more of it."""

from pathlib import Path

from rlhf_online.config.base import Section, VersionsSettings
from rlhf_online.config.explain import explained
from rlhf_online.config.files import from_file
from rlhf_online.config.given import Given, from_environment, merged

VARIABLES = "RLHF_VERSIONS__"


class VersionsTable(Section):
    """What `load_versions` reads of a service's file."""

    versions: VersionsSettings = VersionsSettings()


def load_versions(path: Path | None) -> VersionsSettings:
    """The table `versions` of any service's file (None: defaults), over it RLHF_VERSIONS__URL. Raises ConfigError."""
    variables = [Given(each.place, {"versions": each.values}) for each in from_environment(VARIABLES)]
    given = [*from_file(path), *variables]
    with explained(given, VersionsTable):
        return VersionsTable.model_validate({"versions": merged(given).get("versions", {})}).versions
