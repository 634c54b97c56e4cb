"""`[tls]` of the chat service."""

from typing import ClassVar

from pydantic import Field

from rlhf_online.config.base import Only, Section


class TlsSettings(Section):
    """HTTPS and gRPC over TLS; without a certificate both are in the clear. The files are read anew as they change."""

    only_with: ClassVar = {"key_file": Only("cert_file", "?*"), "client_ca_file": Only("cert_file", "?*")}

    cert_file: str = Field(default="", description="PEM file of the certificate and those that it was signed by.")
    key_file: str = Field(default="", description="PEM file of its key, not encrypted; by default in `cert_file`.")
    client_ca_file: str = Field(
        default="", description="PEM file of authorities: only clients with a certificate of theirs are served."
    )
