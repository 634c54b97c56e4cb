"""When certificates end, against the library `cryptography`."""

import datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from rlhf_online.certificate_end import earliest

NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "chat.example.org")])
KEY = ec.generate_private_key(ec.SECP256R1())


def pem(end: datetime.datetime, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey = KEY) -> bytes:
    """A certificate that ends then."""
    builder = x509.CertificateBuilder(NAME, NAME, key.public_key(), x509.random_serial_number())
    begin = datetime.datetime(1980, 1, 1, tzinfo=datetime.UTC)
    made = builder.not_valid_before(begin).not_valid_after(end).sign(key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM)


@pytest.mark.parametrize("year", [1999, 2026, 2049, 2050, 2100])
def test_years_of_two_and_of_four_digits(year: int) -> None:
    end = datetime.datetime(year, 12, 31, 23, 59, 58, tzinfo=datetime.UTC)
    assert earliest(pem(end)) == end.timestamp()


def test_of_a_chain_the_first_that_ends_counts_and_a_key_beside_it_does_not() -> None:
    sooner, later = (datetime.datetime(year, 1, 1, tzinfo=datetime.UTC) for year in (2030, 2040))
    key = rsa.generate_private_key(65537, 2048)
    raw = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    assert earliest(raw + pem(later, key) + b"\n" + pem(sooner)) == sooner.timestamp()


@pytest.mark.parametrize("name", [b"X509 CERTIFICATE", b"TRUSTED CERTIFICATE"])
def test_older_names_of_a_certificate_in_pem(name: bytes) -> None:
    """OpenSSL loads and serves them, so the service must not end on one."""
    end = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
    assert earliest(pem(end).replace(b"CERTIFICATE", name)) == end.timestamp()
