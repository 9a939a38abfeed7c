"""A download that was cut goes on at the byte where it stopped, measured by what the server sends."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import instar
from instar.client.here import load_config
from instar.errors import Cancelled, Unavailable
from instar.model.progress import Phase, Progress
from instar.testing.http import CloseEarly, Fault, FaultyServer, IgnoreRange, RefuseRange, Status, WrongBytes
from instar.testing.releases import Bundle, Releases, read_bundle
from instar.testing.repository import TwinRepository

# Random bytes do not shrink: what is fetched is what is new. Two chunks of 16 KiB more than a megabyte.
NEW = random.Random(7).randbytes((1 << 20) + (32 << 10))
ONE = Bundle({"app": b"1"})
TWO = Bundle({"app": b"2", "media": NEW})
CUT = 0.6


class Scene:
    def __init__(self, folder: Path) -> None:
        self.releases = Releases(TwinRepository())
        self.releases.release("1.0", ONE)
        self.server = FaultyServer(self.releases.repository.storage)
        self.config = instar.Config("app", self.server.url, self.releases.repository.root, folder / "app")

    def begin(self) -> None:
        instar.first_install(self.config)
        self.releases.release("1.1", TWO)
        self.pack = max(self.releases.manifests["1.1"].packs, key=lambda pack: pack.size)

    def asked(self, since: int) -> int:
        """Count the bytes of the pack that were asked for after request number ``since``."""
        total = 0
        for request in self.server.received[since:]:
            if request.key == self.pack.key:
                start, end = (request.range or "bytes=0-").removeprefix("bytes=").split("-")
                total += (int(end) + 1 if end else self.pack.size) - int(start)
        return total

    def finish(self) -> tuple[int, int]:
        """Update; give what was said to be left, and what was asked of the server."""
        since = len(self.server.received)
        updater = instar.Updater(self.config)
        update = updater.check()
        assert update is not None
        updater.download(update).install()
        assert read_bundle(self.config.location / "current") == TWO
        return update.download_size, self.asked(since)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    with made.server:
        made.begin()
        yield made


def cut(scene: Scene, share: float = CUT) -> int:
    """Download until a share is here, then stop; give the bytes that came."""
    came = [0]

    def watch(progress: Progress) -> None:
        if progress.phase is Phase.DOWNLOAD:
            came[0] = progress.done

    updater = instar.Updater(scene.config)
    update = updater.check()
    assert update is not None
    with pytest.raises(Cancelled):
        updater.download(update, progress=watch, cancelled=lambda: came[0] >= share * update.download_size)
    return came[0]


def test_a_download_cut_at_sixty_percent_goes_on_there(scene: Scene) -> None:
    came = cut(scene)
    left, asked = scene.finish()
    assert came >= CUT * len(NEW)
    assert left == asked
    # What came is not fetched again, to the byte: all of the pack was asked for once.
    assert came + asked == pytest.approx(scene.pack.size, abs=100)


def test_a_process_that_is_killed_at_sixty_percent_goes_on_there(scene: Scene) -> None:
    """SIGKILL, in a process of its own, in the middle of a request."""
    program = f"""
import os, signal, sys
from pathlib import Path
import instar
from instar.client.here import load_config
def watch(progress):
    if progress.phase is instar.Phase.DOWNLOAD and progress.done >= {CUT} * progress.total:
        os.kill(os.getpid(), signal.SIGKILL)
updater = instar.Updater(load_config(Path(sys.argv[1])))
updater.download(updater.check(), progress=watch)
"""
    child = subprocess.run([sys.executable, "-c", program, scene.config.location], check=False, timeout=120)
    assert child.returncode == -signal.SIGKILL
    left, asked = scene.finish()
    assert left == asked
    assert asked <= (1 - CUT) * scene.pack.size + 1000


def test_a_server_that_closes_at_sixty_percent_and_then_is_down(scene: Scene) -> None:
    scene.server.fault(CloseEarly(int(CUT * scene.pack.size)), key=scene.pack.key)
    scene.server.fault(Status(503), key=scene.pack.key, times=None)
    updater = instar.Updater(scene.config)
    update = updater.check()
    assert update is not None
    with pytest.raises(Unavailable):
        updater.download(update)
    scene.server.heal()
    left, asked = scene.finish()
    assert left == asked
    assert asked == pytest.approx((1 - CUT) * scene.pack.size, abs=70_000)


@pytest.mark.parametrize(
    "fault",
    [IgnoreRange(), IgnoreRange(with_length=False), RefuseRange(), CloseEarly(100_000), CloseEarly(5, chunked=True)],
    ids=str,
)
def test_it_goes_on_also_from_a_server_that_misbehaves(scene: Scene, fault: Fault) -> None:
    came = cut(scene)
    # For ever where the server simply has no ranges; else it recovers after the first answer.
    lasting = isinstance(fault, IgnoreRange)
    scene.server.fault(fault, key=scene.pack.key, times=None if lasting else 1)
    try:
        left, _ = scene.finish()
    except instar.InstarError:
        # A refusal may be told; then the next attempt goes on, and nothing that came was lost.
        scene.server.heal()
        left, _ = scene.finish()
    assert left <= scene.pack.size - came


def test_other_bytes_than_before_are_fetched_afresh_and_nothing_else_is(scene: Scene) -> None:
    came = cut(scene)
    scene.server.fault(WrongBytes(at=scene.pack.size - 100), key=scene.pack.key)
    left, asked = scene.finish()
    assert left == pytest.approx(scene.pack.size - came, abs=100)
    # One chunk's frame came wrong, and came again.
    assert asked <= left + 40_000


def test_what_was_damaged_on_this_disk_is_fetched_again(scene: Scene) -> None:
    cut(scene)
    for part in (scene.config.location / ".instar/downloads").iterdir():
        data = bytearray(part.read_bytes())
        data[len(data) // 4] ^= 1
        part.write_bytes(data)
    scene.finish()


def test_a_newer_release_in_the_meantime_uses_what_came(scene: Scene) -> None:
    cut(scene)
    three = Bundle({"app": b"3", "media": NEW})
    scene.releases.release("1.2", three)
    updater = instar.Updater(scene.config)
    update = updater.check()
    assert update is not None
    assert str(update.version) == "1.2"
    assert update.download_size <= (1 - CUT) * scene.pack.size + 1000
    updater.download(update).install()
    assert read_bundle(scene.config.location / "current") == three


def test_cancelling_from_another_thread_stops_soon(scene: Scene) -> None:
    stop = threading.Event()
    updater = instar.Updater(load_config(scene.config.location))
    update = updater.check()
    assert update is not None
    with pytest.raises(Cancelled):
        updater.download(update, progress=lambda _: stop.set(), cancelled=stop.is_set)
    assert read_bundle(scene.config.location / "current") == ONE
    scene.finish()
