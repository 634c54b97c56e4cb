"""Certificates for 127.0.0.1, signed by an authority of their own, as files."""

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

NOW = datetime.datetime.now(datetime.UTC)


@dataclass(frozen=True)
class Files:
    """A certificate, its key, and who signed it."""

    cert: Path
    key: Path
    authority: Path

    @property
    def serial(self) -> int:
        return x509.load_pem_x509_certificate(self.cert.read_bytes()).serial_number


class Authority:
    """Signs certificates, and puts them into `folder`."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named(name)
        ca = x509.BasicConstraints(ca=True, path_length=None)
        self._cert = _certificate(self._name, self._name, self._key).add_extension(ca, True).sign(self._key, SHA256)
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(_pem(self._cert))

    def issue(self, name: str, *, days: int = 1) -> Files:
        """Files `name`.pem and `name`.key, new or in the place of older ones, good for so many days from now on."""
        key = ec.generate_private_key(ec.SECP256R1())
        places = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")]
        builder = _certificate(_named(name), self._name, key, days)
        builder = builder.add_extension(x509.SubjectAlternativeName(places), False)
        files = Files(self.folder / f"{name}.pem", self.folder / f"{name}.key", self.file)
        files.cert.write_bytes(_pem(builder.sign(self._key, SHA256)))
        files.key.write_bytes(private(key))
        return files


SHA256 = hashes.SHA256()


def private(key: ec.EllipticCurvePrivateKey, password: bytes = b"") -> bytes:
    """The key as PEM, encrypted if there is a password."""
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: int = 1
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder(subject_name=subject, issuer_name=issuer, public_key=key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - datetime.timedelta(days=1))
        .not_valid_after(NOW + datetime.timedelta(days=days))
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
