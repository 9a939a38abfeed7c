"""Installations to try things on: a small app in any version, and every platform that can run anywhere."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from instar.install import Installation, Installed, Layout, Record
from instar.install.appdir.linux import Linux, renameat2
from instar.install.appdir.macos import MacOS
from instar.install.appdir.port import Platform
from instar.install.appdir.windows import Windows
from instar.model.digest import Digest
from instar.model.names import Name, ProductName
from instar.model.version import Version
from instar.system.clock import Clock
from instar.testing.windows import WindowsModel

__all__ = ["PLATFORMS", "app_files", "begin", "make_record", "read_app", "release_of", "stage_app", "write_app"]

PLATFORMS: Final[Mapping[str, Callable[[], Platform]]] = {
    "linux": Linux,
    "linux without exchange": lambda: Linux(lambda _, __: errno.EINVAL),
    # Both systems exchange two folders in one call; only the call's name differs.
    "macos": lambda: MacOS(renameat2),
    "macos without exchange": lambda: MacOS(lambda _, __: errno.ENOTSUP),
    "windows": lambda: Windows(WindowsModel()),
}
"""Every platform as it can run on Linux, with the system calls that it may meet."""


def make_record(layout: Layout = Layout.VERSIONED, **changes: Any) -> Record:
    """Give a record for the small app."""
    base: dict[str, Any] = {"keep": ("settings.ini", "data/*"), **changes}
    product, platform, channel = ProductName("app"), Name("linux-x86_64"), Name("stable")
    return Record(product, platform, ("https://updates.example/",), channel, layout=layout, **base)


def app_files(version: str, *, code: int = 0) -> dict[str, str]:
    """Give the app's files by path. ``run`` prints the version and ends with ``code``."""
    return {
        "run": f"#!/bin/sh\necho {version}\nexit {code}\n",
        "lib/one": f"one {version}\n",
        "lib/deep/two": f"two {version}\n",
        "same": "same in all\n",
        f"only-in-{version}": version,
        "settings.ini": "default\n",
    }


def write_app(folder: Path, version: str, *, code: int = 0) -> None:
    """Write the app into ``folder``."""
    for path, text in app_files(version, code=code).items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        target.chmod(0o755 if path == "run" else 0o644)


def read_app(folder: Path) -> str | None:
    """Give the version of the app in ``folder``, None when there is no folder.

    The user's own files may be there besides.

    Raises:
        ValueError: it is not whole, or a file of another version is in it.

    """
    if not folder.is_dir():
        return None
    found = {
        str(path.relative_to(folder)): path.read_text()
        for path in folder.rglob("*")
        if path.is_file() and path.parent.name != "data" and path.name != "settings.ini"
    }
    version = found.get("lib/one", "").removeprefix("one ").strip()
    wanted = {path: text for path, text in app_files(version).items() if path != "settings.ini"}
    if found.get("run", "").splitlines()[:2] != wanted["run"].splitlines()[:2]:
        msg = f"the app's program is not that of {version!r}"
        raise ValueError(msg)
    if {**found, "run": ""} != {**wanted, "run": ""}:
        msg = f"not a whole app of version {version!r}: {sorted(found)}"
        raise ValueError(msg)
    return version


def release_of(version: str) -> Installed:
    """Give the app's release of that version; its digest stands for its tree."""
    return Installed(Version(version), Digest.of(version.encode()))


def begin(
    location: Path,
    *,
    layout: Layout = Layout.VERSIONED,
    platform: Platform | None = None,
    clock: Clock | None = None,
    version: str | None = "1.0",
    **changes: Any,
) -> Installation:
    """Make an installation with the app in ``version`` (None: without one), and the user's own files in it."""
    record = make_record(layout, **changes)
    installation = Installation.create(location, record=record, platform=platform, clock=clock)
    if version is not None:
        stage_app(installation, version)
        installation.switch(environment={})
        (installation.entry / "settings.ini").write_text("mine\n")
        (installation.entry / "data").mkdir()
        (installation.entry / "data" / "notes").write_text("my notes\n")
    return installation


def stage_app(installation: Installation, version: str, *, code: int = 0) -> None:
    """Stage the app in ``version``."""
    with installation.lock():
        staging = installation.new_staging()
        write_app(staging, version, code=code)
        installation.stage(staging, release_of(version))
