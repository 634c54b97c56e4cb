"""What the gate found of a version, for operators: its examples are what people asked and were answered, and the
service's log says that one looked."""

from typing import TYPE_CHECKING, Any, cast

import structlog
from typing_extensions import TypedDict

from rlhf_online.errors import FileDamaged, KeysUnavailable, UndecodableEvent, UnknownVersion
from rlhf_online.keystore import owned
from rlhf_online.versions import reports
from rlhf_online.versions.catalogue import Catalogue
from services.chat.bodies.api_error import ApiError, unavailable
from services.chat.bodies.documented import documented

if TYPE_CHECKING:
    from rlhf_online.keystore.keyring import Keyring


@documented
class ReportedCheck(TypedDict):
    """A check of the gate."""

    name: str
    """Its name, that of its settings below `gate`."""
    passed: bool
    """False if it objects."""
    figures: dict[str, float | None]
    """What it measured; null for what is no number."""
    limits: dict[str, float | bool]
    """Its settings that are numbers."""
    objections: list[str]
    """Why the candidate may not serve."""
    notes: list[str]
    """What else people should know."""
    rows: list[dict[str, str | float | None]]
    """A table: traits, golden prompts that fail, words that are new."""
    examples: list[int]
    """Places in the report's `examples`, worst first."""


@documented
class ReportedExample(TypedDict):
    """A prompt and both versions' answers."""

    prompt: str
    """The prompt's end."""
    live: str
    """The beginning of the answer of the version that was live."""
    candidate: str
    """The beginning of the candidate's answer."""
    live_score: float | None
    """What the reward model makes of the live version's answer; null without a number."""
    score: float | None
    """What it makes of the candidate's."""


@documented
class VersionReport(TypedDict):
    """What the gate found of a version."""

    version: str
    """Its name."""
    passed: bool
    """False if any check objects."""
    samples: int
    """Prompts that both versions answered."""
    checks: list[ReportedCheck]
    """All checks, in the order in which they are asked."""
    examples: list[ReportedExample]
    """Answers that show it; none of conversations that were erased, and none of old versions."""


class VersionReports:
    """Reads what the trainer wrote."""

    def __init__(self, catalogue: Catalogue, keys: "Keyring | None" = None) -> None:
        self._catalogue = catalogue
        self._keys = keys
        self._log = structlog.get_logger()

    def read(self, version: str, key_id: str) -> VersionReport:
        """Raises ApiError: 404, 503."""
        store = self._catalogue.store
        if not store.contains(version):
            raise UnknownVersion(f"no version {version[:100]!r}: `GET /v1/versions` lists them")
        self._log.info("the report of a version was read", key=key_id, version=version)
        try:
            found = owned.open_all(reports.read(store, version), self._keys)
        except (OSError, FileDamaged, KeysUnavailable, UndecodableEvent) as error:
            raise unavailable(f"the report of {version} cannot be read now", "report_unavailable") from error
        if found is None:
            message = f"{version} has no report: the gate judged no such version, or an earlier release did"
            raise ApiError(message, status=404, param="version", code="report_not_found")
        report: dict[str, Any] = {"version": version, "passed": False, "samples": 0, **found}
        report = reports.kept(report, lambda example: not owned.is_shredded(example))
        report["examples"] = [
            {k: v for k, v in example.items() if k not in ("origin", "owners")} for example in report["examples"]
        ]
        return cast("VersionReport", report)
