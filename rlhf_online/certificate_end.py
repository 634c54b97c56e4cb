"""When certificates end, read from their DER (RFC 5280, section 4.1): the standard library tells it of peers alone.

Certificate ::= SEQUENCE { tbsCertificate, … }
tbsCertificate ::= SEQUENCE { [0] version OPTIONAL, serialNumber, signature, issuer, validity, … }
validity ::= SEQUENCE { notBefore, notAfter }, each a UTCTime (YYMMDDhhmmssZ) or a GeneralizedTime (YYYYMMDD…)
"""

import base64
import re
from datetime import datetime

VERSION, UTC_TIME = 0xA0, 0x17
PEM = re.compile(rb"-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----(.+?)-----END", re.DOTALL)
"""By all the names that OpenSSL reads it under."""


def earliest(pem: bytes) -> float:
    """Seconds since 1970 at which the first of the certificates ends, of the served one and those of its chain."""
    return min(_end(base64.b64decode(found)) for found in PEM.findall(pem))


def _end(der: bytes) -> float:
    (_, certificate), *_ = _parts(der)
    (_, signed), *_ = _parts(certificate)
    fields = [each for each in _parts(signed) if each[0] != VERSION]
    _, (tag, not_after) = _parts(fields[3][1])
    text = not_after.decode().removesuffix("Z")
    if tag == UTC_TIME:
        text = ("19" if text[:2] >= "50" else "20") + text
    return datetime.strptime(text + "+0000", "%Y%m%d%H%M%S%z").timestamp()


def _parts(der: bytes) -> list[tuple[int, bytes]]:
    """The tag and the content of each value that stands in `der`, one after another."""
    found: list[tuple[int, bytes]] = []
    while der:
        tag, size, begin = der[0], der[1], 2
        if size & 0x80:  # the size's own size
            begin += size & 0x7F
            size = int.from_bytes(der[2:begin])
        found.append((tag, der[begin : begin + size]))
        der = der[begin + size :]
    return found
