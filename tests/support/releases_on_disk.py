"""Releases made by the real publisher's half from small folders, for tests of the content floor."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path

from instar.content.build import Built, Effort, Label, build_release
from instar.model.manifest import Manifest
from instar.model.names import Name, ProductName
from instar.model.version import Version
from instar.storage.memory import MemoryStorage


def some_bytes(seed: object, size: int) -> bytes:
    """Give bytes that do not compress and differ with the seed."""
    return random.Random(f"{seed}").randbytes(size)


def some_text(seed: object, size: int) -> bytes:
    """Give bytes that compress well and differ with the seed."""
    words = random.Random(f"{seed}").choices([f"word{n} " for n in range(500)], k=size // 5)
    return "".join(words).encode()[:size]


def edited(data: bytes, *changes: tuple[int, bytes]) -> bytes:
    """Replace bytes at offsets."""
    out = bytearray(data)
    for at, new in changes:
        out[at : at + len(new)] = new
    return bytes(out)


def write_tree(root: Path, files: Mapping[str, bytes | str | None]) -> Path:
    """Make a folder: contents by path, text for a link, None for an empty folder, a path ending in * for a program."""
    root.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = root / name.rstrip("*")
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.mkdir()
        elif isinstance(content, str):
            path.symlink_to(content)
        else:
            path.write_bytes(content)
            path.chmod(0o755 if name.endswith("*") else 0o644)
    return root


class Shelf:
    """A storage, and the releases in it. ``folder`` is where the trees of the releases lie."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.storage = MemoryStorage()
        self.manifests: list[Manifest] = []

    def add(
        self,
        version: str,
        files: Mapping[str, bytes | str | None],
        *,
        bases: Sequence[Manifest] | None = None,
        effort: Effort = Effort.BEST,
    ) -> Built:
        """Release a tree, with patches from the release before unless told otherwise."""
        built = build_release(
            write_tree(self.folder / version, files),
            Label(ProductName("app"), Version(version), Name("linux-x86_64")),
            bases=self.manifests[-1:] if bases is None else bases,
            earlier=self.manifests[::-1],
            reader=self.storage,
            work=self.folder / f"work-{version}",
            effort=effort,
        )
        for file in built.files:
            self.storage.create(file.key, file.path)
        self.manifests.append(built.manifest)
        return built

    def tree(self, version: str) -> Path:
        """Give the folder that a version was made from."""
        return self.folder / version
