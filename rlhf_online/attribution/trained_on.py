"""The record of what a version's own update learned from: kept beside the version, and longer than its weights.

    trained/policy-000012.json      `TrainedOn`, in JSON

The trainer makes it with the update, commits it in the checkpoint that names the version, and writes it before the
version is published: so every version that a release with this module published has one, and a kill leaves it as the
checkpoint says. A version of an earlier release has none.

A vote takes some 180 bytes in each update that it was learned from, new or replayed; a cycle takes 8,192 new ones at
most. Like the ledger, the records grow with the votes and are never removed: what an ancestor has learned from is in
the weights of all that follow.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rlhf_online.errors import FileDamaged
from rlhf_online.versions.store import VersionStore


@dataclass(frozen=True, slots=True, kw_only=True)
class VoteUsed:
    """A vote that was learned from. `completions` it judged; none where the vote was read by an earlier release.

    `new`: for the first time; otherwise it was replayed. `owners`: who asked for what it judges, if it was another one.
    """

    event_id: str
    person: str
    completions: tuple[str, ...] = ()
    new: bool = True
    owners: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerUsed:
    """An answer of the log that the policy learned from."""

    completion_id: str
    index: int
    person: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedOn:
    """What one update learned from.

    `after`: the version of the same kind whose learning it went on from, "" for the first. `votes`: of a reward
    version, those of its update; of a policy version, thumbs that it learned from as labels. `answers`, `asked`: of a
    policy version, answers that people got, and the people whose prompts fresh answers were sampled to.
    """

    after: str = ""
    votes: tuple[VoteUsed, ...] = ()
    answers: tuple[AnswerUsed, ...] = ()
    asked: tuple[str, ...] = ()

    @property
    def people(self) -> frozenset[str]:
        """Whose data is in it."""
        said = frozenset(item.person for item in (*self.votes, *self.answers)) | frozenset(self.asked)
        return said.union(*(vote.owners for vote in self.votes))

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "TrainedOn":
        """What `dataclasses.asdict` turned into `values`. Raises TypeError, KeyError for something else."""
        votes = (
            VoteUsed(**{**item, "completions": tuple(item["completions"]), "owners": tuple(item.get("owners", ()))})
            for item in values["votes"]
        )
        return cls(
            after=values["after"],
            votes=tuple(votes),
            answers=tuple(AnswerUsed(**item) for item in values["answers"]),
            asked=tuple(values["asked"]),
        )


def key(version: str) -> str:
    """The record of the version."""
    return f"trained/{version}.json"


def write(store: VersionStore, version: str, trained_on: TrainedOn) -> None:
    """Keep it with the version, durably; what is there stays. Raises OSError, FileDamaged."""
    if store.read(key(version)) is None:
        store.replace(key(version), json.dumps(asdict(trained_on)), expected=None)


def parse(store: VersionStore, version: str, text: str) -> TrainedOn:
    """What the version's record in `store` says. Raises FileDamaged for one that cannot be read."""
    try:
        return TrainedOn.from_json(json.loads(text))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise FileDamaged(
            f"{store.place(key(version))} cannot be read ({error}): bring it back from a backup; without it nobody "
            f"knows what {version} has learned from"
        ) from error
