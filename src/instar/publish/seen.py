"""What this machine last saw of a repository, so that a storage that was turned back is noticed before it is signed.

A publisher believes whatever correctly signed state the storage holds. Whoever can write there could put back the one
from before a floor or a withdrawal, and the next release would sign that anew, with higher versions than devices have
seen. A machine that published before can tell; one that never did has nothing to compare with, and works as ever.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from instar.errors import Untrusted
from instar.system.files import read_bounded, write_atomic

__all__ = ["SEEN_FILE", "Seen"]

SEEN_FILE: Final = ".instar-seen.json"
"""Beside ``instar.toml``; this machine's own, so not under version control."""

# Bytes: fifty thousand roles, as many as a snapshot can name.
_MAX_FILE: Final = 4 << 20


class Seen:
    """The highest version of each role that this machine saw or made.

    Args:
        folder: the project's.
        storage: which of its storages, as the settings name it; another one starts afresh.

    """

    def __init__(self, folder: Path, storage: str) -> None:
        self._path = folder / SEEN_FILE
        self._storage = storage

    def judge(self, versions: Mapping[str, int]) -> None:
        """Compare what the storage holds with what was seen before, and remember it.

        Raises:
            Untrusted: a role is older than it was, or gone.

        """
        older = sorted(role for role, version in self._read().items() if versions.get(role, 0) < version)
        if older:
            msg = f"The storage holds an older repository than it did before (see {', '.join(older[:3])})."
            hint = f"Find out who turned it back. If you restored a backup yourself, remove {self._path} and try again."
            raise Untrusted(msg, hint=hint)
        self.remember(versions)

    def remember(self, versions: Mapping[str, int]) -> None:
        """Note versions that are now the repository's. Best effort: without a note there is only less to compare."""
        known = self._read()
        merged = {**known, **versions}
        if merged != known:
            document = {"storage": self._storage, "versions": merged}
            with contextlib.suppress(OSError):
                write_atomic(self._path, json.dumps(document, sort_keys=True).encode())

    def _read(self) -> dict[str, int]:
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
            document = json.loads(read_bounded(self._path, _MAX_FILE))
            if document["storage"] == self._storage:
                return {str(role): int(version) for role, version in document["versions"].items()}
        return {}
