"""The files of the state folder: reading them with bounds, writing them so that they survive a power cut.

Here is not decided what they mean. A file that is missing or cannot be understood is given as None where the rest of
the disk can make up for it; errors of the disk pass through as ``OSError``.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from instar.errors import Misconfigured
from instar.install import journal as journals
from instar.install import record as records
from instar.install import state as states
from instar.install.formats import check_format, check_keys
from instar.install.journal import Journal
from instar.install.record import Record
from instar.install.state import Installed, State, Tree
from instar.model.digest import Digest
from instar.model.version import Version
from instar.system import files

__all__ = ["RELEASE_FORMAT", "Books", "Entry"]

RELEASE_FORMAT: Final = "instar-release-1"
# Bytes: a version, a digest, three numbers.
_MAX_RELEASE: Final = 4096

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Entry:
    """What is written beside each tree, so that the state can be made anew from the disk.

    ``inode`` is the file system's number of the tree's folder; ``confirmed``: it ran and said that it works.
    """

    tree: Tree
    inode: int
    confirmed: bool

    def to_json(self) -> bytes:
        """Write it."""
        release = self.tree.release
        document = {
            "format": RELEASE_FORMAT,
            "version": str(release.version),
            "tree": release.tree_digest.hex,
            "checkpoint": release.checkpoint,
            "inode": self.inode,
            "confirmed": self.confirmed,
        }
        return json.dumps(document, indent=1).encode()

    @classmethod
    def from_json(cls, name: str, data: bytes) -> Entry:
        """Read and check it. Raises ``ValueError`` or ``Misconfigured`` (a newer instar wrote it)."""
        keys = ("version", "tree", "checkpoint", "inode", "confirmed")
        try:
            row = check_keys(check_format(json.loads(data), RELEASE_FORMAT), keys)
            release = Installed(Version(row["version"]), Digest.parse(row["tree"]), int(row["checkpoint"]))
            return cls(Tree(name, release), int(row["inode"]), row["confirmed"] is True)
        except (TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
            msg = f"the description of the tree {name} is malformed: {error}"
            raise ValueError(msg) from error


class Books:
    """The files of one state folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.journal_path = folder / "journal.json"
        self.lock_path = folder / "lock"
        self._record = folder / "record.json"
        self._state = folder / "state.json"
        self._releases = folder / "releases"

    def make_folders(self) -> None:
        """Make the state folder, if need be."""
        self._releases.mkdir(parents=True, exist_ok=True)
        files.sync_folder(self.folder)
        files.sync_folder(self.folder.parent)

    def has_record(self) -> bool:
        """Say whether this is the state folder of an installation."""
        try:
            return self._record.exists()
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            return False  # a folder that leaves no room for the name of a state folder beside it

    def read_record(self) -> Record | None:
        """Read the record, None where there is none.

        Raises:
            Misconfigured: it cannot be understood; nothing else knows what it says.

        """
        try:
            return Record.from_json(files.read_bounded(self._record, records.MAX_JSON))
        except FileNotFoundError:
            return None
        except ValueError as error:
            msg = f"The installation's record {self._record} is damaged: {error}."
            raise Misconfigured(
                msg, hint="Put it back from a backup, or remove it and install or adopt the app again."
            ) from error

    def write_record(self, record: Record) -> None:
        """Write the record."""
        files.write_atomic(self._record, record.to_json())

    def read_state(self) -> State | None:
        """Read the state, None where it is missing or damaged."""
        return _read(self._state, states.MAX_JSON, State.from_json)

    def write_state(self, state: State) -> None:
        """Write the state."""
        files.write_atomic(self._state, state.to_json())

    def read_journal(self) -> Journal | None:
        """Read the journal, None where no step is under way or the journal is damaged."""
        return _read(self.journal_path, journals.MAX_JSON, Journal.from_json)

    def write_journal(self, journal: Journal) -> None:
        """Write the journal."""
        files.write_atomic(self.journal_path, journal.to_json())

    def remove_journal(self) -> None:
        """Remove the journal, durably: one that came back would have its step done again."""
        if self.journal_path.exists():
            self.journal_path.unlink()
            files.sync_folder(self.folder)

    def read_entries(self) -> dict[str, Entry]:
        """Read what is written of every tree, by the tree's name. What cannot be understood is left out."""
        entries = {}
        try:
            paths = sorted(self._releases.iterdir())
        except FileNotFoundError:
            return {}
        for path in paths:
            if path.suffix == ".json" and not path.name.startswith("."):
                name = path.name.removesuffix(".json")
                entry = _read(path, _MAX_RELEASE, functools.partial(Entry.from_json, name))
                if entry is not None:
                    entries[name] = entry
        return entries

    def write_entry(self, entry: Entry) -> None:
        """Write what there is to know of one tree."""
        self._releases.mkdir(exist_ok=True)
        files.write_atomic(self._releases / f"{entry.tree.name}.json", entry.to_json())

    def tidy(self, names: frozenset[str]) -> None:
        """Remove what is written of other trees than ``names``, and what killed writers left. Best effort."""
        with contextlib.suppress(OSError):
            for path in [*self._releases.glob("*.json"), *self._releases.glob(".*.tmp"), *self.folder.glob(".*.tmp")]:
                if path.suffix != ".json" or path.name.removesuffix(".json") not in names:
                    path.unlink()


def _read(path: Path, limit: int, parse: Callable[[bytes], _T]) -> _T | None:
    try:
        return parse(files.read_bounded(path, limit))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
