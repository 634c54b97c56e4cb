"""TLS of chat's ports: files that can be used, and a certificate that is good for a while yet."""

import ssl
import time
from pathlib import Path

from rlhf_online import certificate_end, http
from rlhf_online.config import TlsSettings
from rlhf_online.doctor.clock import told
from rlhf_online.doctor.finding import Finding, ok, refuse, warn
from rlhf_online.errors import ConfigError

SOON_S = 14 * 86_400
"""As RlhfCertificateExpires has it."""


def served(tls: TlsSettings) -> list[Finding]:
    """What the chat service would say of its files at its start."""
    if not tls.cert_file:
        return []
    about, todo = f"certificate {tls.cert_file}", "name PEM files that belong together: chat.tls.cert_file, .key_file"
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
            tls.cert_file, tls.key_file or tls.cert_file, password=lambda: ""
        )
    except OSError as error:  # ssl.SSLError is one
        return [refuse(about, f"cannot be used with its key ({error})", todo)]
    left_s = certificate_end.earliest(Path(tls.cert_file).read_bytes()) - time.time()
    if left_s <= 0:
        found = refuse(about, f"ended {told(-left_s)} ago: no client takes it", "renew it")
    elif left_s < SOON_S:
        found = warn(about, f"ends in {told(left_s)}", "renew it: it is read anew by itself")
    else:
        found = ok(about, f"good for {told(left_s)}")
    return [found, *trusted("chat.tls.client_ca_file", tls.client_ca_file)]


def trusted(setting: str, ca_file: str) -> list[Finding]:
    """Whether the authorities that the setting names can be read."""
    if not ca_file:
        return []
    about = f"authorities {ca_file}"
    try:
        http.trusting(ca_file)
    except ConfigError as error:
        return [refuse(about, str(error), f"correct {setting}")]
    return [ok(about, f"read, of {setting}")]
