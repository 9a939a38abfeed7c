"""An app's own life with its installation: start, restart, confirm, and what stands in the way."""

from __future__ import annotations

import contextlib
import errno
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

import instar
from instar.client.here import disk_errors, open_here
from instar.errors import Busy, InstallFailed, Misconfigured, Unavailable, Untrusted
from instar.install import Installation, Layout
from instar.model.digest import Digest
from instar.storage import MemoryStorage
from instar.testing.clock import FakeClock
from instar.testing.crash import READ_ONLY, run
from instar.testing.releases import Bundle, Releases, read_bundle
from instar.testing.repository import TwinRepository
from instar.trust.layout import channels_path

# An app as small as it can be: it starts, says which version it is, and confirms when it is told to.
APP = """
import sys
from pathlib import Path
import instar
root, arguments = Path({root!r}).read_bytes(), sys.argv[1:]
config = instar.Config("app", "https://x.example/", root, instar.find_installation(), platform={platform!r})
start = instar.startup(config)
print("start", {version!r}, start.reason.name, start.restart_needed, *arguments, flush=True)
if start.restart_needed:
    instar.restart(config)
if "crash" in arguments:
    raise SystemExit(1)
instar.confirm(config)
"""


class Scene:
    def __init__(self, folder: Path) -> None:
        self.releases = Releases(TwinRepository())
        self.storage = self.releases.repository.storage
        self.root = folder / "root.json"
        self.root.write_bytes(self.releases.repository.root)
        self.config = instar.Config("app", "https://x.example/", self.releases.repository.root, folder / "app")
        self.release("1.0")
        instar.first_install(self.config, reader=self.storage)

    def release(self, version: str) -> None:
        source = APP.format(root=str(self.root), platform=str(self.releases.platform), version=version)
        self.releases.release(version, Bundle({"main.py": source.encode()}))

    def update(self, when: str = "now") -> None:
        updater = instar.Updater(self.config, reader=self.storage)
        update = updater.check()
        assert update is not None
        updater.download(update).install(when="now" if when == "now" else "next-start")

    def start(self, *arguments: str) -> list[str]:
        main = self.config.location / "current/main.py"
        done = subprocess.run(
            [sys.executable, main, *arguments], capture_output=True, text=True, check=False, timeout=60
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done.stdout.splitlines()


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_an_app_restarts_itself_as_the_version_that_waited_for_its_start(scene: Scene) -> None:
    assert scene.start("-v") == ["start 1.0 NOTHING False -v"]
    scene.release("1.1")
    scene.update(when="next-start")
    assert scene.start("-v") == ["start 1.0 SWITCHED True -v", "start 1.1 NOTHING False -v"]
    assert instar.status(scene.config).phase == "steady"


def test_an_app_that_crashes_goes_back_by_itself_after_its_starts(scene: Scene) -> None:
    scene.release("1.1")
    scene.update()
    for _ in range(3):
        assert scene.start("crash") == ["start 1.1 NOTHING False crash"]
    assert scene.start("crash") == ["start 1.1 ROLLED_BACK True crash", "start 1.0 NOTHING False crash"]
    assert [str(failure.version) for failure in instar.status(scene.config).failed] == ["1.1"]


@contextlib.contextmanager
def somebody_else_working(config: instar.Config) -> Iterator[threading.Event]:
    """Hold the installer's lock in another thread until the event is set."""
    held, leave = threading.Event(), threading.Event()

    def work() -> None:
        with Installation.open(config.location).lock():
            held.set()
            leave.wait(30)

    thread = threading.Thread(target=work)
    thread.start()
    assert held.wait(30)
    try:
        yield leave
    finally:
        leave.set()
        thread.join()


def test_confirming_waits_for_who_is_at_work_and_gives_up_in_the_end(scene: Scene) -> None:
    scene.release("1.1")
    scene.update()
    clock = FakeClock(datetime.now(UTC))
    config = replace(scene.config, clock=clock)
    with somebody_else_working(config):
        with pytest.raises(Busy):
            instar.confirm(config)
        assert 9 < sum(clock.slept) < 11
        # The app itself runs on all the same.
        start = instar.startup(config)
        assert (start.restart_needed, start.reason.name) == (False, "POSTPONED")
        assert start.problem is not None

    class Impatient(FakeClock):
        def sleep(self, seconds: float) -> None:
            leave.set()
            worker_done.wait(0.2)
            super().sleep(seconds)

    worker_done = threading.Event()
    with somebody_else_working(config) as leave:
        instar.confirm(replace(config, clock=Impatient(datetime.now(UTC))))
    assert instar.status(config).phase == "steady"
    instar.confirm(config)


def test_an_error_of_the_disk_says_what_runs_and_what_to_do() -> None:
    with pytest.raises(InstallFailed, match="No space left") as caught, disk_errors(Path("/app"), running="1.0"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.running == "1.0"
    assert "Make room" in str(caught.value)


def test_what_cannot_be_put_on_record_is_refused_before_anything_is_made(scene: Scene, tmp_path: Path) -> None:
    for wrong in (
        {"keep": ("../outside",)},
        {"health": ("/bin/sh",)},
        {"health_timeout": 0.0},
        {"confirmed_by": "health"},
    ):
        config = replace(scene.config, location=tmp_path / "other", **wrong)  # type: ignore[arg-type]
        with pytest.raises(Misconfigured):
            instar.first_install(config, reader=scene.storage)
    assert not (tmp_path / "other").exists()


def test_an_unreadable_note_of_the_last_contact_is_as_good_as_none(scene: Scene) -> None:
    note = scene.config.location / ".instar/client/contact.json"
    for text in ("", "{", "[]", '{"when": 5}'):
        note.write_text(text)
        assert instar.status(scene.config).contact is None


def test_status_of_a_busy_installation_says_what_it_can(scene: Scene) -> None:
    with open_here(scene.config).working():
        found = instar.status(scene.config)
    assert str(found.version) == "1.0"
    assert (found.known_until, found.offered) == (None, None)


def test_status_on_a_read_only_disk_says_what_is_known(scene: Scene) -> None:
    scene.release("1.1")
    assert instar.Updater(scene.config, reader=scene.storage).check() is not None

    def look() -> None:
        found = instar.status(scene.config)
        assert found.known_until is not None
        assert (str(found.version), str(found.offered)) == ("1.0", "1.1")

    ended = run(look, below=scene.config.location, fault=READ_ONLY, at=1)
    assert ended.finished, ended.trace
    assert ended.reached


def test_a_version_that_confirms_by_its_health_alone_is_steady_at_once(tmp_path: Path) -> None:
    releases = Releases(TwinRepository())
    releases.release("1.0", Bundle({"app": b"#!/bin/sh\n"}, executable={"app"}))
    config = instar.Config(
        "app",
        "https://x.example/",
        releases.repository.root,
        tmp_path / "app",
        health=("app",),
        confirmed_by="health",
    )
    instar.first_install(config, reader=releases.repository.storage)
    releases.release("1.1", Bundle({"app": b"#!/bin/sh\nexit 0\n"}, executable={"app"}))
    updater = instar.Updater(config, reader=releases.repository.storage)
    update = updater.check()
    assert update is not None
    updater.download(update).install()
    assert instar.status(config).phase == "steady"


def test_the_health_command_sees_a_plain_environment(tmp_path: Path) -> None:
    releases = Releases(TwinRepository())
    script = b'#!/bin/sh\n[ "$TOKEN$LD_LIBRARY_PATH" = \'\' ] && [ "$HOME" = /home/me ]\n'
    releases.release("1.0", Bundle({"app": script}, executable={"app"}))
    from instar.client.environment import plain_environment

    environment = plain_environment(
        {
            "HOME": "/home/me",
            "TOKEN": "secret",
            "LD_LIBRARY_PATH": "/old/version",
            "LC_ALL": "C",
            "PATH": "/bin:/usr/bin",
        },
    )
    assert set(environment) == {"HOME", "LC_ALL", "PATH"}
    config = instar.Config(
        "app",
        "https://x.example/",
        releases.repository.root,
        tmp_path / "app",
        health=("app",),
        environment=environment,
    )
    instar.first_install(config, reader=releases.repository.storage)
    assert read_bundle(tmp_path / "app/current").files["app"] == script


def test_an_installation_that_was_begun_for_something_else_is_not_taken_over(scene: Scene, tmp_path: Path) -> None:
    config = replace(scene.config, location=tmp_path / "other")
    with pytest.raises(Unavailable):
        instar.first_install(config, reader=MemoryStorage())
    with pytest.raises(Misconfigured, match="Nothing is installed"):
        instar.repair(config, reader=scene.storage)
    # The same folder, begun anew for another platform: there is nothing there yet to lose.
    other = Releases(scene.releases.repository, platform="other-cpu")
    other.release("1.0", Bundle({"app": b"other"}))
    instar.first_install(replace(config, platform="other-cpu"), reader=scene.storage)
    assert read_bundle(config.location / "current").files == {"app": b"other"}


def test_an_adoption_that_was_killed_before_its_end_is_finished_by_the_next(scene: Scene, tmp_path: Path) -> None:
    location = tmp_path / "inplace"
    location.mkdir()
    (location / "main.py").write_bytes(scene.releases.bundles["1.0"].files["main.py"])
    config = replace(scene.config, location=location)
    instar.adopt(config, "1.0", reader=scene.storage)
    (tmp_path / ".inplace.instar/client/root.json").unlink()
    assert instar.adopt(config, "1.0", reader=scene.storage).differences == ()
    assert instar.status(config).layout == Layout.IN_PLACE.value


def test_a_release_that_left_the_repository_can_still_be_repaired_from_what_is_known(scene: Scene) -> None:
    # Its manifest is kept here; its pieces are still in the packs.
    from instar.trust.layout import manifest_path

    with scene.releases.repository.edit() as roles:
        roles.remove_target(manifest_path("app", scene.releases.platform, "1.0"))
    main = scene.config.location / "current/main.py"
    good = main.read_bytes()
    main.write_bytes(b"damaged")
    instar.repair(scene.config, reader=scene.storage)
    assert main.read_bytes() == good
    for path in (scene.config.location / ".instar/client/manifests").iterdir():
        path.unlink()
    with pytest.raises(Untrusted, match="not known here"):
        instar.repair(scene.config, reader=scene.storage)
    # Without knowing what is here, an update is a full download, no more.
    scene.release("1.1")
    scene.update()
    assert instar.repair(scene.config, reader=scene.storage).problems == ()


@pytest.mark.parametrize("wrong", [b"", b"{}", b'{"format": "instar-channels-9"}', b"other"])
def test_channels_that_cannot_be_read_are_not_guessed_at(scene: Scene, wrong: bytes) -> None:
    if wrong == b"other":
        document = json.loads(scene.releases.channels().to_json())
        wrong = json.dumps({**document, "product": "another"}).encode()
    scene.releases.repository.put(channels_path("app"), wrong)
    with pytest.raises(Untrusted):
        instar.Updater(scene.config, reader=scene.storage).check()


def test_channels_without_end_are_not_fetched(scene: Scene) -> None:
    with scene.releases.repository.edit() as roles:
        roles.set_target(channels_path("app"), size=1 << 40, digest=Digest.of(b""))
    with pytest.raises(Untrusted, match="longer than"):
        instar.Updater(scene.config, reader=scene.storage).check()
