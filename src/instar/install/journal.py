"""``journal.json``: the step that is being done. Written before it and removed after it, so that it can be finished.

From the moment that the journal is on the disk the step is decided: whoever finds it goes on with it, and undoes it
only where going on is impossible. The state that holds after the step is part of it, so that nothing has to be written
between selecting the tree and being done.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from instar.install.formats import check_format, check_keys
from instar.install.state import State, check_tree_name
from instar.model._json import text

__all__ = ["FORMAT", "MAX_JSON", "Journal", "Step"]

FORMAT: Final = "instar-journal-1"
# Bytes: a state and a few names.
MAX_JSON: Final = 2 << 20


class Step(StrEnum):
    """What is being done. The values are written to the disk."""

    SELECT = "select"
    """Another tree becomes the current one."""
    UNINSTALL = "uninstall"
    """Everything is removed."""


@dataclass(frozen=True, slots=True)
class Journal:
    """A step: from the tree ``source`` (None: there is none) to ``target``, whereupon ``next`` is the state.

    ``inodes`` are the file system's numbers of both trees' folders: in place they tell which tree stands where after an
    interruption. ``waits_for`` is the process whose exit a helper waits for before it does the step.
    ``keep_user_files`` belongs to ``UNINSTALL``.

    Raises:
        ValueError: a selection without target or next state.

    """

    step: Step
    source: str | None = None
    target: str | None = None
    next: State | None = None
    inodes: Mapping[str, int] = field(default_factory=dict)
    waits_for: int | None = None
    keep_user_files: bool = False

    def __post_init__(self) -> None:
        if self.step is Step.SELECT and (
            self.target is None
            or self.next is None
            or self.next.current is None
            or self.next.current.name != self.target
            or self.source == self.target
        ):
            msg = "a journal that selects a tree names it and what follows"
            raise ValueError(msg)

    def to_json(self) -> bytes:
        """Write it."""
        document = {
            "format": FORMAT,
            "step": str(self.step),
            "source": self.source,
            "target": self.target,
            "next": self.next and self.next.to_document(),
            "inodes": dict(self.inodes),
            "waits_for": self.waits_for,
            "keep_user_files": self.keep_user_files,
        }
        return json.dumps(document, indent=1, ensure_ascii=False).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Journal:
        """Read and check it.

        Raises:
            ValueError: it is no journal, or contradicts itself.
            Misconfigured: a newer instar wrote it.

        """
        keys = ("step", "source", "target", "next", "inodes", "waits_for", "keep_user_files")
        try:
            row = check_keys(check_format(json.loads(data), FORMAT), keys)
            if row["source"] is not None:
                # It becomes a path. The target is the name of a tree of the next state, which was checked as such.
                check_tree_name(text(row["source"]))
            return cls(
                step=Step(row["step"]),
                source=row["source"],
                target=row["target"],
                next=None if row["next"] is None else State.from_document(row["next"]),
                inodes={str(name): int(number) for name, number in row["inodes"].items()},
                waits_for=None if row["waits_for"] is None else int(row["waits_for"]),
                keep_user_files=row["keep_user_files"] is True,
            )
        except (TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
            msg = f"the installation's journal is malformed: {error}"
            raise ValueError(msg) from error
