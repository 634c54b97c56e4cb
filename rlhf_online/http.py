"""HTTP to a service of this product, on a port or on a unix socket."""

from typing import Any

import httpx


def connect(url: str, **options: Any) -> httpx.Client:
    """A client whose paths are below `url`: "http://host:port", or "unix:/path" for a socket of this machine."""
    if not url.startswith("unix:"):
        return httpx.Client(base_url=url, **options)
    transport = httpx.HTTPTransport(uds=url.removeprefix("unix:"))
    options["trust_env"] = False  # no proxy of the environment
    return httpx.Client(base_url="http://localhost", transport=transport, **options)
