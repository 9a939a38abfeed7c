"""A real app, frozen by PyInstaller, updates itself through a real server, and heals itself from a broken release."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from instar.system.platform import detect_platform

EXAMPLE = Path(__file__).parents[2] / "examples" / "hello"
STARTUP_SECONDS = 60


def instar(*arguments: object) -> Any:
    command = [sys.executable, "-m", "instar", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout) if "--json" in arguments else done.stdout


def freeze(folder: Path, version: str, data: dict[str, bytes]) -> Path:
    """Build the example as a bundle. PyInstaller finds our hook through the entry point of the installed package."""
    inputs = folder / "inputs" / version
    inputs.mkdir(parents=True)
    for name, content in {**data, "VERSION": version.encode()}.items():
        (inputs / name).write_bytes(content)
    bundle = folder / "dist" / version
    command = [
        *(sys.executable, "-m", "PyInstaller", str(EXAMPLE / "main.py"), "--name", "hello", "--onedir", "--noconfirm"),
        *("--distpath", str(bundle), "--workpath", str(folder / "work"), "--specpath", str(folder / "work")),
        *("--log-level", "WARN"),
    ]
    for path in sorted(inputs.iterdir()):
        command += ["--add-data", f"{path}{os.pathsep}."]
    # The cache of processed libraries is shared by the versions, and belongs to this test alone.
    environment = {**os.environ, "PYINSTALLER_CONFIG_DIR": str(folder / "cache")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return bundle / "hello"


@contextlib.contextmanager
def serving(project: Path, port: int) -> Iterator[None]:
    command = [sys.executable, "-m", "instar", "serve", "-C", str(project), "--port", str(port)]
    with (project / "server.log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            deadline = time.monotonic() + STARTUP_SECONDS
            while time.monotonic() < deadline and process.poll() is None:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.1)
            else:
                pytest.fail("the server did not start: " + (project / "server.log").read_text())
            yield
        finally:
            process.terminate()
            process.wait(20)


def run_app(app: Path, *arguments: str) -> str:
    done = subprocess.run([str(app), *arguments], capture_output=True, text=True, check=False, timeout=120)
    return done.stdout + done.stderr


@pytest.mark.timeout(900)
def test_a_frozen_app_updates_itself_and_goes_back_from_a_broken_release(tmp_path: Path) -> None:
    project, device = tmp_path / "publisher", tmp_path / "device"
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    url = f"http://127.0.0.1:{port}/"
    instar("init", project, "--product", "hello", "--no-passphrase", "--url", url)
    settings = json.dumps({"product": "hello", "url": url, "program": "hello"}).encode()
    data = {"root.json": (project / "root.json").read_bytes(), "update.json": settings}

    first = freeze(tmp_path, "1.0", data)
    publisher_only = ("instar/publish", "numpy", "typer", "pyfastcdc", "granian")
    frozen = {str(path.relative_to(first)) for path in first.rglob("*")}
    assert not [name for name in frozen if any(part in name for part in publisher_only)]

    instar("release", first, "-C", project, "--version", "1.0", "--effort", "fast")
    with serving(project, port):
        instar("install", "hello", "--url", url, "--root", project / "root.json", device)
        app = device / "current" / "hello"
        assert "Hello from version 1.0" in run_app(app)
        assert "Nothing new" in run_app(app, "update")
        notes = device / "current" / "notes"
        notes.mkdir()
        (notes / "mine.txt").write_text("remember the milk")

        instar("release", freeze(tmp_path, "2.0", data), "-C", project, "--version", "2.0", "--effort", "fast")
        update = instar("check", device, "--json")["update"]
        assert update["version"] == "2.0"
        assert update["download_size"] < update["full_size"] * 0.2
        assert "Installed" in run_app(app, "update")
        assert "Hello from version 2.0" in run_app(app)
        assert (device / "current/notes/mine.txt").read_text() == "remember the milk"

        broken = freeze(tmp_path, "3.0", {**data, "CRASH": b""})
        instar("release", broken, "-C", project, "--version", "3.0", "--effort", "fast")
        assert "Installed" in run_app(app, "update")
        for _ in range(3):
            assert "badly wrong" in run_app(app)
        assert "Hello from version 2.0" in run_app(app)
        assert instar("check", device, "--json")["update"] is None
        status = instar("status", device, "--json")
        assert [failure["version"] for failure in status["failed"]] == ["3.0"]
    assert detect_platform() in instar("list", "-C", project)
