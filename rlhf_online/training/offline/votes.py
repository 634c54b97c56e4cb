"""The votes of a file or of a log, as the trainer's intake gives them: joined, once, revised, erased, held out.

A file is first imported into a log of its own, which is thrown away: nothing is understood here in another way than
where it is served from. A state's log is only read: no dead letter is written into it, and nothing marked as consumed.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from rlhf_online.config import load_keystore, load_log
from rlhf_online.config.files import from_file
from rlhf_online.config.given import merged
from rlhf_online.config.offline import VotesSettings
from rlhf_online.data.exchanges import Place
from rlhf_online.data.formats import format_named
from rlhf_online.data.importing import Importer
from rlhf_online.errors import InvalidInput
from rlhf_online.eventlog import open_source
from rlhf_online.eventlog.base import DeadLetter, Position, Record, Source
from rlhf_online.eventlog.local import LocalLog
from rlhf_online.eventlog.tail import LocalReader
from rlhf_online.events import Erasure
from rlhf_online.feedback.erasures import stems_from
from rlhf_online.feedback.limits import VoteLimits
from rlhf_online.feedback.votes import Vote, subject
from rlhf_online.keystore import open_keyring
from rlhf_online.models.limits import ModelLimits
from rlhf_online.models.tokens import ChatTokenizer
from rlhf_online.rollout.buffer import RolloutBuffer
from rlhf_online.state import PersonHash, StateDir
from rlhf_online.training.intake import Intake, IntakeSettings
from rlhf_online.training.intake.joined_votes import JoinedVotes, TakenVotes
from rlhf_online.training.ledger import Ledger

if TYPE_CHECKING:
    from rlhf_online.keystore.keyring import Keyring

FOR_EVER_MS = 1 << 60
VOTE_TOKENS = 16_384
"""Largest vote, all its answers together."""
_SALT = PersonHash(b"of a log that is thrown away")


@dataclass(slots=True)
class Gathered:
    """`left_out` counts rows that were refused and votes that cannot be used, by reason."""

    learned: list[Vote] = field(default_factory=list)
    held_out: list[Vote] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)

    def take(self, taken: TakenVotes) -> None:
        """Add the next votes; a person's later word on what they judged before stands in the place of that."""
        for kept, new in ((self.learned, taken.learned), (self.held_out, taken.held_out)):
            revised = {subject(vote) for vote in new if vote.revised}
            kept[:] = [vote for vote in kept if not (revised and vote.person and subject(vote) in revised)]
            kept += [replace(vote, revised=False) for vote in new]

    def let_go(self, votes: JoinedVotes) -> None:
        """Drop what was taken before it was erased, or taken back."""
        revoked, erased = {event_id for event_id, _ in votes.take_revoked()}, votes.erasures.take_new()
        for kept in (self.learned, self.held_out) if revoked or erased else ():
            gone = [vote for vote in kept if any(stems_from(vote, erasure) for erasure in erased)]
            self.left_out["erased"] += len(gone)
            revoked |= {vote.event_id for vote in gone}
            kept[:] = [vote for vote in kept if vote.event_id not in revoked]


def gather(
    settings: VotesSettings, tokenizer: ChatTokenizer, models: ModelLimits, say: Callable[[str], None]
) -> Gathered:
    """The votes of `data`, or of `log`. Raises InvalidInput if there are none to learn from, LogUnavailable."""
    found = Gathered()
    with TemporaryDirectory() as folder, _source(settings, Path(folder), found, say) as source:
        intake = Intake(
            _ReadOnly(source),
            ledger := Ledger(),
            RolloutBuffer(1, 0),
            IntakeSettings(
                answers=Path(folder) / "answers",
                window_ms=FOR_EVER_MS,
                held_out=settings.held_out,
                prompts=1,
                reference_answers=0,
                eos_ids=frozenset(tokenizer.eos_ids),
                limits=VoteLimits(models=models, objectives=settings.objectives, tokens=VOTE_TOKENS),
                answer_ids=tokenizer.answer_ids,
                prompt_ids=tokenizer.prompt_ids,
                keys=_keys(settings),
            ),
        )
        for person in settings.without:
            intake.votes.erase(Erasure(conversation_id="", person=person, erased_ms=FOR_EVER_MS))
        while intake.read() or len(intake.votes):
            found.let_go(intake.votes)
            found.take(intake.votes.take())
        found.left_out += intake.dead_letters.counts
        found.left_out["no_answer"] += intake.join.pending
        found.left_out["erased"] += ledger.counts()["erased"]
    found.left_out = +found.left_out
    if not found.learned:
        left_out = found.left_out + Counter(held_out=len(found.held_out))
        raise InvalidInput(f"there is no vote to learn from in {settings.data or settings.log}{_why(left_out)}")
    random.Random(f"offline {settings.seed}").shuffle(found.learned)
    return found


@contextmanager
def _source(settings: VotesSettings, folder: Path, found: Gathered, say: Callable[[str], None]) -> Iterator[Source]:
    if bool(settings.data) == bool(settings.log):
        raise InvalidInput("name what to learn from: --data FILE with its --format, or --log STATE")
    if settings.data:
        file, form = Path(settings.data), format_named(settings.format)
        with LocalLog(folder / "log") as log:
            report = Importer(log, set()).add(file, form, Place(settings.format, file.name, _SALT))
        found.left_out += report.refused
        say(f"{report.rows} rows in {file}: {report.votes} votes, {report.refused.total()} rows refused")
        source: Source = LocalReader(folder / "log")
    else:
        source = _log(settings)
    try:
        yield source
    finally:
        source.close()


def _log(settings: VotesSettings) -> Source:
    url, folder = settings.log, Path()
    if ":" not in url:
        url, folder = "file:", StateDir(Path(settings.log)).log
        if not folder.is_dir():
            raise InvalidInput(f"no event log at {folder}: --log takes a state folder, or an address")
    return open_source(load_log(settings.log_config, [("--log", f"log.url={url}")]), folder)


def _keys(settings: VotesSettings) -> "Keyring | None":
    """What opens a log whose content is sealed: the key store of `log_config`, or of the state folder's trainer. Of a
    log with an address it may be in the state folder that `log_config` names."""
    if not settings.log:
        return None
    named = ":" in settings.log
    root = Path(merged(from_file(settings.log_config)).get("state_dir", "") if named else settings.log)
    written = StateDir(root).run / "trainer.toml"
    return open_keyring(load_keystore(settings.log_config or (written if written.is_file() else None)), root)


class _ReadOnly:
    """A source that leaves no trace of its reader in the log."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.end = source.end
        self.identity = source.identity
        self.resume_position = source.resume_position

    def read(self, position: Mapping[str, int], limit: int) -> tuple[list[Record], Position]:
        return self._source.read(position, limit)

    def mark_consumed(self, reader: str, position: Mapping[str, int]) -> None:
        """Nothing: the trainer's own reader says what is needed."""

    def write_dead_letters(self, dead_letters: Sequence[DeadLetter]) -> None:
        """Nothing: they are counted in the report."""

    def close(self) -> None:
        self._source.close()


def _why(left_out: Counter[str]) -> str:
    told = ", ".join(f"{count} {reason}" for reason, count in left_out.most_common())
    return f" ({told})" if told else ""
