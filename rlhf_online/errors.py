"""Every error that the project raises on purpose.

    RlhfError
    ├── InvalidInput (ValueError)     the caller's mistake: bad request, bad option
    │   ├── ConfigError               a configuration file or variable
    │   ├── UnusableVote              feedback that nothing can be learned from
    │   ├── RowRefused                a row of a file that is not imported
    │   ├── UnknownVersion            a version name that the registry does not hold
    │   └── VersionConflict           another version was promoted or rolled back meanwhile
    ├── LogError                      the event log
    │   ├── LogLocked                 another process writes to the directory
    │   ├── LogUnavailable            not acknowledged: disk full, I/O error, closed
    │   │   └── KeysUnavailable       the key store is away, so that nothing can be sealed or opened
    │   └── PositionLost              a read position that the log no longer has
    ├── ReadModelUnavailable          what follows the log is behind it, or cannot be read now
    ├── UndecodableEvent              a record whose bytes or schema version nobody here can read
    ├── FileDamaged                   a small file of the state folder is empty, cut, or may not be read
    ├── StoreUnavailable (OSError)    the bucket that holds the versions is away, full, or closed to these credentials
    ├── VersionCorrupt                hashes, names, shapes, dtypes or values of a version are wrong
    │   └── VersionUnfit              it does not fit this pod's model or settings; another pod's it may
    ├── EngineError                   the inference engine
    │   ├── EngineStartFailed         it ended, or was not healthy in time
    │   ├── EngineUnavailable         it does not answer now (loading, restarting, dead)
    │   └── SwapFailed                new weights did not load or failed their probe; the old ones serve
    ├── CheckpointError               no usable checkpoint, or one that cannot be written
    ├── StateLost                     what the trainer holds on disk went bad while it ran
    ├── BackupFailed                  a copy of the state folder cannot be made, or is not what it was
    ├── Fenced                        another trainer has taken over; this one may write nothing more
    ├── RanksFailed                   a process that trains with this one ended, is too slow, or has other weights
    ├── RewardUnavailable             the reward service is away or holds another version
    ├── StartRefused                  this machine or folder cannot run the services now
    │   ├── NotEnoughRoom             memory or disk
    │   ├── SecretLost                a secret of the state folder is gone, empty or too short
    │   └── AlreadyRunning            another process uses the state folder
    ├── ServiceFailed                 a service ended, and starting it again would not help
    └── ServiceUnreachable            nothing answers at the address, or not what was expected

A message says what happened and what to do about it; command lines print it alone and exit with `exit_code`.
"""

from typing import ClassVar


class RlhfError(Exception):
    """Base of the tree. `exit_code` is what a command line ends with."""

    exit_code: ClassVar[int] = 1


class InvalidInput(RlhfError, ValueError):
    """The caller's mistake; nothing was changed."""

    exit_code = 2


class ConfigError(InvalidInput):
    """A configuration that cannot be used; the message names the field, what was expected and what was got."""


class UnusableVote(InvalidInput):
    """Feedback that nothing can be learned from. `reason` is one of a few words, which are counted:

    nothing      it judges no answer                    missing      its completion has no such answer
    twice        it names one answer twice              empty        an answer, or its prompt, without tokens
    single       it ranks fewer than two answers        prompts      its answers were given to different prompts
    correction   empty, or equal to the answer          signal, objective    one that nobody named
    template     messages that the model's chat template refuses
    erased       its person, or whose answers it judges, erased it
    large        too many answers, too long, at once    vocabulary, context    tokens that the models cannot read
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class RowRefused(InvalidInput):
    """A row of a file that cannot be imported. `reason` is one of a few words, which are counted:

    encoding     not UTF-8                              json         not JSON, or cut
    shape        a field is missing, or of another type empty        no prompt, or an empty turn in it
    equal        the answers that it compares are one   diverges     its sides differ before the answer, or after it
    single       fewer than two answers to compare      no_vote      nobody judged it, or the judgement is not clear
    score        a number that is neither good nor bad  no_answer    the answer that it judges is not there
    large        more than a record of the log holds
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class UnknownVersion(InvalidInput):
    """No version of that name in the registry."""


class VersionConflict(InvalidInput):
    """Another was quicker to change which version is live; nothing was changed."""


class LogError(RlhfError):
    """The event log."""


class LogLocked(LogError):
    """Another process holds the directory's writer lock."""


class LogUnavailable(LogError):
    """The append was not acknowledged; the event may be sent again."""


class KeysUnavailable(LogUnavailable):
    """The key store cannot be asked now, or lacks a key that nobody deleted; nothing is lost until it can."""


class PositionLost(LogError):
    """The log no longer (or not yet) holds the position asked for."""


class ReadModelUnavailable(RlhfError):
    """A database that follows the log has not caught up with it, or cannot be read now; try again."""


class UndecodableEvent(RlhfError):
    """Bytes that are no event of a schema version known here."""


class FileDamaged(RlhfError):
    """A small file that does not hold what was written there; the message names it and says what to do."""


class StoreUnavailable(RlhfError, OSError):
    """The bucket that holds the versions does not do what it is asked now; what is read may be read again later."""


class VersionCorrupt(RlhfError):
    """A version's files differ from its manifest, or do not fit the model that serves."""


class VersionUnfit(VersionCorrupt):
    """A version does not fit the model or the settings of this pod, which may be what is wrong."""


class EngineError(RlhfError):
    """The inference engine."""


class EngineStartFailed(EngineError):
    """The engine ended while starting, or was not healthy in time; who watches the service need not try again."""

    exit_code = 3


class EngineUnavailable(EngineError):
    """The engine does not answer now; try again."""


class SwapFailed(EngineError):
    """The new version was refused; the last good one serves."""


class CheckpointError(RlhfError):
    """A checkpoint cannot be written, or none of those on disk can be read."""


class StateLost(RlhfError):
    """A file that the trainer works with cannot be read any more; it must start again from a checkpoint."""


class BackupFailed(RlhfError):
    """A copy of the state folder cannot be made or brought back, or is not what was backed up."""


class Fenced(RlhfError):
    """Another trainer has taken a higher epoch: final, nothing that is tried again can succeed."""


class RanksFailed(RlhfError):
    """Of the processes that train together one ended, did not come in time, or differs; the message names it. All must
    start anew."""


class RewardUnavailable(RlhfError):
    """The reward service does not answer, or holds another reward version than the one asked for."""


class StartRefused(RlhfError):
    """This machine or folder cannot run the services now; nothing was started."""


class NotEnoughRoom(StartRefused):
    """Too little memory or disk for the model."""


class SecretLost(StartRefused):
    """A secret of the state folder is gone, empty or too short; making another one in silence would do harm."""

    exit_code = 2


class AlreadyRunning(StartRefused):
    """Another process uses the state folder."""


class ServiceFailed(RlhfError):
    """A service ended, and starting it again would not help."""


class ServiceUnreachable(RlhfError):
    """Nothing answers at the address, or not what was expected."""
