"""A web server on loopback for tests, on the standard library alone, that misbehaves when it is told to.

Its good behaviour is that of a plain static host; each fault changes one answer. It is not the server of
``instar serve`` on purpose: what reads must not depend on who serves.
"""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Self

from instar.errors import InstarError
from instar.storage import Reader

__all__ = [
    "CloseEarly",
    "Endless",
    "EndlessHead",
    "Fault",
    "FaultyServer",
    "Hang",
    "IgnoreRange",
    "Received",
    "Redirect",
    "RefuseRange",
    "Shorten",
    "Status",
    "Trickle",
    "WrongBytes",
    "WrongRange",
    "refused_port",
]

_RANGE: Final = re.compile(r"bytes=(\d+)-(\d*)")
# Longest object that the server keeps in memory to send it, in bytes.
_MAX_OBJECT: Final = 1 << 30
_BLOCK: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that goes wrong with one answer."""


@dataclass(frozen=True, slots=True)
class IgnoreRange(Fault):
    """The whole object is sent, with status 200, whatever part was asked for.

    ``with_length=False`` leaves out its length and closes the connection at the end instead.
    """

    with_length: bool = True


@dataclass(frozen=True, slots=True)
class RefuseRange(Fault):
    """Status 416 for any range; a request without one is answered as usual."""


@dataclass(frozen=True, slots=True)
class WrongRange(Fault):
    """Another part than was asked for, and the header says so: it begins so many bytes later."""

    later: int = 1


@dataclass(frozen=True, slots=True)
class Shorten(Fault):
    """A part of at most so many bytes is sent instead of a longer one, correctly labelled, as some caches do."""

    to: int


@dataclass(frozen=True, slots=True)
class CloseEarly(Fault):
    """The connection is closed after so many bytes of the body. ``chunked`` sends the body in chunks, unlabelled."""

    after: int
    chunked: bool = False


@dataclass(frozen=True, slots=True)
class WrongBytes(Fault):
    """The length is right, and the byte at this place of the object is not."""

    at: int = 0


@dataclass(frozen=True, slots=True)
class Trickle(Fault):
    """The body comes so many bytes at a time, with a pause of so many seconds after each. ``head`` too, if asked."""

    count: int = 1
    pause: float = 0.01
    head: bool = False


@dataclass(frozen=True, slots=True)
class Hang(Fault):
    """After so many bytes of the body (None: before any answer) nothing comes until the server is closed."""

    after: int | None = None


@dataclass(frozen=True, slots=True)
class Endless(Fault):
    """The body goes on for ever, with no length given."""


@dataclass(frozen=True, slots=True)
class EndlessHead(Fault):
    """Headers without end, or with ``interim`` answers of status 100 without end."""

    interim: bool = False


@dataclass(frozen=True, slots=True)
class Status(Fault):
    """This status, with these headers and a short body."""

    code: int
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Redirect(Fault):
    """A redirection to this address; ``{key}`` in it stands for the key that was asked for."""

    to: str
    code: int = 302


@dataclass(frozen=True, slots=True)
class Received:
    """A request as it came: method, key, headers with lower-case names."""

    method: str
    key: str
    headers: dict[str, str]

    @property
    def range(self) -> str | None:
        """The range that was asked for."""
        return self.headers.get("range")


@dataclass
class _Planned:
    fault: Fault
    key: str | None
    times: int | None


class FaultyServer:
    """Serves a storage below ``url`` until the end of a ``with`` block.

    Args:
        storage: what is served.
        tls: certificate and key for HTTPS.

    Attributes:
        url: the address of the storage.
        received: every request so far.
        connections: how many were made so far.

    """

    def __init__(self, storage: Reader, *, tls: ssl.SSLContext | None = None) -> None:
        self.received: list[Received] = []
        self.connections = 0
        self._storage = storage
        self._tls = tls
        self._planned: list[_Planned] = []
        self._planning = threading.Lock()
        self._closing = threading.Event()
        self._server = _Server(self)
        self.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{self._server.server_port}/repository"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def fault(self, fault: Fault, *, times: int | None = 1, key: str | None = None) -> None:
        """Let the next ``times`` answers (None: all from now on) go wrong, or those about ``key`` alone.

        Faults that are planned later wait until the earlier ones for the same request are used up.
        """
        with self._planning:
            self._planned.append(_Planned(fault, key, times))

    def heal(self) -> None:
        """Forget the faults that are planned."""
        with self._planning:
            self._planned.clear()

    def __enter__(self) -> Self:
        """Start."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop; whatever hangs is let go."""
        self._closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _take(self, request: Received) -> Fault | None:
        with self._planning:
            self.received.append(request)
            for planned in self._planned:
                if planned.key not in {None, request.key}:
                    continue
                if planned.times is not None:
                    planned.times -= 1
                    if planned.times == 0:
                        self._planned.remove(planned)
                return planned.fault
        return None


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    block_on_close = True
    request_queue_size = 128

    def __init__(self, owner: FaultyServer) -> None:
        self.owner = owner
        self._open: set[socket.socket] = set()
        super().__init__(("127.0.0.1", 0), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401  # as in socketserver
        self.owner.connections += 1
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:  # noqa: ANN401  # as in socketserver
        tls = self.owner._tls  # noqa: SLF001  # one piece in two classes
        connection: socket.socket = request
        self._open.add(connection)
        with contextlib.suppress(OSError):
            if tls is not None:
                connection = tls.wrap_socket(request, server_side=True)
            self._open.add(connection)
            super().process_request_thread(connection, client_address)
        self._open -= {request, connection}
        connection.close()

    def server_close(self) -> None:
        # Clients keep connections open, and a thread waits for the next request on each.
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        super().server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401  # as in socketserver
        """Say nothing: clients that go away in the middle are the everyday life of this server."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def do_GET(self) -> None:  # the name that http.server calls
        self._answer()

    def do_HEAD(self) -> None:  # the name that http.server calls
        self._answer()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # as in http.server
        """Say nothing."""

    def _answer(self) -> None:
        owner = self.server.owner
        # As S3 reads it. Other escapes are part of a key.
        key = self.path.removeprefix("/repository/").replace("+", " ").replace("%2B", "+")
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Received(self.command, key, headers)
        fault = owner._take(request)  # noqa: SLF001  # one piece in two classes
        match fault:
            case Status(code, extra):
                return self._send(code, b"as it was told", dict(extra))
            case Redirect(to, code):
                return self._send(code, b"over there", {"Location": to.format(key=key)})
            case Hang(None):
                return self._hang()
            case EndlessHead(interim):
                return self._endless_head(interim=interim)
            case Endless():
                return self._endless()
            case _:
                pass
        try:
            data = owner._storage.read(key, limit=_MAX_OBJECT)  # noqa: SLF001  # one piece in two classes
        except InstarError:
            return self._send(404, b"there is no such object", {})
        if isinstance(fault, WrongBytes) and fault.at < len(data):
            data = data[: fault.at] + bytes([data[fault.at] ^ 1]) + data[fault.at + 1 :]
        return self._send_object(data, request.range, fault)

    def _send_object(self, data: bytes, asked: str | None, fault: Fault | None) -> None:
        match = _RANGE.fullmatch(asked or "")
        if match is None or isinstance(fault, IgnoreRange):
            return self._send(200, data, {}, fault)
        start = int(match[1])
        end = min(len(data), int(match[2]) + 1 if match[2] else len(data))
        if isinstance(fault, RefuseRange) or start >= len(data):
            return self._send(416, b"no such part", {"Content-Range": f"bytes */{len(data)}"})
        if isinstance(fault, WrongRange):
            start = min(start + fault.later, len(data) - 1)
        if isinstance(fault, Shorten):
            end = min(end, start + fault.to)
        return self._send(206, data[start:end], {"Content-Range": f"bytes {start}-{end - 1}/{len(data)}"}, fault)

    def _send(self, status: int, body: bytes, headers: dict[str, str], fault: Fault | None = None) -> None:
        chunked = isinstance(fault, CloseEarly) and fault.chunked
        headers = dict(headers)
        if chunked:
            headers["Transfer-Encoding"] = "chunked"
        elif isinstance(fault, IgnoreRange) and not fault.with_length:
            headers["Connection"] = "close"
            self.close_connection = True
        else:
            headers.setdefault("Content-Length", str(len(body)))
        lines = [f"HTTP/1.1 {status} -", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        head = "\r\n".join(lines).encode()
        if isinstance(fault, Trickle) and fault.head:
            self._trickle(head, fault)
        else:
            self.wfile.write(head)
        if self.command == "HEAD":
            return
        match fault:
            case CloseEarly(after):
                body = body[:after]
                self.wfile.write(b"%x\r\n%b\r\n" % (len(body), body) if chunked and body else body)
                self._hang_up()
            case Trickle():
                self._trickle(body, fault)
            case Hang(int(after)):
                self.wfile.write(body[:after])
                self._hang()
            case _:
                for at in range(0, len(body), _BLOCK):
                    self.wfile.write(body[at : at + _BLOCK])

    def _trickle(self, data: bytes, fault: Trickle) -> None:
        for at in range(0, len(data), fault.count):
            if self._closed():
                break
            self.wfile.write(data[at : at + fault.count])
            time.sleep(fault.pause)

    def _endless(self) -> None:
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        while not self._closed():
            self.wfile.write(bytes(_BLOCK))

    def _endless_head(self, *, interim: bool) -> None:
        piece = b"HTTP/1.1 100 Continue\r\n\r\n" if interim else b"X-More: and more\r\n"
        if not interim:
            self.wfile.write(b"HTTP/1.1 200 OK\r\n")
        while not self._closed():
            self.wfile.write(piece * 50)

    def _hang(self) -> None:
        self.wfile.flush()
        self._closing_event().wait()
        self.close_connection = True

    def _hang_up(self) -> None:
        self.wfile.flush()
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def _closed(self) -> bool:
        return self._closing_event().is_set()

    def _closing_event(self) -> threading.Event:
        return self.server.owner._closing  # noqa: SLF001  # one piece in two classes


@contextlib.contextmanager
def refused_port() -> Iterator[str]:
    """Give an address where nothing answers, and keep others from answering there for a ``with`` block."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, never listening: connections are refused
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"
