"""Manifests kept on this disk: of what is installed, and of what may come next.

They say what the installed trees are made of, and shorten the download of the next manifest. A file's name holds the
digest of its JSON, by which it is checked when it is read, and the digest of the tree that it describes, by which it
is found; so a damaged one is as good as none.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from pathlib import Path

from instar.content.manifests import parse_manifest
from instar.errors import Untrusted
from instar.model.digest import Digest
from instar.model.manifest import MAX_JSON, Manifest
from instar.system import files

__all__ = ["ManifestStore"]


class ManifestStore:
    """Manifests as files of ``folder``, which is made at need. The caller locks."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, digest: Digest) -> bytes | None:
        """Give the JSON with that digest, or None when it is not here, whole."""
        return next((data for path in self._paths(f"{digest}.*") if (data := _read(path, digest)) is not None), None)

    def put(self, document: bytes, manifest: Manifest) -> None:
        """Keep a manifest's JSON.

        Raises:
            OSError: the disk does not take it.

        """
        digest = Digest.of(document)
        if self.get(digest) is None:
            files.make_folder(self._folder)
            files.write_atomic(self._folder / f"{digest}.{manifest.tree_digest}.json", document)

    def of_tree(self, tree: Digest) -> Manifest | None:
        """Find the manifest of an installed tree by the tree's digest."""
        for path in self._paths(f"*.{tree}.json"):
            with contextlib.suppress(ValueError, Untrusted):
                document = _read(path, Digest.parse(path.name.partition(".")[0]))
                manifest = None if document is None else parse_manifest(document)
                if manifest is not None and manifest.tree_digest == tree:
                    return manifest
        return None

    def prune(self, trees: Collection[Digest]) -> None:
        """Remove all but those of ``trees``. What cannot be removed stays."""
        for path in self._paths("*"):
            if path.name.split(".")[1:2] not in [[tree.hex] for tree in trees]:
                with contextlib.suppress(OSError):
                    path.unlink()

    def _paths(self, pattern: str) -> list[Path]:
        try:
            return sorted(self._folder.glob(pattern))
        except OSError:
            return []


def _read(path: Path, digest: Digest) -> bytes | None:
    try:
        data = files.read_bounded(path, MAX_JSON)
    except (OSError, ValueError):
        return None
    return data if Digest.of(data) == digest else None
