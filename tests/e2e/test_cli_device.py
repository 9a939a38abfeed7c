"""Publish, serve, install, update, roll back: real ``instar`` processes, a real web server, loopback only."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

# Anything longer hangs.
PATIENCE = 120


@dataclass
class World:
    """A publisher's folder, its server, and a device."""

    folder: Path
    url: str = ""

    @property
    def publisher(self) -> Path:
        return self.folder / "publisher"

    @property
    def device(self) -> Path:
        return self.folder / "device"

    def run(self, *arguments: object, code: int = 0) -> str:
        """Run a command; give what it printed."""
        done = subprocess.run(
            command(*arguments), cwd=self.folder, capture_output=True, text=True, check=False, timeout=PATIENCE
        )
        assert done.returncode == code, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def json(self, *arguments: object) -> Any:
        return json.loads(self.run(*arguments, "--json"))

    def release(self, version: str, *options: object, **files: str) -> None:
        bundle = self.folder / f"bundle-{version}"
        (bundle / "lib").mkdir(parents=True)
        (bundle / "app").write_text(f"#!/bin/sh\necho {version}\n")
        (bundle / "app").chmod(0o755)
        (bundle / "lib/big").write_text("".join(f"line {n}\n" for n in range(20_000)))
        for name, content in files.items():
            (bundle / name).write_text(content)
        self.run("release", bundle, "--version", version, "-C", self.publisher, *options)

    def install(self, folder: Path | None = None, *options: object) -> str:
        root = self.publisher / "root.json"
        return self.run("install", "myapp", "--url", self.url, "--root", root, folder or self.device, *options)

    def app(self, folder: Path | None = None) -> str:
        program = (folder or self.device) / "current/app"
        return subprocess.run([program], capture_output=True, text=True, check=True).stdout.strip()


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "instar", *map(str, arguments)]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A publisher with version 1.0, and its server."""
    made = World(tmp_path)
    made.run("init", made.publisher, "--product", "myapp", "--no-passphrase")
    made.release("1.0")
    serve = command("serve", "--port", "0", "-C", made.publisher)
    with subprocess.Popen(serve, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        assert server.stdout is not None
        found = None
        while found is None:
            line = server.stdout.readline()
            assert line, "the server ended"
            found = re.search(r"http://[\w.:]+/?", line)
        made.url = found[0]
        yield made
        server.terminate()


def test_the_whole_way_of_an_app_through_its_life(world: World) -> None:
    world.install()
    assert world.app() == "1.0"
    assert world.json("check", world.device) == {"current": "1.0", "update": None}
    assert "Nothing new" in world.run("check", world.device)

    notes = world.folder / "notes.md"
    notes.write_text("Now with *everything*.\n")
    world.release("1.1", "--notes", notes, extra="new\n")
    found = world.json("check", world.device)
    assert set(found) == {"current", "update"}
    assert {"version", "download_size", "full_size", "notes", "checkpoint"} <= set(found["update"])
    assert (found["current"], found["update"]["version"]) == ("1.0", "1.1")
    assert 0 < found["update"]["download_size"] < found["update"]["full_size"]
    assert found["update"]["notes"] == "Now with *everything*.\n"
    assert found["update"]["checkpoint"] is None
    text = world.run("check", world.device, "--exit-code", code=10)
    assert "Version 1.1 is available" in text
    assert "Now with *everything*." in text
    assert "unchanged" in text

    text = world.run("update", world.device)
    assert "Version 1.1" in text
    assert "of the full" in text
    assert world.app() == "1.1"
    assert world.json("status", world.device)["phase"] == "pending"
    world.run("confirm", world.device)
    assert world.json("status", world.device)["phase"] == "steady"

    # Somebody damaged it.
    (world.device / "current/lib/big").write_text("oops")
    (world.device / "current/extra").unlink()
    repaired = world.json("repair", world.device)
    assert {row["path"] for row in repaired["repaired"]} == {"lib/big", "extra"}
    assert 0 < repaired["transferred"] <= found["update"]["full_size"]
    assert "nothing to repair" in world.run("repair", world.device)

    # It was not that good after all.
    text = world.run("rollback", world.device, "--reason", "people complained")
    assert "1.0" in text
    assert world.app() == "1.0"
    assert "failed on this device" in world.run("check", world.device)
    assert "people complained" in world.run("status", world.device)
    world.run("uninstall", world.device)
    assert not world.device.exists() or not any(world.device.iterdir())


def test_eight_processes_at_once_one_works_and_the_others_are_told_busy_or_done(world: World) -> None:
    world.install()
    world.release("1.3", more="content\n" * 1000)
    updates = [
        subprocess.Popen(command("update", world.device), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(8)
    ]
    ends = [(process.communicate(timeout=PATIENCE)[0], process.returncode) for process in updates]
    assert {code for _, code in ends} <= {0, 6}, ends
    assert sum("Version 1.3" in text for text, code in ends if code == 0) == 1
    assert all("working on" in text for text, code in ends if code == 6)
    assert world.app() == "1.3"
    assert "nothing to repair" in world.run("repair", world.device)
