"""Certificates, keys and authorities: what fits, what does not, and what soon will not."""

from pathlib import Path

import pytest

from rlhf_online.config import TlsSettings
from rlhf_online.doctor.certificates import served, trusted
from tests.support.certificates import Authority, Files


def settings(files: Files, **changes: Path) -> TlsSettings:
    paths = {"cert_file": files.cert, "key_file": files.key} | changes
    return TlsSettings(**{name: str(path) for name, path in paths.items()})


@pytest.mark.parametrize(
    ("days", "severity", "said"),
    [(300, "ok", "good for 300 days"), (5, "warn", "ends in 5 days"), (0, "refuse", "no client takes it")],
)
def test_a_certificate_is_told_by_how_long_it_is_good_yet(tmp_path: Path, days: int, severity: str, said: str) -> None:
    (found,) = served(settings(Authority(tmp_path).issue("chat", days=days)))
    assert found.severity == severity and said in found.what


def test_files_that_do_not_belong_together_or_are_not_there_are_named(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    ours, theirs = authority.issue("ours", days=300), authority.issue("theirs", days=300)
    for key in (theirs.key, tmp_path / "nowhere"):
        (found,) = served(settings(ours, key_file=key))
        assert found.severity == "refuse" and str(ours.cert) in found.about and "chat.tls.cert_file" in found.todo
    certificate, clients = served(settings(ours, client_ca_file=ours.key))
    assert (certificate.severity, clients.severity) == ("ok", "refuse")
    assert "no certificate in PEM" in clients.what and "chat.tls.client_ca_file" in clients.todo


def test_authorities_are_read_and_nothing_is_said_where_none_are_named(tmp_path: Path) -> None:
    assert [each.severity for each in trusted("chat_ca_file", str(Authority(tmp_path).file))] == ["ok"]
    assert trusted("chat_ca_file", "") == served(TlsSettings()) == []
