"""The repository over HTTP, spoken to as any client would, through the real server."""

from __future__ import annotations

import hashlib
import http.client
import os
import queue
import random
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from instar.errors import Misconfigured
from instar.server import Serving, serve
from instar.storage import HttpReader, LocalStorage

PACK = f"packs/ab/{'ab' * 32}.pack"
DATA = random.Random(5).randbytes(700_000)
TIMESTAMP = b'{"signed": {"version": 1}}'


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class Client:
    serving: Serving
    storage: LocalStorage

    def ask(self, method: str, path: str, **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.serving.port, timeout=30)
        try:
            connection.putrequest(method, path, skip_accept_encoding=True)
            for name, value in headers.items():
                connection.putheader(name.replace("_", "-"), value)
            connection.endheaders()
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, **headers)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    root = tmp_path_factory.mktemp("repository")
    storage = LocalStorage(root / "storage")
    storage.write(PACK, DATA)
    storage.write("metadata/timestamp.json", TIMESTAMP)
    storage.write("metadata/1.root.json", b"{}")
    storage.write("targets/app/0c.linux-1.0+local.manifest", b"m")
    storage.write("instar.toml", b"secret")
    storage.write("other/x", b"secret")
    (storage.root / ".env").write_bytes(b"secret")
    (storage.root / "metadata/.hidden").write_bytes(b"secret")
    (root / "outside").write_bytes(b"secret")
    (storage.root / "metadata/link.json").symlink_to(root / "outside")
    up: queue.Queue[Serving] = queue.Queue()
    thread = threading.Thread(target=serve, args=(storage.root, "127.0.0.1", 0, up.put))
    thread.start()
    serving = up.get(timeout=60)
    yield Client(serving, storage)
    serving.stop()
    thread.join(60)
    assert not thread.is_alive()


def test_an_object_is_served_whole(client: Client) -> None:
    answer = client.get(f"/{PACK}")
    assert (answer.status, answer.body) == (200, DATA)
    assert answer.headers["content-length"] == str(len(DATA))
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("header", "start", "end"),
    [("bytes=0-0", 0, 1), ("bytes=300000-599999", 300_000, 600_000), ("bytes=-7", 699_993, 700_000)],
)
def test_a_part_is_served(client: Client, header: str, start: int, end: int) -> None:
    answer = client.get(f"/{PACK}", Range=header)
    assert (answer.status, answer.body) == (206, DATA[start:end])
    assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/700000"
    assert answer.headers["content-length"] == str(end - start)


def test_a_part_of_what_may_change_is_served(client: Client) -> None:
    answer = client.get("/metadata/timestamp.json", Range="bytes=2-7")
    assert (answer.status, answer.body) == (206, TIMESTAMP[2:8])


@pytest.mark.parametrize("path", [f"/{PACK}", "/metadata/timestamp.json"])
def test_a_part_that_is_not_there_is_refused_with_the_size(client: Client, path: str) -> None:
    answer = client.get(path, Range="bytes=700000-")
    assert answer.status == 416
    assert answer.headers["content-range"].startswith("bytes */")


@pytest.mark.parametrize("path", [f"/{PACK}", "/metadata/timestamp.json"])
def test_head_says_the_same_without_the_content(client: Client, path: str) -> None:
    head, get = client.ask("HEAD", path), client.get(path)
    same = ("content-length", "etag", "cache-control", "content-type")
    assert head.status == 200
    assert head.body == b""
    assert [head.headers[name] for name in same] == [get.headers[name] for name in same]
    assert client.ask("HEAD", path, Range="bytes=0-4").headers["content-length"] == "5"


def test_what_its_name_fixes_may_be_kept_for_ever_and_the_timestamp_never(client: Client) -> None:
    for path in (f"/{PACK}", "/metadata/1.root.json"):
        assert client.get(path).headers["cache-control"] == "public, max-age=31536000, immutable"
    assert client.get("/metadata/timestamp.json").headers["cache-control"] == "no-cache"
    assert client.get("/metadata/2.root.json").headers["cache-control"] == "no-store"


@pytest.mark.parametrize("path", [f"/{PACK}", "/metadata/timestamp.json"])
def test_what_the_client_has_already_is_not_sent_again(client: Client, path: str) -> None:
    tag = client.get(path).headers["etag"]
    for known in (tag, f"W/{tag}", f'"x", {tag}', "*"):
        answer = client.get(path, If_None_Match=known)
        assert (answer.status, answer.body) == (304, b"")
        assert answer.headers["etag"] == tag
    assert client.get(path, If_None_Match='"x"').status == 200


def test_the_tag_follows_the_content(client: Client) -> None:
    before = client.get("/metadata/timestamp.json").headers["etag"]
    client.storage.write("metadata/timestamp.json", b"other")
    after = client.get("/metadata/timestamp.json", If_None_Match=before)
    assert (after.status, after.body) == (200, b"other")
    client.storage.write("metadata/timestamp.json", TIMESTAMP)
    assert before == f'"{hashlib.sha256(TIMESTAMP).hexdigest()}"'


def test_a_part_of_another_state_is_not_served_as_a_part(client: Client) -> None:
    tag = client.get(f"/{PACK}").headers["etag"]
    assert client.get(f"/{PACK}", Range="bytes=0-4", If_Range=tag).status == 206
    assert client.get(f"/{PACK}", Range="bytes=0-4", If_Range='"other"').body == DATA


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "//",
        "/metadata",
        "/metadata/",
        "/packs/ab/",
        "/instar.toml",
        "/other/x",
        "/.env",
        "/metadata/.hidden",
        "/metadata/link.json",
        "/.publisher.lock",
        "/metadata/../instar.toml",
        "/metadata/../../outside",
        "/metadata/%2e%2e/instar.toml",
        "/metadata/..%2finstar.toml",
        "/metadata/..%2Finstar.toml",
        "/metadata%2F1.root.json",
        "/metadata/..%5cinstar.toml",
        "/metadata//1.root.json",
        "//etc/passwd",
        "/metadata/%00",
        "/metadata/1.root.json%00",
        "/metadata/1.root.json/",
        "/metadata/%C3%A4",
        "/metadata/" + "a" * 5000,
        "http://elsewhere/instar.toml",
    ],
)
def test_nothing_but_objects_is_served(client: Client, path: str) -> None:
    for method in ("GET", "HEAD"):
        answer = client.ask(method, path)
        assert answer.status in {400, 404}, answer
        assert b"secret" not in answer.body


def test_characters_that_a_client_quoted_without_need_are_understood(client: Client) -> None:
    assert client.get("/targets/app/0c.linux-1.0%2Blocal.manifest").body == b"m"
    assert client.get("/metadata/%31.root.json?x=y").body == b"{}"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_nothing_can_be_changed(client: Client, method: str) -> None:
    assert client.ask(method, "/metadata/timestamp.json").status == 405


def test_a_client_that_goes_away_in_the_middle_disturbs_nobody(client: Client) -> None:
    client.storage.write(PACK, bytes(30_000_000))
    try:
        for _ in range(5):
            with socket.create_connection(("127.0.0.1", client.serving.port)) as connection:
                connection.sendall(f"GET /{PACK} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                assert connection.recv(1000)
        assert client.get("/metadata/1.root.json").body == b"{}"
    finally:
        client.storage.write(PACK, DATA)


def test_an_object_that_cannot_be_read_is_said_without_the_reason(client: Client) -> None:
    client.storage.write("metadata/timestamp.json", bytes(17_000_000))  # longer than it may be
    try:
        answer = client.get("/metadata/timestamp.json")
        assert answer.status == 404
        assert str(client.storage.root).encode() not in answer.body
    finally:
        client.storage.write("metadata/timestamp.json", TIMESTAMP)


def test_a_port_in_use_is_said(client: Client) -> None:
    with pytest.raises(Misconfigured, match="Choose another port"):
        serve(client.storage.root, "127.0.0.1", client.serving.port)


@pytest.mark.parametrize(("host", "port"), [("192.0.2.1", 0), ("no such host", 0), ("127.0.0.1", 99999)])
def test_an_address_that_is_not_ours_is_said(tmp_path: Path, host: str, port: int) -> None:
    with pytest.raises(Misconfigured):
        serve(tmp_path, host, port)


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        ("localhost", ("http://127.0.0.1:", "http://[::1]:")),
        ("0.0.0.0", ("http://127.0.0.1:",)),  # noqa: S104  # every network of the test's machine, for a moment
        ("::1", ("http://[::1]:",)),
    ],
)
def test_the_address_that_is_told_can_be_read_from(tmp_path: Path, host: str, shown: tuple[str, ...]) -> None:
    if host == "::1" and not has_ipv6():
        pytest.skip("this machine has no IPv6")
    LocalStorage(tmp_path).write("metadata/1.root.json", b"{}")

    def read(serving: Serving) -> None:
        told.append(serving.url)
        thread = threading.Thread(target=read_and_stop, args=(serving,))
        thread.start()

    def read_and_stop(serving: Serving) -> None:
        try:
            with HttpReader(serving.url) as reader:
                told.append(reader.read("metadata/1.root.json", limit=10).decode())
        finally:
            serving.stop()

    told: list[str] = []
    serve(tmp_path, host, 0, read)
    assert told[0].startswith(shown)
    assert told[1] == "{}"


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="no repository"):
        serve(tmp_path / "nothing")


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_in_order(tmp_path: Path, number: signal.Signals) -> None:
    program = (
        "import pathlib, sys; from instar.server import serve; "
        "serve(pathlib.Path(sys.argv[1]), port=0, on_ready=lambda s: print(s.url, flush=True)); print('ended')"
    )
    environment = {name: value for name, value in os.environ.items() if name.upper() in {"PATH", "SYSTEMROOT"}}
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("http://127.0.0.1:")
        process.send_signal(number)
        assert process.stdout.read() == "ended\n"
    assert process.returncode == 0
