"""The counting web server as a child process, so that its work is in nobody's figures."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class Server:
    """A running one."""

    url: str

    def take_traffic(self) -> dict[str, Any]:
        """`{"requests": n, "bytes": n, "folders": {folder: bytes}}` since the last call; bytes of bodies."""
        with urllib.request.urlopen(f"{self.url}/.traffic", timeout=10) as answer:
            counts: dict[str, Any] = json.load(answer)
        return counts


@contextmanager
def serving(folder: Path) -> Iterator[Server]:
    """Serve `folder` on a free loopback port until the block ends."""
    argv = [sys.executable, str(Path(__file__).with_name("range_server.py")), str(folder)]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield Server(f"http://127.0.0.1:{int(process.stdout.readline())}")
    finally:
        process.terminate()
        process.communicate()
