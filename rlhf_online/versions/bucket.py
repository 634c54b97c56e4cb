"""Objects below a URL such as s3://bucket/prefix, in storage that changes an object only under a condition.

    s3://     Amazon's, and what speaks its API; credentials, region and endpoint from the usual variables (AWS_…) or,
              in a pod or on an instance, from its role
    gs://     Google's (GOOGLE_…)
    az://     Azure's (AZURE_STORAGE_…)

Every call ends within seconds, but for the files', which end when nothing has come for that long. What cannot be done
raises StoreUnavailable, an OSError, whose message names the bucket and the key.

A conditional write is sent once. If its answer is lost, nobody knows whether it was made; sent again, it would fail for
its own success, and its writer would take itself for beaten.
"""

import hashlib
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    NotModifiedError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import from_url

from rlhf_online.errors import ConfigError, StoreUnavailable

if TYPE_CHECKING:
    from obstore import PutMode, UpdateVersion
    from obstore.store import ClientConfig, RetryConfig

CONNECT_S, ANSWER_S, SILENCE_S = 2, 4, 20
PIECE = 16 << 20
"""Bytes of a part of a file that is sent: 10,000 parts at most, so 160 GB a file."""
_CODE = re.compile(r"<Code>(\w+)</Code>(?:.*?<Message>([^<]*)</Message>)?", re.DOTALL)
_FULL = ("StorageFull", "QuotaExceeded", "InsufficientStorage", "NoSpace")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Object:
    """What an object held when it was read; `tag` tells it from what it holds before and after."""

    data: bytes
    tag: "UpdateVersion"


@dataclass(frozen=True, slots=True)
class Listed:
    """An object's name below the prefix that was listed, its size in bytes, and when it was written."""

    name: str
    size: int
    written: datetime


class Bucket:
    """See the module. Safe for several threads. Raises ConfigError for a URL that leads nowhere."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        # A plain http endpoint is what somebody has named on purpose: an address on loopback, or in the cluster.
        soon: ClientConfig = {"allow_http": True, "connect_timeout": f"{CONNECT_S}s", "timeout": f"{ANSWER_S}s"}
        long: ClientConfig = {**soon, "timeout": "1d", "read_timeout": f"{SILENCE_S}s"}
        once: RetryConfig = {"max_retries": 0}
        again: RetryConfig = {"max_retries": 5, "retry_timeout": timedelta(minutes=2)}
        try:
            self._small = from_url(url, client_options=soon, retry_config=once)
            self._large = from_url(url, client_options=long, retry_config=again)
        except (BaseError, ValueError) as error:
            raise ConfigError(f"versions.url: {url!r} cannot be opened ({_first_line(error)})") from error
        self._conditions_hold = False

    # Small objects, that change

    def get(self, key: str, known: Object | None = None) -> Object | None:
        """The object, None if there is none; `known` itself if it has not changed since. Raises StoreUnavailable."""

        def asked() -> Object | None:
            try:
                tag = known and known.tag.get("e_tag")
                found = obstore.get(self._small, key, options={"if_none_match": tag} if tag else None)
                return Object(bytes(found.bytes()), _tag(found.meta["e_tag"], found.meta["version"]))
            except NotModifiedError:
                return known
            except FileNotFoundError as error:
                self._refuse_without_bucket(error)
                return None

        try:
            return self._ask("read", key, asked)
        except StoreUnavailable:  # a connection may have gone stale; to read once more does no harm
            return self._ask("read", key, asked)

    def put(self, key: str, data: bytes, known: Object | None) -> Object | None:
        """Make the object hold `data` if it still is `known` (None: if there is none); None if it is not.

        Raises StoreUnavailable, and then it may hold `data` all the same; ConfigError for storage without conditions.
        """
        mode: PutMode = "create" if known is None else known.tag
        self._check_conditions()

        def asked() -> Object | None:
            try:
                done = obstore.put(self._small, key, data, mode=mode, use_multipart=False)
                return Object(data, _tag(done["e_tag"], done["version"]))
            except (AlreadyExistsError, PreconditionError) as error:
                self._refuse_without_bucket(error)
                return None

        return self._ask("written", key, asked)

    def _check_conditions(self) -> None:
        """Before the first write: an endpoint that passes over conditions would let two trainers promote at once.

        Raises ConfigError.
        """
        if self._conditions_hold:
            return
        key = "conditional-writes"
        refused: tuple[PutMode, ...] = ("create", _tag('"0"', None))
        try:
            with suppress(AlreadyExistsError):
                obstore.put(self._small, key, b"checked", mode="create", use_multipart=False)
            for mode in refused:  # each of them, now that the object is there
                with suppress(AlreadyExistsError, PreconditionError):
                    obstore.put(self._small, key, b"checked", mode=mode, use_multipart=False)
                    raise ConfigError(
                        f"versions.url: the storage of {self.url} writes whatever If-Match and If-None-Match say, so "
                        "two trainers could undo each other's promotions: use one that has conditional writes"
                    )
        except (BaseError, OSError) as error:
            raise self._unavailable("written", key, error) from error
        self._conditions_hold = True

    # Names

    def listed(self, prefix: str) -> list[Listed]:
        """The objects below the prefix. Raises StoreUnavailable."""

        def asked() -> list[Listed]:
            pages = obstore.list(self._small, f"{prefix}/", chunk_size=1000)
            found = [each for page in pages for each in page]
            start = len(prefix) + 1
            return [Listed(each["path"][start:], each["size"], each["last_modified"]) for each in found]

        return self._ask("listed", prefix, asked)

    def head(self, key: str) -> Listed | None:
        """Of one object, without reading it; None if there is none. Raises StoreUnavailable."""

        def asked() -> Listed | None:
            try:
                found = obstore.head(self._small, key)
                return Listed(found["path"], found["size"], found["last_modified"])
            except FileNotFoundError as error:
                self._refuse_without_bucket(error)
                return None

        return self._ask("read", key, asked)

    def delete(self, keys: Iterable[str]) -> None:
        """Remove the objects, those that are there. Raises StoreUnavailable."""
        for key in keys:
            with suppress(FileNotFoundError):  # S3 does not mind, other storage does
                self._ask("removed", key, lambda key=key: obstore.delete(self._small, key))

    # Files

    def upload(self, key: str, path: Path) -> None:
        """Write the file's content, whatever was there. Raises StoreUnavailable, OSError."""
        self._ask("written", key, lambda: obstore.put(self._large, key, path, mode="overwrite", chunk_size=PIECE))

    def download(self, key: str, path: Path) -> str | None:
        """Write the object into a new file; the SHA-256 of what came, None if there is no object.

        Raises StoreUnavailable, OSError.
        """

        def asked() -> str | None:
            digest = hashlib.sha256()
            try:
                found = obstore.get(self._large, key)
            except FileNotFoundError as error:
                self._refuse_without_bucket(error)
                return None
            with path.open("xb") as file:
                for piece in found.stream(min_chunk_size=1 << 20):
                    file.write(piece)
                    digest.update(piece)
            return digest.hexdigest()

        return self._ask("read", key, asked)

    # What goes wrong

    def place(self, key: str) -> str:
        """Where people find the object."""
        return f"{self.url}/{key}"

    def _ask(self, what: str, key: str, ask: Callable[[], T]) -> T:
        try:
            return ask()
        except BaseError as error:
            raise self._unavailable(what, key, error) from error

    def _refuse_without_bucket(self, error: Exception) -> None:
        """What is missing may be the whole bucket. Raises StoreUnavailable then."""
        if "<Code>NoSuchBucket<" in str(error):
            raise self._unavailable("", "", error) from error

    def _unavailable(self, what: str, key: str, error: Exception) -> StoreUnavailable:
        text = str(error)
        code, message = found.groups() if (found := _CODE.search(text)) else ("", "")
        said = f"{code}: {message}" if message else code
        at = self.place(key)
        if code == "NoSuchBucket":
            return StoreUnavailable(f"there is no bucket for {self.url}: make it, or correct versions.url")
        if isinstance(error, PermissionDeniedError | UnauthenticatedError):
            why = said or _first_line(error)
            return StoreUnavailable(f"{at} may not be {what} ({why}): permit it to the credentials of this process")
        if any(word in text for word in _FULL):
            return StoreUnavailable(f"{at} cannot be {what}, the storage is full ({said}): make room there")
        return StoreUnavailable(f"{at} cannot be {what} now ({said or _reason(text)}): see whether the storage is up")


def _tag(e_tag: str | None, version: str | None) -> "UpdateVersion":
    tag: UpdateVersion = {}
    if e_tag is not None:
        tag["e_tag"] = e_tag
    if version is not None:
        tag["version"] = version
    return tag


def _reason(text: str) -> str:
    if "/latest/api/token" in text or "/latest/meta-data" in text:
        return "no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the machine a role"
    for sign, reason in (("kind: Timeout", "no answer in time"), ("Connection refused", "connection refused")):
        if sign in text:
            return reason
    if found := re.search(r'"failed to lookup address[^"]*"', text):
        return found.group().strip('"')
    return _first_line(text)


def _first_line(error: Exception | str) -> str:
    return str(error).strip().partition("\n")[0][:300]
