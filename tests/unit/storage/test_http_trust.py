"""Who is spoken to over HTTP: certificates, redirects, proxies, and who gets to see which header."""

from __future__ import annotations

import datetime as dt
import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from instar.errors import Misconfigured, Unavailable
from instar.storage import HttpOptions, HttpReader, MemoryStorage
from instar.testing.clock import FakeClock
from instar.testing.http import FaultyServer, Redirect, Trickle

KEY = "metadata/timestamp.json"
NOW = dt.datetime.now(dt.UTC)
SECRET = {"authorization": "Bearer s3cret", "x-api-key": "s3cret"}


@pytest.fixture
def storage() -> MemoryStorage:
    storage = MemoryStorage()
    storage.write(KEY, b"{}")
    return storage


@pytest.fixture
def options() -> HttpOptions:
    return HttpOptions(authorization="Bearer s3cret", headers={"X-Api-Key": "s3cret"}, attempts=1)


def shown(server: FaultyServer) -> dict[str, str]:
    """Give the secrets that the server got to see in its last request."""
    return {name: value for name, value in server.received[-1].headers.items() if name in SECRET}


# Certificates


@dataclass
class Certificate:
    file: Path
    tls: ssl.SSLContext


@pytest.fixture
def certify(tmp_path: Path) -> Callable[..., Certificate]:
    def make(*, host: str = "127.0.0.1", starts: float = -1, ends: float = 1) -> Certificate:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "instar test")])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW + dt.timedelta(days=starts))
            .not_valid_after(NOW + dt.timedelta(days=ends))
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host))]), critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            # From Python 3.13 on, certificates are judged strictly by RFC 5280.
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
            .add_extension(
                x509.KeyUsage(
                    digital_signature=True,
                    key_cert_sign=True,
                    crl_sign=True,
                    content_commitment=False,
                    key_encipherment=False,
                    data_encipherment=False,
                    key_agreement=False,
                    encipher_only=False,
                    decipher_only=False,
                ),
                critical=True,
            )
            .sign(key, hashes.SHA256())
        )
        file = tmp_path / "certificate.pem"
        file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        key_file = tmp_path / "key.pem"
        key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(file, key_file)
        return Certificate(file, tls)

    return make


def test_a_certificate_of_nobody_we_trust_is_refused(
    storage: MemoryStorage, certify: Callable[..., Certificate]
) -> None:
    clock = FakeClock()
    with FaultyServer(storage, tls=certify().tls) as server, HttpReader(server.url, clock=clock) as reader:
        with pytest.raises(Unavailable, match=r"certificate of https.* is not trusted: .*self.signed.*CA file option"):
            reader.read(KEY, limit=10)
        assert server.received == []
    assert clock.slept == []


def test_the_ca_file_option_names_a_private_authority(
    storage: MemoryStorage, certify: Callable[..., Certificate], options: HttpOptions
) -> None:
    mine = certify()
    with (
        FaultyServer(storage, tls=mine.tls) as server,
        HttpReader(server.url, HttpOptions(ca_file=mine.file)) as reader,
    ):
        assert reader.read(KEY, limit=10) == b"{}"
        assert reader.stat(KEY).size == 2


def test_a_certificate_for_another_host_is_refused(storage: MemoryStorage, certify: Callable[..., Certificate]) -> None:
    other = certify(host="192.0.2.7")
    with (
        FaultyServer(storage, tls=other.tls) as server,
        HttpReader(server.url, HttpOptions(ca_file=other.file)) as reader,
        pytest.raises(Unavailable, match="is not trusted"),
    ):
        reader.read(KEY, limit=10)


def test_a_certificate_that_has_expired_is_refused(storage: MemoryStorage, certify: Callable[..., Certificate]) -> None:
    old = certify(starts=-9, ends=-1)
    options = HttpOptions(ca_file=old.file, not_before=NOW - dt.timedelta(days=30))
    with (
        FaultyServer(storage, tls=old.tls) as server,
        HttpReader(server.url, options, clock=FakeClock(NOW)) as reader,
        pytest.raises(Unavailable, match="expired"),
    ):
        reader.read(KEY, limit=10)


def test_a_machine_whose_clock_is_certainly_wrong_does_not_judge_the_dates_of_certificates(
    storage: MemoryStorage, certify: Callable[..., Certificate]
) -> None:
    # OpenSSL looks at the real clock, so a certificate of tomorrow stands for a clock that is behind.
    future = certify(starts=1, ends=9)
    options = HttpOptions(ca_file=future.file, not_before=NOW)
    with (
        FaultyServer(storage, tls=future.tls) as server,
        HttpReader(server.url, options, clock=FakeClock(dt.datetime(1970, 1, 1, tzinfo=dt.UTC))) as reader,
    ):
        assert reader.read(KEY, limit=10) == b"{}"


def test_a_clock_that_is_certainly_wrong_excuses_nothing_but_dates(
    storage: MemoryStorage, certify: Callable[..., Certificate], tmp_path: Path
) -> None:
    past = FakeClock(dt.datetime(1970, 1, 1, tzinfo=dt.UTC))
    other = certify(host="192.0.2.7")
    for options in (HttpOptions(not_before=NOW), HttpOptions(not_before=NOW, ca_file=other.file)):
        with (
            FaultyServer(storage, tls=other.tls) as server,
            HttpReader(server.url, options, clock=past) as reader,
            pytest.raises(Unavailable, match="is not trusted"),
        ):
            reader.read(KEY, limit=10)


@pytest.mark.parametrize("content", [None, b"", b"-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"])
def test_a_ca_file_that_cannot_be_used_is_said_at_once(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(Misconfigured, match="PEM"):
        HttpReader("https://example.com", HttpOptions(ca_file=file))


def test_a_server_that_does_not_speak_tls_is_unavailable(storage: MemoryStorage) -> None:
    with (
        FaultyServer(storage) as server,
        HttpReader(server.url.replace("http:", "https:"), HttpOptions(attempts=1)) as reader,
        pytest.raises(Unavailable, match="TLS"),
    ):
        reader.read(KEY, limit=10)


def test_a_trickle_is_stopped_under_tls_too(storage: MemoryStorage, certify: Callable[..., Certificate]) -> None:
    mine = certify()
    storage.write(KEY, bytes(5000))
    options = HttpOptions(ca_file=mine.file, least_speed=0, deadline=20)
    with (
        FaultyServer(storage, tls=mine.tls) as server,
        HttpReader(server.url, options, clock=FakeClock(step=0.5)) as reader,
    ):
        server.fault(Trickle(pause=0.001), times=None)
        with pytest.raises(Unavailable, match="longer than the 20 seconds"):
            reader.read(KEY, limit=5000)


# Redirects


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_redirect_is_followed(storage: MemoryStorage, options: HttpOptions, code: int) -> None:
    with FaultyServer(storage) as server, FaultyServer(storage) as other, HttpReader(server.url, options) as reader:
        server.fault(Redirect(f"{other.url}/{{key}}", code), times=None)
        assert reader.read(KEY, limit=10) == b"{}"
        assert reader.stat(KEY).size == 2
        with reader.stream(KEY, start=1, length=1) as blocks:
            assert b"".join(blocks) == b"}"
        assert other.received[-1].range == "bytes=1-1"


def test_secrets_are_shown_to_the_storage_itself(storage: MemoryStorage, options: HttpOptions) -> None:
    with FaultyServer(storage) as server, HttpReader(server.url, options) as reader:
        reader.read(KEY, limit=10)
        assert shown(server) == SECRET
        server.fault(Redirect("/repository/{key}"))
        reader.read(KEY, limit=10)
        assert len(server.received) == 3
        assert shown(server) == SECRET


def test_secrets_are_not_shown_to_another_host(storage: MemoryStorage, options: HttpOptions) -> None:
    with FaultyServer(storage) as server, FaultyServer(storage) as other, HttpReader(server.url, options) as reader:
        server.fault(Redirect(f"{other.url}/{{key}}"))
        reader.read(KEY, limit=10)
        assert shown(server) == SECRET
        assert shown(other) == {}


def test_secrets_are_not_shown_to_a_host_that_looks_like_the_storage_to_one_parser_only(
    storage: MemoryStorage, options: HttpOptions
) -> None:
    with FaultyServer(storage) as server, FaultyServer(storage) as other, HttpReader(server.url, options) as reader:
        # For Python the host is what is behind the @, for urllib3 what is before the backslash.
        address, mine = other.url.removesuffix("/repository"), server.url.removeprefix("http://")
        server.fault(Redirect(f"{address}\\@{mine}/{{key}}"))
        with pytest.raises(Unavailable, match="not an address"):
            reader.read(KEY, limit=10)
        assert other.received == []


@pytest.mark.parametrize("to", ["https://user:secret@127.0.0.1/x", "http://127.0.0.1\\x"])
def test_no_redirect_leads_to_what_the_standard_does_not_call_an_address(
    storage: MemoryStorage, options: HttpOptions, to: str
) -> None:
    with FaultyServer(storage) as server, HttpReader(server.url, options) as reader:
        server.fault(Redirect(to))
        with pytest.raises(Unavailable, match="not an address"):
            reader.read(KEY, limit=10)


def test_redirects_without_end_are_not_followed_for_ever(storage: MemoryStorage, options: HttpOptions) -> None:
    with FaultyServer(storage) as server, HttpReader(server.url, options) as reader:
        server.fault(Redirect("/repository/{key}"), times=None)
        with pytest.raises(Unavailable, match="redirects again and again"):
            reader.read(KEY, limit=10)
        assert len(server.received) == 6


@pytest.mark.parametrize("to", ["http://example.com/x", "http://192.0.2.1/"])
def test_no_redirect_leads_to_plain_http_elsewhere(storage: MemoryStorage, options: HttpOptions, to: str) -> None:
    with FaultyServer(storage) as server, HttpReader(server.url, options) as reader:
        server.fault(Redirect(to))
        with pytest.raises(Unavailable, match="not protected by TLS"):
            reader.read(KEY, limit=10)


def test_no_redirect_leads_out_of_tls_not_even_with_plain_http_allowed(
    storage: MemoryStorage, certify: Callable[..., Certificate]
) -> None:
    mine = certify()
    options = HttpOptions(ca_file=mine.file, insecure_http=True)
    with (
        FaultyServer(storage, tls=mine.tls) as server,
        FaultyServer(storage) as plain,
        HttpReader(server.url, options) as reader,
    ):
        server.fault(Redirect(f"{plain.url}/{{key}}"))
        with pytest.raises(Unavailable, match="not protected by TLS"):
            reader.read(KEY, limit=10)
        assert plain.received == []


@pytest.mark.parametrize("to", ["file:///etc/passwd", "ftp://127.0.0.1/x", "https://", "https://[::1", "gopher:x"])
def test_no_redirect_leads_to_anything_but_the_web(storage: MemoryStorage, options: HttpOptions, to: str) -> None:
    with FaultyServer(storage) as server, HttpReader(server.url, options) as reader:
        server.fault(Redirect(to))
        with pytest.raises(Unavailable, match="not an address"):
            reader.read(KEY, limit=10)


# Proxies


class Proxy:
    """A proxy on loopback: notes the first line and the authorization it is shown, and lets everything through."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"

    def _run(self) -> None:
        client, _ = self._listener.accept()
        with client:
            client.settimeout(10)
            head = b""
            while b"\r\n\r\n" not in head:
                head += client.recv(4096)
            self.seen = head.decode().split("\r\n")
            method, target, _ = self.seen[0].split(" ")
            if method == "CONNECT":
                host, _, port = target.partition(":")
                client.sendall(b"HTTP/1.1 200 go ahead\r\n\r\n")
            else:
                host, _, port = target.split("/")[2].partition(":")
            with socket.create_connection((host, int(port))) as server:
                if method != "CONNECT":
                    path = target.split("/", 3)[3]
                    server.sendall(head.replace(target.encode(), b"/" + path.encode(), 1))
                back = threading.Thread(target=pump, args=(server, client))
                back.start()
                pump(client, server)
                back.join()

    def close(self) -> None:
        self._listener.close()
        self._thread.join(10)


def pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(4096):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    proxy = Proxy()
    yield proxy
    proxy.close()


def test_a_proxy_is_used_and_shown_its_own_password_only(storage: MemoryStorage, proxy: Proxy) -> None:
    options = HttpOptions(proxy=f"http://user:word@{proxy.address}")
    with FaultyServer(storage) as server, HttpReader(server.url, options) as reader:
        assert reader.read(KEY, limit=10) == b"{}"
    assert proxy.seen[0].startswith("GET http://127.0.0.1:")
    assert "proxy-authorization: Basic dXNlcjp3b3Jk" in [
        line.replace("P", "p").replace("A", "a", 1) for line in proxy.seen
    ]


def test_through_a_proxy_tls_is_with_the_server_itself(
    storage: MemoryStorage, certify: Callable[..., Certificate], proxy: Proxy
) -> None:
    mine = certify()
    options = HttpOptions(ca_file=mine.file, proxy=f"http://{proxy.address}", authorization="Bearer s3cret")
    with FaultyServer(storage, tls=mine.tls) as server, HttpReader(server.url, options) as reader:
        assert reader.read(KEY, limit=10) == b"{}"
        assert shown(server) == {"authorization": "Bearer s3cret"}
    assert proxy.seen[0].startswith("CONNECT 127.0.0.1:")
    assert "s3cret" not in "".join(proxy.seen)


def test_a_proxy_that_is_not_there_is_named_as_the_reason(storage: MemoryStorage) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        options = HttpOptions(proxy=f"http://127.0.0.1:{taken.getsockname()[1]}", attempts=1)
        with (
            FaultyServer(storage) as server,
            HttpReader(server.url, options) as reader,
            pytest.raises(Unavailable, match="proxy"),
        ):
            reader.read(KEY, limit=10)


@pytest.mark.parametrize("proxy", ["proxy.example:3128x", "socks5://u:hunter2@host:1", "http://u:hunter2@[", ""])
def test_a_proxy_address_that_cannot_be_used_is_refused_without_repeating_it(proxy: str) -> None:
    with pytest.raises(Misconfigured, match="proxy") as caught:
        HttpReader("https://example.com", HttpOptions(proxy=proxy))
    assert "hunter2" not in str(caught.value)


def test_the_environment_is_not_asked_for_a_proxy(storage: MemoryStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with FaultyServer(storage) as server, HttpReader(server.url) as reader:
        assert reader.read(KEY, limit=10) == b"{}"
