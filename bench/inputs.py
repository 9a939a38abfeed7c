"""The apps that are measured: real packages, fetched by pip into a cache and laid out like a bundle."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Everything is pinned, so that two runs a year apart measure the same bytes (native wheels follow the interpreter).
_REQUESTS = (
    "requests==2.32.3",
    "urllib3==2.8.0",
    "certifi==2026.10.18",
    "idna==3.20",
    "charset-normalizer==3.5.2",
)
_RICH_NEEDS = ("pygments==2.21.0", "markdown-it-py==4.3.0", "mdurl==0.1.2")


@dataclass(frozen=True)
class App:
    """An app in some versions, oldest first, each a list of pinned requirements."""

    name: str
    title: str
    versions: tuple[tuple[str, ...], ...]


QT = App(
    "qt",
    "Qt app: PySide6-Essentials 6.9.0 → 6.9.1, requests, rich",
    tuple(
        (f"PySide6-Essentials=={v}", f"shiboken6=={v}", *_REQUESTS, "rich==14.0.0", *_RICH_NEEDS)
        for v in ("6.9.0", "6.9.1")
    ),
)
SCIENTIFIC = App(
    "scientific",
    "Scientific app: numpy 2.1.0, scipy 1.14.0 → numpy 2.1.1, scipy 1.14.1",
    (("numpy==2.1.0", "scipy==1.14.0"), ("numpy==2.1.1", "scipy==1.14.1")),
)
SMALL = App(
    "small",
    "Small pure-Python app: rich 13.7.1 … 14.2.0, requests",
    tuple(
        (f"rich=={v}", *_RICH_NEEDS, *_REQUESTS) for v in ("13.7.1", "13.8.1", "13.9.4", "14.0.0", "14.1.0", "14.2.0")
    ),
)


def fetch(app: App, cache: Path) -> list[Path]:
    """Give a folder for each version of the app, fetching what the cache does not hold.

    Raises:
        SystemExit: pip could not fetch something; it has said why.
    """
    return [_fetch_one(requirements, cache / f"{app.name}-{i}") for i, requirements in enumerate(app.versions)]


def _fetch_one(requirements: tuple[str, ...], folder: Path) -> Path:
    wanted = f"{sys.implementation.cache_tag}\n" + "\n".join(requirements)
    made_from = folder.with_suffix(".requirements")
    if made_from.exists() and made_from.read_text() == wanted and folder.is_dir():
        return folder
    sys.stderr.write(f"  fetching {requirements[0]} …\n")
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "--only-binary", ":all:"]
    if subprocess.run([*pip, "--target", folder, *requirements], check=False).returncode:
        raise SystemExit(f"could not fetch {' '.join(requirements)}")
    for compiled in list(folder.rglob("__pycache__")):
        shutil.rmtree(compiled)
    made_from.write_text(wanted)
    return folder


def files_of(tree: Path) -> Iterator[Path]:
    """Every regular file of a tree."""
    return (path for path in tree.rglob("*") if path.is_file() and not path.is_symlink())


def describe(app: App, trees: list[Path]) -> dict[str, object]:
    """What was measured: the app's title and, for each version, its requirements, bytes, files and largest file."""
    versions = []
    for requirements, tree in zip(app.versions, trees, strict=True):
        sizes = [path.stat().st_size for path in files_of(tree)]
        versions.append(
            {"requirements": requirements, "size": sum(sizes), "files": len(sizes), "largest_file": max(sizes)}
        )
    return {"title": app.title, "versions": versions}
