"""TLS and mutual TLS over both transports, and certificates that change while the service runs."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import grpc
import orjson
import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from prometheus_client import CollectorRegistry

from rlhf_online import process
from rlhf_online.config import TlsSettings
from rlhf_online.errors import ConfigError
from rlhf_online.metrics import ChatMetrics
from rlhf_online.proto.rlhf.v1 import chat_pb2, chat_pb2_grpc, events_pb2
from services.chat.transport import connections
from services.chat.transport.tls import Certificates
from tests.support import api_keys
from tests.support.certificates import Authority, Files, private
from tests.support.chat_service import ASK, Service, running
from tests.support.waiting import eventually

QUESTION = chat_pb2.CompleteRequest(messages=[events_pb2.Message(role="user", content="hi")])


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "tls")


@asynccontextmanager
async def secure(folder: Path, files: Files, client_ca: Path | None = None) -> AsyncIterator[Service]:
    settings = {"cert_file": str(files.cert), "key_file": str(files.key)}
    if client_ca is not None:
        settings["client_ca_file"] = str(client_ca)
    async with running(folder, tls=settings) as service:
        yield service


def trusting(files: Files, own: Files | None = None) -> ssl.SSLContext:
    """A client that trusts the authority, with a certificate of its own."""
    context = ssl.create_default_context(cafile=files.authority)
    if own is not None:
        context.load_cert_chain(own.cert, own.key)
    return context


async def ask(service: Service, context: ssl.SSLContext) -> int:
    """The status of an answer over a connection of its own."""
    url = service.url.replace("http:", "https:") + "/v1/chat/completions"
    async with aiohttp.ClientSession() as session, session.post(url, data=orjson.dumps(ASK), ssl=context) as response:
        await response.read()
        return response.status


async def call(service: Service, files: Files, own: Files | None = None) -> str:
    """An answer over a gRPC channel of its own."""
    pair = (own.key.read_bytes(), own.cert.read_bytes()) if own else (None, None)
    credentials = grpc.ssl_channel_credentials(files.authority.read_bytes(), *pair)
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.secure_channel(service.grpc, credentials, options) as channel:
        return (await chat_pb2_grpc.ChatServiceStub(channel).Complete(QUESTION, timeout=10)).choices[0].text


async def served(address: str, context: ssl.SSLContext) -> int:
    """The serial number of the certificate that a new connection is shown."""
    host, port = address.removeprefix("http://").split(":")
    context.set_alpn_protocols(["h2", "http/1.1"])
    _, writer = await asyncio.open_connection(host, port, ssl=context)
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return x509.load_der_x509_certificate(shown).serial_number


async def test_both_transports_speak_tls_and_nothing_else(tmp_path: Path, authority: Authority) -> None:
    files = authority.issue("server")
    async with secure(tmp_path, files) as service:
        assert await ask(service, trusting(files)) == 200
        assert await call(service, files) == "hello there"
        with pytest.raises(aiohttp.ClientError):
            await service.ask()
        with pytest.raises(grpc.aio.AioRpcError):
            async with grpc.aio.insecure_channel(service.grpc) as channel:
                await chat_pb2_grpc.ChatServiceStub(channel).Complete(QUESTION, timeout=10)
        assert len(service.engine.requests) == 2


def test_it_does_so_on_the_loop_that_serves(tmp_path: Path, authority: Authority) -> None:
    """The services run on uvloop, whose TLS is its own."""
    files = authority.issue("server")

    async def scenario() -> None:
        async with secure(tmp_path, files) as service:
            assert await ask(service, trusting(files)) == 200
            before = files.serial
            authority.issue("server")
            assert before != await served(service.url, trusting(files)) == files.serial
            with pytest.raises(aiohttp.ClientError):
                await service.ask()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario())


async def test_requests_that_come_with_the_handshake_and_after_each_other(tmp_path: Path, authority: Authority) -> None:
    files = authority.issue("server")
    async with secure(tmp_path, files) as service, aiohttp.ClientSession() as session:
        url, context = service.url.replace("http:", "https:"), trusting(files)
        for body in (ASK, {**ASK, "stream": True}, {**ASK, "user": "a" * 100_000}):
            async with session.post(url + "/v1/chat/completions", data=orjson.dumps(body), ssl=context) as response:
                await response.read()
                assert response.status == (400 if "user" in body else 200)


async def test_mutual_tls_serves_those_whom_the_authority_knows(tmp_path: Path, authority: Authority) -> None:
    files, known = authority.issue("server"), authority.issue("client")
    unknown = Authority(tmp_path / "other", "other").issue("client")
    async with secure(tmp_path, files, client_ca=authority.file) as service:
        assert await ask(service, trusting(files, known)) == 200
        assert await call(service, files, known) == "hello there"
        for stranger in (None, unknown):
            with pytest.raises((aiohttp.ClientError, OSError)):
                await ask(service, trusting(files, stranger))
            with pytest.raises(grpc.aio.AioRpcError):
                await call(service, files, stranger)
        assert len(service.engine.requests) == 2


async def test_a_renewed_certificate_is_served_at_once(tmp_path: Path, authority: Authority) -> None:
    files = authority.issue("server")
    async with secure(tmp_path, files) as service:
        old = files.serial
        assert await served(service.url, trusting(files)) == await served(service.grpc, trusting(files)) == old
        authority.issue("server")
        assert files.serial != old
        assert await served(service.grpc, trusting(files)) == files.serial
        assert await served(service.url, trusting(files)) == files.serial
        assert await call(service, files) == "hello there"
        assert await ask(service, trusting(files)) == 200


async def test_an_open_connection_outlives_its_certificate(tmp_path: Path, authority: Authority) -> None:
    files = authority.issue("server")
    async with secure(tmp_path, files) as service, aiohttp.ClientSession() as session:
        url, context = service.url.replace("http:", "https:") + "/healthz", trusting(files)
        for _ in range(2):
            async with session.get(url, ssl=context) as response:
                assert response.status == 200
            authority.issue("server")


async def test_other_authorities_are_trusted_once_the_file_says_so(tmp_path: Path, authority: Authority) -> None:
    files, known = authority.issue("server"), authority.issue("client")
    other = Authority(tmp_path / "other", "other")
    theirs = other.issue("client")
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(authority.file.read_bytes())
    async with secure(tmp_path, files, client_ca=trusted) as service:
        assert await ask(service, trusting(files, known)) == 200
        trusted.write_bytes(other.file.read_bytes() + b"\n")
        assert await ask(service, trusting(files, theirs)) == 200
        assert await call(service, files, theirs) == "hello there"
        with pytest.raises((aiohttp.ClientError, OSError)):
            await ask(service, trusting(files, known))


def test_files_that_do_not_fit_leave_the_last_good_ones(authority: Authority) -> None:
    files, registry = authority.issue("server"), CollectorRegistry()
    settings = TlsSettings(cert_file=str(files.cert), key_file=str(files.key))
    certificates = Certificates(settings, ChatMetrics(registry))

    def read(outcome: str) -> float:
        return registry.get_sample_value("rlhf_chat_certificates_total", {"outcome": outcome}) or 0

    good = certificates.context()
    old_key = files.key.read_bytes()
    authority.issue("server")
    new_key = files.key.read_bytes()
    files.key.write_bytes(old_key + b"\n")
    assert certificates.context() is certificates.context() is good, "half of a renewal"
    assert (read("loaded"), read("refused")) == (1, 1)
    files.cert.unlink()
    assert certificates.context() is good
    authority.issue("server")
    assert certificates.context() is not good
    assert files.key.read_bytes() != new_key
    assert (read("loaded"), read("refused")) == (2, 2)
    end = x509.load_pem_x509_certificate(files.cert.read_bytes()).not_valid_after_utc.timestamp()
    assert registry.get_sample_value("rlhf_chat_certificate_expiry_timestamp_seconds") == end


def test_what_cannot_be_used_is_refused_at_the_start_in_a_sentence(authority: Authority, tmp_path: Path) -> None:
    one, other = authority.issue("one"), authority.issue("other")
    rubbish, encrypted = tmp_path / "rubbish.pem", tmp_path / "encrypted.key"
    rubbish.write_text("hello")
    encrypted.write_bytes(private(ec.generate_private_key(ec.SECP256R1()), b"secret"))
    for cert, key, trusted, said in (
        (one.cert, other.key, "", "cannot be used: the key is not that of the certificate"),
        (one.cert, rubbish, "", "cannot be used: they are no certificate and key in PEM"),
        (one.cert, encrypted, "", "cannot be used: the key is encrypted: decrypt it"),
        (tmp_path / "none.pem", one.key, "", r"none\.pem cannot be read \(No such file or directory\)"),
        (one.cert, one.key, str(rubbish), "rubbish.pem cannot be used: it holds no certificate in PEM"),
    ):
        settings = TlsSettings(cert_file=str(cert), key_file=str(key), client_ca_file=trusted)
        with pytest.raises(ConfigError, match=said):
            Certificates(settings, ChatMetrics(CollectorRegistry()))


def test_one_file_may_hold_both(authority: Authority) -> None:
    files = authority.issue("server")
    files.cert.write_bytes(files.key.read_bytes() + files.cert.read_bytes())
    Certificates(TlsSettings(cert_file=str(files.cert)), ChatMetrics(CollectorRegistry()))


async def test_who_never_shakes_hands_is_disconnected_and_makes_room(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = authority.issue("server")
    monkeypatch.setattr(process, "connection_budget", lambda open_files, kinds: 4)
    async with secure(tmp_path, files) as service, AsyncExitStack() as stack:
        address = address_of(service)
        silent = []
        for number in range(12):
            reader, writer = await asyncio.open_connection(*address)
            stack.callback(writer.close)
            writer.write(b"\x16\x03\x01\x02"[: number % 5])
            silent.append(reader)
        assert await ask(service, trusting(files)) == 200
        assert await asyncio.gather(*[reader.read() for reader in silent[:8]]) == [b""] * 8
    monkeypatch.setattr(connections, "REQUEST_S", 0.5)
    async with secure(tmp_path / "again", files) as service:
        reader, writer = await asyncio.open_connection(*address_of(service))
        assert await reader.read() == b"", "silent"
        writer.close()
        reader, writer = await asyncio.open_connection(*address_of(service))
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        assert b"HTTP" not in await reader.read(), "no TLS"
        writer.close()
        await eventually(lambda: closed(service) >= 2)
        assert await ask(service, trusting(files)) == 200


def address_of(service: Service) -> list[str]:
    return service.url.removeprefix("http://").split(":")


def closed(service: Service) -> float:
    return (
        service.chat.collector.get_sample_value("rlhf_chat_connections_closed_total", {"reason": "no_handshake"}) or 0
    )


async def test_a_socket_beside_the_ports_is_in_the_clear_and_the_same_service(
    tmp_path: Path, authority: Authority
) -> None:
    """What an earlier life left is replaced; who comes by it needs no certificate, and a key where there are keys."""
    api_keys.write(tmp_path / "state")
    socket = tmp_path / "chat.sock"
    socket.write_text("left over")
    files = authority.issue("server")
    settings = {"cert_file": str(files.cert), "key_file": str(files.key), "client_ca_file": str(authority.file)}
    async with running(tmp_path, tls=settings, local_socket=str(socket)) as service:
        assert socket.stat().st_mode & 0o777 == 0o600
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(socket))) as session:
            for token, status in (("", 401), (api_keys.TOKENS["chat"], 200)):
                headers = {"Authorization": f"Bearer {token}"} if token else {}
                url = "http://localhost/v1/chat/completions"
                async with session.post(url, data=orjson.dumps(ASK), headers=headers) as response:
                    assert response.status == status
        assert len(service.sink.completions) == 1
        with pytest.raises(aiohttp.ClientError):
            await ask(service, trusting(files))
