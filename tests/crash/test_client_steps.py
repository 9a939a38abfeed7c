"""The updating process dies, or its disk refuses, at every single step of what a device does.

Afterwards the app is the old or the new one, whole, before anything has repaired anything; the app starts; and the next
run succeeds. Steps are counted from outside (``instar.testing.crash``): nothing in the product knows of this.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import instar
from instar.errors import InstarError, Misconfigured
from instar.storage import Storage
from instar.testing.crash import DISK_FULL, KILL, READ_ONLY, Ended, Fail, Fault, every_step
from instar.testing.releases import Bundle, Releases, read_bundle
from instar.testing.repository import TwinRepository

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs fork")

ONE = Bundle(
    {"app": b"#!/bin/sh\necho 1\n", "data": b"1" * 40_000, "stale": b"s", "same": b"x" * 9_000}, executable={"app"}
)
TWO = Bundle(
    {"app": b"#!/bin/sh\necho 2\n", "data": b"1" * 20_000 + b"2" * 20_000, "fresh": b"f", "same": b"x" * 9_000},
    executable={"app"},
    links={"link": "fresh"},
    directories={"empty"},
)
FAULTS = pytest.mark.parametrize("fault", [KILL, DISK_FULL, READ_ONLY], ids=["killed", "disk full", "read-only"])


@pytest.fixture
def fast_folder() -> Iterator[Path]:
    # Hundreds of attempts: in memory where the machine has it, because every one of them syncs a lot.
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


@dataclass
class Scene:
    """A repository with two versions, and devices made at will."""

    releases: Releases
    folder: Path
    newest: str = "1.0"

    @classmethod
    def make(cls, folder: Path) -> Scene:
        releases = Releases(TwinRepository())
        releases.release("1.0", ONE)
        releases.release("1.1", TWO, patched_from="1.0")
        return cls(releases, folder)

    @property
    def storage(self) -> Storage:
        return self.releases.repository.storage

    def config(self, at: int) -> instar.Config:
        return instar.Config("app", "https://x.example/", self.releases.repository.root, self.folder / str(at) / "app")

    def offer_only(self, version: str) -> None:
        for each in ("1.0", "1.1"):
            self.releases.entries["stable"].pop(each, None)
        self.releases.offer("stable", "1.0")
        if version == "1.1":
            self.releases.offer("stable", "1.1")

    def installed(self, at: int) -> instar.Config:
        """Make a device with version 1.0; what runs is ``app/current``."""
        config = self.config(at)
        self.offer_only("1.0")
        instar.first_install(config, reader=self.storage)
        self.offer_only("1.1")
        return config

    def adopted(self, at: int) -> instar.Config:
        """Make a device with version 1.0 in place; what runs is ``app``."""
        config = self.config(at)
        write(ONE, config.location)
        instar.adopt(config, "1.0", reader=self.storage)
        return config

    def update(self, config: instar.Config, when: str = "now") -> None:
        updater = instar.Updater(config, reader=self.storage)
        update = updater.check()
        if update is not None:
            updater.download(update).install(when="now" if when == "now" else "next-start")


def write(bundle: Bundle, folder: Path) -> None:
    for path, data in bundle.files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
        (folder / path).chmod(0o755 if path in bundle.executable else 0o644)


def tree(config: instar.Config) -> Bundle | None:
    current = config.location / "current"
    return read_bundle(current if current.is_symlink() else config.location) if config.location.exists() else None


@contextlib.contextmanager
def done_before(words: str) -> Iterator[None]:
    """Take it for done when the refusal says, in these words, that the interrupted one did it to the end."""
    try:
        yield
    except Misconfigured as error:
        if words not in error.message:
            raise


def judge(ended: Ended, fault: Fault, step: int) -> None:
    """A kill is a kill; a disk that refuses is told in our own words, or did not matter."""
    where = f"at step {step}, {ended.steps[-1] if ended.steps else '?'}: {ended.error}\n{ended.trace}"
    if isinstance(fault, Fail):
        assert ended.finished or InstarError.__name__ in ended.families, where
        assert ended.finished or "InstallFailed" in ended.families, where
    else:
        assert ended.killed, where


def interrupt(
    scene: Scene,
    fault: Fault,
    prepare: Callable[[int], instar.Config],
    work: Callable[[instar.Config], object],
) -> Iterator[tuple[instar.Config, int]]:
    """Interrupt ``work`` at each of its steps; give every device as it was left."""
    configs: dict[int, instar.Config] = {}

    def attempt(at: int) -> tuple[Path, Callable[[], object]]:
        configs[at] = prepare(at)
        return scene.folder / str(at), lambda: work(configs[at])

    steps = 0
    for at, _, ended in every_step(attempt, fault=fault):
        judge(ended, fault, at)
        steps += 1
        yield configs[at], at
    assert steps > 5, "hardly anything was interrupted: does the work do anything at all?"


@FAULTS
@pytest.mark.parametrize("layout", ["versioned", "in place"])
def test_an_update_interrupted_at_any_step_leaves_old_or_new_and_the_next_run_succeeds(
    fast_folder: Path, fault: Fault, layout: str
) -> None:
    scene = Scene.make(fast_folder)
    seen = set()
    prepare = scene.installed if layout == "versioned" else scene.adopted
    for config, at in interrupt(scene, fault, prepare, scene.update):
        found = tree(config)
        assert found in (ONE, TWO), f"neither old nor new after step {at}"
        seen.add("new" if found == TWO else "old")
        start = instar.startup(config)
        assert start.problem is None
        assert tree(config) in (ONE, TWO)
        scene.update(config)
        assert tree(config) == TWO
        instar.confirm(config)
        assert instar.status(config).phase == "steady"
        assert instar.repair(config, reader=scene.storage).problems == ()
    assert "old" in seen


@FAULTS
def test_a_first_install_interrupted_at_any_step_is_repeated(fast_folder: Path, fault: Fault) -> None:
    scene = Scene.make(fast_folder)
    scene.offer_only("1.1")

    def prepare(at: int) -> instar.Config:
        (scene.folder / str(at)).mkdir()
        return scene.config(at)

    def install(config: instar.Config) -> None:
        instar.first_install(config, reader=scene.storage)

    for config, at in interrupt(scene, fault, prepare, install):
        current = config.location / "current"
        assert not current.exists() or read_bundle(current) == TWO, f"half an app after step {at}"
        if not current.exists():
            install(config)
        assert read_bundle(current) == TWO
        assert instar.status(config).phase == "steady"
        scene.update(config)


@FAULTS
@pytest.mark.parametrize("layout", ["versioned", "in place"])
def test_a_switch_at_the_next_start_interrupted_at_any_step(fast_folder: Path, fault: Fault, layout: str) -> None:
    scene = Scene.make(fast_folder)

    def prepare(at: int) -> instar.Config:
        config = scene.installed(at) if layout == "versioned" else scene.adopted(at)
        scene.update(config, when="next-start")
        return config

    for config, at in interrupt(scene, fault, prepare, instar.startup):
        assert tree(config) in (ONE, TWO), f"neither old nor new after step {at}"
        for _ in range(2):
            instar.startup(config)
        assert tree(config) == TWO
        instar.confirm(config)


@FAULTS
def test_a_rollback_of_a_version_that_does_not_come_up_interrupted_at_any_step(fast_folder: Path, fault: Fault) -> None:
    scene = Scene.make(fast_folder)

    def prepare(at: int) -> instar.Config:
        config = scene.installed(at)
        scene.update(config)
        for _ in range(3):
            instar.startup(config)
        return config

    for config, at in interrupt(scene, fault, prepare, instar.startup):
        assert tree(config) in (ONE, TWO), f"neither old nor new after step {at}"
        for _ in range(2):
            instar.startup(config)
        assert tree(config) == ONE
        # It failed here, so it is not taken again.
        scene.update(config)
        assert tree(config) == ONE


@FAULTS
def test_a_repair_interrupted_at_any_step_harms_nothing_and_is_repeated(fast_folder: Path, fault: Fault) -> None:
    scene = Scene.make(fast_folder)

    def prepare(at: int) -> instar.Config:
        config = scene.installed(at)
        current = config.location / "current"
        (current / "data").write_bytes(b"damaged")
        (current / "stale").unlink()
        (current / "stray").write_bytes(b"stray")
        return config

    whole = {name: data for name, data in ONE.files.items() if name in {"app", "same"}}
    for config, at in interrupt(scene, fault, prepare, lambda config: instar.repair(config, reader=scene.storage)):
        found = tree(config)
        assert found is not None
        assert {name: found.files[name] for name in whole} == whole, f"something whole was harmed at step {at}"
        assert found.files["data"] in (b"damaged", ONE.files["data"])
        assert found.files.get("stale", ONE.files["stale"]) == ONE.files["stale"]
        instar.repair(config, reader=scene.storage)
        assert tree(config) == ONE


@FAULTS
def test_an_adoption_interrupted_at_any_step_touches_nothing_and_is_repeated(fast_folder: Path, fault: Fault) -> None:
    scene = Scene.make(fast_folder)

    def prepare(at: int) -> instar.Config:
        config = scene.config(at)
        write(ONE, config.location)
        return config

    def adopt(config: instar.Config) -> None:
        instar.adopt(config, "1.0", reader=scene.storage)

    for config, _ in interrupt(scene, fault, prepare, adopt):
        assert tree(config) == ONE
        with done_before("already"):
            adopt(config)
        scene.update(config)
        assert tree(config) == TWO


@FAULTS
def test_an_uninstall_interrupted_at_any_step_is_finished_by_the_next(fast_folder: Path, fault: Fault) -> None:
    scene = Scene.make(fast_folder)
    for config, _ in interrupt(scene, fault, scene.installed, instar.uninstall):
        with done_before("no installation"):
            instar.uninstall(config)
        # The last steps remove what said that there was an installation: a crumb of that may stay, and harms nobody.
        left = {path.name for path in config.location.rglob("*")} if config.location.exists() else set()
        assert left <= {".instar", "journal.json", "lock"}
        if left:
            instar.first_install(config, reader=scene.storage)
            assert tree(config) == TWO
