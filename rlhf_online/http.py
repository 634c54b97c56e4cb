"""HTTP to a service of this product, on a port or on a unix socket."""

import ssl
from typing import Any

import httpx

from rlhf_online.errors import ConfigError


def connect(url: str, **options: Any) -> httpx.Client:
    """A client whose paths are below `url`: "http://host:port", or "unix:/path" for a socket of this machine."""
    if not url.startswith("unix:"):
        return httpx.Client(base_url=url, **options)
    transport = httpx.HTTPTransport(uds=url.removeprefix("unix:"))
    options["trust_env"] = False  # no proxy of the environment
    return httpx.Client(base_url="http://localhost", transport=transport, **options)


def trusting(ca_file: str) -> ssl.SSLContext:
    """Takes certificates that these authorities (a PEM file) have signed, and no others. Raises ConfigError."""
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:  # ssl.SSLError is one
        reason = "it holds no certificate in PEM" if isinstance(error, ssl.SSLError) else error.strerror
        raise ConfigError(f"{ca_file} cannot be used ({reason}): name a PEM file of authorities") from error
