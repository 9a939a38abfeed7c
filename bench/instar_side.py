"""The instar side of the benchmark: its real command line, each step a process of its own, as a user would run it."""

from __future__ import annotations

import json
import shutil
import sys
from typing import TYPE_CHECKING, Any

from bench.measure import Measured, run
from bench.serving import serving

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bench.serving import Server

PRODUCT = "app"
# Given rather than detected, so that a repository that was kept serves on another machine too.
PLATFORM = "linux-x86_64"


class Publisher:
    """A publisher's folder: settings, keys, and the repository in `repository`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.repository = folder / "repository"
        self._log = folder.with_suffix(".log")

    def create(self) -> None:
        """An empty repository, in place of what was there."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        self.run("init", self.folder, "--product", PRODUCT, "--no-passphrase")

    def release(self, bundle: Path, version: str, *options: str) -> Measured:
        """Publish a version; the figures of it."""
        return self.run("release", bundle, "--version", version, "--platform", PLATFORM, *options, cwd=self.folder)

    def copy(self, folder: Path) -> Publisher:
        """The same publisher again, to go another way from here."""
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.folder, folder)
        return Publisher(folder)

    def size(self) -> int:
        """Bytes of all packs in the repository."""
        return sum(path.stat().st_size for path in (self.repository / "packs").rglob("*") if path.is_file())

    def run(self, *arguments: str | Path, cwd: Path | None = None) -> Measured:
        """Any command."""
        return _instar(arguments, cwd=cwd, log=self._log)


class Device:
    """An installation of the app, updated from one server."""

    def __init__(self, folder: Path, publisher: Publisher, server: Server) -> None:
        self._folder = folder
        self._publisher = publisher
        self._server = server
        self._log = folder.with_suffix(".log")
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        server.take_traffic()

    def twin(self) -> Device:
        """A copy of the installation as it is now."""
        device = Device(self._folder.with_name(f"{self._folder.name}-twin"), self._publisher, self._server)
        shutil.copytree(self._folder, device._folder, symlinks=True)
        return device

    def install(self) -> dict[str, Any]:
        """First install of the newest release."""
        root = self._publisher.repository / "metadata" / "1.root.json"
        options: list[str | Path] = ["--url", self._server.url, "--root", root, "--platform", PLATFORM]
        return self._run("install", PRODUCT, *options, self._folder)[0]

    def update(self) -> dict[str, Any]:
        """To the newest release, the look for it included; confirmed, which is not measured."""
        figures, _ = self._run("update", self._folder)
        _instar(["confirm", self._folder], log=self._log)
        self._server.take_traffic()
        return figures

    def check(self) -> dict[str, Any]:
        """Whether there is something; with what the command said as `answer`."""
        figures, output = self._run("check", self._folder, "--json")
        return figures | {"answer": json.loads(output)}

    def version(self) -> str:
        """What is installed."""
        return str(self.check()["answer"]["current"])

    def _run(self, *arguments: str | Path) -> tuple[dict[str, Any], str]:
        measured = _instar(arguments, log=self._log)
        return measured.as_json() | self._server.take_traffic(), measured.output


def pair(old: Path, new: Path, folder: Path) -> dict[str, Any]:
    """Publish two releases; install the older one, look, update; install the newer one; look when there is nothing."""
    publisher = Publisher(folder / "publisher")
    publisher.create()
    result: dict[str, Any] = {"publish_first": publisher.release(old, "1.0.0").as_json()}
    result["publish_first"]["packs"] = publisher.size()
    publisher.copy(_before(folder))
    with serving(publisher.repository) as server:
        device = Device(folder / "device", publisher, server)
        result["install"] = device.install()
        result["publish"] = publisher.release(new, "1.0.1").as_json()
        result["publish"]["packs"] = publisher.size()
        # Another installation looks: an update after a look would find the manifest there already.
        result["check_update"] = device.twin().check()
        result["update"] = device.update()
        result["check_nothing_new"] = device.check()
        _expect(device, "1.0.1")
    return result


def without_patches(new: Path, folder: Path, *, pair_folder: Path) -> dict[str, Any]:
    """The update when the newer release has no patches at all, from the first release of a `pair` before."""
    publisher = Publisher(_before(pair_folder)).copy(folder / "publisher")
    with serving(publisher.repository) as server:
        device = Device(folder / "device", publisher, server)
        device.install()
        result = {"publish": publisher.release(new, "1.0.1", "--base-releases", "0").as_json()}
        result["update"] = device.update()
        _expect(device, "1.0.1")
    return result


def _before(folder: Path) -> Path:
    """Where `pair` leaves the publisher as it was after the first release."""
    return folder / "publisher-before"


def across(trees: Sequence[Path], folder: Path) -> dict[str, Any]:
    """One update from the oldest to the newest of many releases, published one after the other."""
    publisher = Publisher(folder / "publisher")
    publisher.create()
    publisher.release(trees[0], "1.0.0")
    with serving(publisher.repository) as server:
        device = Device(folder / "device", publisher, server)
        device.install()
        for number, tree in enumerate(trees[1:], 1):
            publisher.release(tree, f"1.0.{number}")
        result = {"check_update": device.twin().check(), "update": device.update()}
        _expect(device, f"1.0.{len(trees) - 1}")
    return result


def _expect(device: Device, version: str) -> None:
    if (found := device.version()) != version:
        raise SystemExit(f"the device runs {found}, not {version}: the figures would mean nothing")


def _instar(arguments: Sequence[str | Path], *, cwd: Path | None = None, log: Path) -> Measured:
    measured = run([sys.executable, "-m", "instar", *arguments], cwd=cwd, log=log)
    name = str(arguments[0])
    if measured.exit_code:
        raise SystemExit(f"instar {name} failed with {measured.exit_code}; see {log}")
    sys.stderr.write(f"  instar {name}: {measured.seconds:.1f} s, {measured.peak_memory / 1e6:.0f} MB\n")
    return measured
