"""The device's commands, run inside this process: what they take, what they print, which code they end with."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tuf.api.metadata import Timestamp

from instar.cli.app import run
from instar.storage import LocalStorage
from instar.testing.releases import Bundle, Releases
from instar.testing.repository import TwinRepository


def program(version: str, big: str = "line\n") -> Bundle:
    script = f"#!/bin/sh\necho {version}\n".encode()
    return Bundle({"app": script, "lib/big": big.encode() * 20_000}, executable={"app"})


@dataclass
class World:
    """A publisher's repository in a folder, and a device that reads it there."""

    folder: Path
    releases: Releases
    capture: pytest.CaptureFixture[str]

    @property
    def url(self) -> str:
        return (self.folder / "repository").as_uri()

    @property
    def root(self) -> Path:
        return self.folder / "root.json"

    @property
    def device(self) -> Path:
        return self.folder / "device"

    def run(self, *arguments: object, code: int = 0) -> str:
        """Run a command; give what it printed."""
        self.capture.readouterr()
        ended = run([str(argument) for argument in arguments])
        printed = self.capture.readouterr()
        assert ended == code, f"{arguments}: {ended}\n{printed.out}\n{printed.err}"
        return printed.out + printed.err

    def json(self, *arguments: object) -> Any:
        return json.loads(self.run(*arguments, "--json"))

    def install(self, folder: Path | None = None, *options: object) -> str:
        return self.run("install", "myapp", "--url", self.url, "--root", self.root, folder or self.device, *options)

    def app(self) -> str:
        return subprocess.run([self.device / "current/app"], capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def world(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> World:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    releases = Releases(TwinRepository("myapp", storage=LocalStorage(tmp_path / "repository")))
    releases.release("1.0", program("1.0"))
    made = World(tmp_path, releases, capsys)
    made.root.write_bytes(releases.repository.root)
    return made


def test_an_app_that_stands_in_its_folder_is_adopted_and_updated_there(world: World) -> None:
    world.install()
    app = world.folder / "myapp"
    shutil.move((world.device / "current").resolve(), app)
    (app / "lib/big").write_text("edited")
    adopted = world.json(
        "adopt",
        app,
        "--product",
        "myapp",
        "--version",
        "1.0",
        "--url",
        world.url,
        "--root",
        world.root,
    )
    assert adopted == {"adopted": "1.0", "differences": [{"path": "lib/big", "difference": "changed"}]}
    world.releases.release("1.2", program("1.2"))
    world.run("update", app)
    assert subprocess.run([app / "app"], capture_output=True, text=True, check=True).stdout == "1.2\n"
    assert (app / "lib/big").stat().st_size == 100_000


def test_switching_the_channel_may_lead_down_again(world: World) -> None:
    world.install()
    world.releases.release("2.0b1", program("2.0b1"), channel="beta")
    assert "1.0" in world.app()
    world.run("update", world.device, "--channel", "beta")
    assert world.app() == "2.0b1"
    world.run("confirm", world.device)
    assert world.json("status", world.device)["channel"] == "beta"
    assert "Nothing new" in world.run("update", world.device)
    world.run("update", world.device, "--channel", "stable")
    assert world.app() == "1.0"


def test_errors_end_with_the_code_of_their_family_and_say_what_to_do(world: World) -> None:
    root = world.root
    assert "no installation" in world.run("check", world.folder / "nowhere", code=2)
    assert "not empty" in world.run("install", "myapp", "--url", world.url, "--root", root, world.folder, code=2)
    arguments = ("install", "myapp", "--root", root, world.device)
    assert "cannot be read" in world.run(
        "install", "myapp", "--url", world.url, "--root", "missing.json", world.device, code=2
    )
    assert "insecure" in world.run(*arguments, "--url", "http://updates.example/", code=2)
    world.run(*arguments, "--url", "http://127.0.0.1:9/", code=4)
    world.run(*arguments, "--url", world.url, "--channel", "nightly", code=2)
    other = world.folder / "stranger.json"
    other.write_bytes(TwinRepository("myapp").root)
    stranger = ("install", "myapp", "--url", world.url, "--root", other, world.folder / "third")
    assert "signed" in world.run(*stranger, code=3)
    for wrong in (["--fact", "novalue"], ["--header", "novalue"], ["--confirmed-by", "me"], ["--health", "'"]):
        world.run(*arguments, "--url", world.url, *wrong, code=2)
    world.install()
    world.run("update", world.device, "--when", "later", code=2)
    world.run("rollback", world.device, code=2)
    assert world.app() == "1.0"


def test_a_server_that_is_gone_is_said_and_breaks_nothing(world: World) -> None:
    world.install()
    record = world.device / ".instar/record.json"
    record.write_text(record.read_text().replace(world.url, "http://127.0.0.1:9/"))
    world.run("check", world.device, code=4)
    text = world.run("status", world.device)
    assert "failed" in text
    assert "valid until" in text
    assert world.app() == "1.0"


def test_options_of_an_installation_are_kept_for_later_commands(world: World) -> None:
    world.install(
        None,
        *("--keep", "data/*", "--health", "app --version", "--max-starts", "5", "--fact", "ring=inner"),
        *("--device-id", "me", "--header", "X-Token: secret", "--mirror", world.url, "--channel", "stable"),
    )
    found = world.json("status", world.device)
    assert (found["device_id"], found["max_starts"], found["urls"]) == ("me", 5, [world.url, world.url])
    record = json.loads((world.device / ".instar/record.json").read_text())
    assert (record["keep"], record["health"], record["facts"]) == (["data/*"], ["app", "--version"], {"ring": "inner"})
    data = world.device / "current/data"
    data.mkdir()
    (data / "mine").write_text("mine")
    left = world.json("uninstall", world.device, "--keep-user-files")["left"]
    assert [Path(path).read_text() for path in left] == ["mine"]


def test_everything_that_a_person_wants_to_know_is_printed(world: World) -> None:
    world.install()
    world.releases.release("1.1", program("1.1"), patched_from="1.0", notes="Faster.\n", introduces=1)
    text = world.run("check", world.device, "--exit-code", code=10)
    assert "Version 1.1 is available (a newer release is offered); installed is 1.0." in text
    assert "in 1 request, " in text
    assert "patches" in text
    assert "unchanged" in text
    assert "cannot be skipped" in text
    assert text.endswith("Faster.\n")
    assert world.json("check", world.device)["update"]["checkpoint"] == 1
    text = world.run("update", world.device, "--when", "next-start")
    assert "when the app starts next" in text
    text = world.run("status", world.device)
    assert "Version 1.1 waits for the next start of the app." in text
    assert "version 1.1 is offered" in text
    assert world.json("update", world.device)["outcome"] == "selected"
    assert "started 0 of 3 times without being confirmed" in world.run("status", world.device)
    assert "Confirmed" in world.run("confirm", world.device)
    assert world.json("update", world.device) == {"current": "1.1", "installed": None}
    (world.device / "current/app").write_text("broken")
    text = world.run("repair", world.device)
    assert "1 entry was mended" in text
    assert "app: changed" in text
    assert "nothing to repair" in world.run("repair", world.device)
    text = world.run("rollback", world.device, code=0)
    assert "Version 1.0 runs" in text
    assert "Removed" in world.run("uninstall", world.device)


def test_an_adopted_apps_differences_are_listed_up_to_a_number(world: World) -> None:
    app = world.folder / "there"
    app.mkdir()
    for number in range(30):
        (app / f"extra{number:02}").write_text("x")
    options = ("--product", "myapp", "--version", "1.0", "--url", world.url, "--root", world.root)
    text = world.run("adopt", app, *options)
    assert "33 entries were not as in the signed release" in text
    assert "and 13 more" in text


def test_a_proxy_is_taken_from_the_environment(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from instar.cli.device import environment_proxy

    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", "inside.example")
    assert environment_proxy("https://updates.example/") == "http://proxy.example:3128"
    assert environment_proxy("https://inside.example/") is None
    assert environment_proxy("/srv/updates") is None


def test_expired_metadata_is_said_with_its_date(world: World) -> None:
    from datetime import UTC, datetime

    world.install()
    # The publisher sleeps for weeks: what the device then sees is a timestamp that ended.
    ended = datetime(2026, 1, 2, tzinfo=UTC)

    def end(timestamp: Timestamp) -> None:
        timestamp.version += 1
        timestamp.expires = ended

    world.releases.repository.forge("timestamp", end, signers=[world.releases.repository.online])
    text = world.run("check", world.device, code=3)
    assert "2026-01-02" in text
    assert world.app() == "1.0"
    assert "2026-01-02" in world.run("status", world.device)


def test_a_folder_given_as_the_address_means_the_same_from_everywhere(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(world.folder)
    options = ("--mirror", "stick", "--root", world.root)
    world.run("install", "myapp", "--url", "repository", *options, world.device)
    monkeypatch.chdir("/")
    assert world.json("status", world.device)["urls"] == [str(world.folder / "repository"), str(world.folder / "stick")]
    world.releases.release("1.1", program("1.1"))
    assert world.json("check", world.device)["update"]["version"] == "1.1"


def test_an_address_without_its_beginning_is_said_to_be_none(world: World) -> None:
    said = world.run("install", "myapp", "--url", "updates.example.com", "--root", world.root, world.device, code=2)
    assert "'updates.example.com' is no folder" in said
    assert "https://" in said
    assert not world.device.exists()


def test_confirming_and_going_back_are_reported_to_programs_too(world: World) -> None:
    world.install()
    world.releases.release("1.1", program("1.1"))
    world.run("update", world.device)
    assert world.json("confirm", world.device) == {"confirmed": "1.1"}
    assert world.json("rollback", world.device) == {"version": "1.0"}


def test_a_version_that_failed_is_offered_again_when_a_person_says_so(world: World) -> None:
    world.install()
    world.releases.release("1.1", program("1.1"))
    world.run("update", world.device)
    world.run("rollback", world.device)
    assert world.json("check", world.device)["update"] is None
    assert world.json("retry", world.device) == {"forgotten": ["1.1"]}
    assert world.json("check", world.device)["update"]["version"] == "1.1"
    assert world.json("retry", world.device) == {"forgotten": []}
