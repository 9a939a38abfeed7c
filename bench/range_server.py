"""A plain web server on loopback that knows ranges and counts what each client costs. Used for both sides alike.

`GET /.traffic` answers what was sent since it was last asked: `{"requests": n, "bytes": n, "folders": {…}}`, bytes
of bodies only, also by the first folder of the path. Prints its port on the first line of its standard output, and
serves until it is ended.
"""

from __future__ import annotations

import http.server
import json
import re
import sys
import threading
import urllib.parse
from collections import Counter
from pathlib import Path
from typing import Any

_BLOCK = 1 << 18


class Traffic:
    """Requests and body bytes, counted from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests = 0
        self._folders: Counter[str] = Counter()

    def add_request(self) -> None:
        """Count a request, whatever it will be answered."""
        with self._lock:
            self._requests += 1

    def add_bytes(self, folder: str, size: int) -> None:
        """Count bytes of a body."""
        with self._lock:
            self._folders[folder] += size

    def take(self) -> dict[str, object]:
        """The counts so far; starts again at zero."""
        with self._lock:
            taken = {
                "requests": self._requests,
                "bytes": self._folders.total(),
                "folders": dict(sorted(self._folders.items())),
            }
            self._requests = 0
            self._folders.clear()
        return taken


class Handler(http.server.BaseHTTPRequestHandler):
    """Files below one folder, whole or by one range."""

    protocol_version = "HTTP/1.1"
    root: Path
    traffic: Traffic

    def do_HEAD(self) -> None:
        """Headers only."""
        self._answer(body=False)

    def do_GET(self) -> None:
        """A file or a part of it."""
        if self.path == "/.traffic":
            data = json.dumps(self.traffic.take()).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
            return
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        name = urllib.parse.unquote(self.path.lstrip("/").split("?")[0])
        folder = name.split("/")[0]
        path = (self.root / name).resolve()
        self.traffic.add_request()
        if not path.is_relative_to(self.root) or not path.is_file():
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        size = path.stat().st_size
        start, end, status = 0, size, 200
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked:
            start, end, status = int(asked[1]), min(size, int(asked[2]) + 1) if asked[2] else size, 206
            if start >= size:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{size}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
        self.send_response(status)
        self.send_header("Content-Length", str(end - start))
        self.send_header("Accept-Ranges", "bytes")
        if status == http.HTTPStatus.PARTIAL_CONTENT:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
        self.end_headers()
        if not body:
            return
        with path.open("rb") as file:
            file.seek(start)
            left = end - start
            while left > 0 and (block := file.read(min(left, _BLOCK))):
                # Before it is sent: whoever has read it may ask for the count at once.
                self.traffic.add_bytes(folder, len(block))
                self.wfile.write(block)
                left -= len(block)

    def log_message(self, *_: object) -> None:
        """Silent: the counts say it all."""


class Server(http.server.ThreadingHTTPServer):
    """Silent about clients that end without saying goodbye, as command lines do."""

    def handle_error(self, *about: Any) -> None:
        """Tell of everything else."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(*about)


def main() -> None:
    """Serve the folder named on the command line."""
    Handler.root = Path(sys.argv[1]).resolve()
    Handler.traffic = Traffic()
    server = Server(("127.0.0.1", 0), Handler)
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main()
