"""Keeps pages of other sites from acting for the people who look at them.

A browser sends a POST anywhere without asking: any page that somebody visits could vote in their stead. It says which
page asks (`Origin`, and over https or on localhost `Sec-Fetch-Site`), and no page can change that. A page whose owner
lets its name point here (DNS rebinding) is told by this name, in `Origin` and `Host`; an address has none to point.

    Origin    must be where the request is sent (`Host`), or one of `allowed`, where a proxy changes `Host`
    its name  must be the loopback's, an IP address, this machine's, or one of `allowed`
    Host      likewise where nobody but this machine is listened to: no client of it uses another name

A site of `trusted`, named with its scheme and port, may do what the service's own page may (CORS).

Clients that are no browser send no `Origin`: beyond the loopback interface nothing is asked of them.
"""

import ipaddress
import socket
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from urllib.parse import urlsplit

from services.chat.bodies.api_error import ApiError

DEFAULT_PORTS = {"http": 80, "https": 443}
NAMES = 256
"""So many names are remembered: all requests to a service give the same few."""


class Origins:
    """Knows the names under which the service is reached: `host` is where it listens, the others are the settings."""

    def __init__(self, host: str, allowed: Sequence[str], trusted: Sequence[str] = ()) -> None:
        self._allowed = allowed
        self._trusted = frozenset(trusted)
        self._loopback_only = is_loopback(host)
        self._machine = socket.gethostname().lower()

    def check(self, headers: Mapping[str, str]) -> None:
        """Raises ApiError for a request that changes something and that another site's page may have sent."""
        if headers.get("origin") in self._trusted:
            return
        if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            raise _refused("a page of another origin sent this")
        host = headers.get("host", "")
        origin = headers.get("origin")
        if origin is None:
            if self._loopback_only and host and not self._is_ours(_name(f"//{host}")):
                raise _refused(f"{host[:80]!r} is not this service's name")
        elif not self._is_ours(name := _name(origin)):
            raise _refused(f"a page of {origin[:80]!r} sent this")
        elif _place(origin) != _place(origin, host) and not self._is_allowed(name):
            raise _refused("a page of another origin sent this")

    def _is_ours(self, name: str) -> bool:
        return is_loopback(name) or _is_address(name) or name == self._machine or self._is_allowed(name)

    def _is_allowed(self, name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in self._allowed)


def _refused(what: str) -> ApiError:
    return ApiError(
        f"{what}: only this service's own page may, and clients that are no browser; names under which it is reached "
        "stand in the setting chat.allowed_hosts",
        status=403,
        code="cross_origin",
    )


@lru_cache(maxsize=NAMES)
def _name(url: str) -> str:
    """The host's name or address; "" for what is no URL, such as the origin `null`."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _place(origin: str, host: str | None = None) -> tuple[str, int | None]:
    """Name and port of an origin, or of the `Host` header of a request that came by the origin's scheme."""
    try:
        scheme = urlsplit(origin).scheme
        parts = urlsplit(origin if host is None else f"//{host}")
        return parts.hostname or "", parts.port or DEFAULT_PORTS.get(scheme)
    except ValueError:
        return "", None


@lru_cache(maxsize=NAMES)
def is_loopback(name: str) -> bool:
    """Whether a name or an address means this machine alone."""
    return name == "localhost" or name.endswith(".localhost") or (_is_address(name) and _address(name).is_loopback)


@lru_cache(maxsize=NAMES)
def _is_address(name: str) -> bool:
    try:
        _address(name)
    except ValueError:
        return False
    return True


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return ipaddress.ip_address(name.partition("%")[0])
