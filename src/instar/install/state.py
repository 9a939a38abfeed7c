"""What this machine knows about the releases it holds: values, invariants and the JSON of ``state.json``.

Which state follows which is not decided here but in ``lifecycle``; reading and writing the file is ``books``' work.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

from instar.install.formats import check_format, check_keys
from instar.model.digest import Digest
from instar.model.version import Version

__all__ = ["FORMAT", "MAX_JSON", "Failure", "Installed", "Phase", "State", "Tree", "check_tree_name"]

FORMAT: Final = "instar-state-1"
# Bytes. Three trees and a hundred failures with their reasons stay below it.
MAX_JSON: Final = 1 << 20
# A device that saw more releases fail than this has worse troubles than forgetting the oldest of them.
_MAX_FAILED: Final = 100
# Characters of a failure's reason: the end of a program's output, for a person to read.
_MAX_REASON: Final = 5000


@dataclass(frozen=True, slots=True)
class Installed:
    """A release as this machine holds it: its version, the digest of its tree, the checkpoint that is passed with it.

    Raises:
        ValueError: the checkpoint is negative.

    """

    version: Version
    tree_digest: Digest
    checkpoint: int = 0

    def __post_init__(self) -> None:
        if self.checkpoint < 0:
            msg = f"a checkpoint is not negative, as {self.checkpoint} is"
            raise ValueError(msg)


@dataclass(frozen=True, slots=True)
class Tree:
    """A release and the name of the folder that its tree has among the trees of the installation.

    Raises:
        ValueError: the name is not one segment of a path.

    """

    name: str
    release: Installed

    def __post_init__(self) -> None:
        check_tree_name(self.name)


def check_tree_name(name: str) -> None:
    """Check that ``name`` can be the name of a tree's folder.

    Raises:
        ValueError: it is not one segment of a path, or hidden.

    """
    if not name or name.startswith(".") or set(name) & set('/\\:"') or len(name) > 255:  # noqa: PLR2004  # NAME_MAX
        msg = f"{name[:80]!r} cannot be the name of a tree"
        raise ValueError(msg)


@dataclass(frozen=True, slots=True)
class Failure:
    """A release that did not work here. It is not installed again."""

    version: Version
    tree_digest: Digest
    reason: str
    when: datetime


class Phase(StrEnum):
    """How sure we are of what runs. The values are shown to people and written to the disk."""

    EMPTY = "empty"
    """Nothing is installed yet."""
    STEADY = "steady"
    """What runs has proved itself, or there was nothing before it."""
    PENDING = "pending"
    """What runs is new and has not confirmed that it works; ``previous`` is what to go back to."""


@dataclass(frozen=True, slots=True)
class State:
    """Everything that changes in the life of an installation.

    ``current`` runs; ``previous`` is the release that was confirmed last before it; ``staged`` is complete on the disk
    and waits to be switched to, ``at_start`` by the app's next start. ``starts`` counts the starts of a pending release
    and ``first_start`` is when the first of them was, by the machine's clock.

    Raises:
        ValueError: the parts contradict each other.

    """

    phase: Phase = Phase.EMPTY
    current: Tree | None = None
    previous: Tree | None = None
    staged: Tree | None = None
    at_start: bool = False
    starts: int = 0
    first_start: datetime | None = None
    failed: tuple[Failure, ...] = ()

    def __post_init__(self) -> None:
        if (self.current is None) != (self.phase is Phase.EMPTY):
            msg = f"an installation that is {self.phase} cannot have {self.current} as its current release"
            raise ValueError(msg)
        names = [tree.name for tree in self.trees]
        if len(set(names)) != len(names) or self.starts < 0 or (self.at_start and self.staged is None):
            msg = "the trees, starts or stage of the installation contradict each other"
            raise ValueError(msg)

    @property
    def trees(self) -> tuple[Tree, ...]:
        """The trees that are needed; any other on the disk is left over."""
        return tuple(tree for tree in (self.current, self.previous, self.staged) if tree)

    def has_failed(self, release: Installed) -> bool:
        """Say whether ``release`` failed here, by the digest of its tree or by its version."""
        return any(f.tree_digest == release.tree_digest or f.version == release.version for f in self.failed)

    def with_failure(self, release: Installed, reason: str, when: datetime) -> State:
        """Give the state that also remembers that ``release`` failed."""
        failure = Failure(release.version, release.tree_digest, reason[-_MAX_REASON:], when)
        others = tuple(f for f in self.failed if f.tree_digest != release.tree_digest)
        return replace(self, failed=(*others, failure)[-_MAX_FAILED:])

    def to_json(self) -> bytes:
        """Write it, indented for people who look at it when something is wrong."""
        return json.dumps(self.to_document(), indent=1, ensure_ascii=False).encode()

    def to_document(self) -> dict[str, Any]:
        """Give it as the values of its JSON."""
        return {
            "format": FORMAT,
            "phase": str(self.phase),
            "current": _tree_to_json(self.current),
            "previous": _tree_to_json(self.previous),
            "staged": _tree_to_json(self.staged),
            "at_start": self.at_start,
            "starts": self.starts,
            "first_start": self.first_start and self.first_start.astimezone(UTC).isoformat(),
            "failed": [
                {
                    "version": str(f.version),
                    "tree": f.tree_digest.hex,
                    "reason": f.reason,
                    "when": f.when.astimezone(UTC).isoformat(),
                }
                for f in self.failed
            ],
        }

    @classmethod
    def from_json(cls, data: bytes) -> State:
        """Read and check it.

        Raises:
            ValueError: it is no state, or contradicts itself.
            Misconfigured: a newer instar wrote it.

        """
        try:
            return cls.from_document(json.loads(data))
        except RecursionError as error:
            msg = "the installation's state is nested too deeply"
            raise ValueError(msg) from error

    @classmethod
    def from_document(cls, document: object) -> State:
        """Read and check the values of its JSON. Raises as ``from_json``."""
        keys = ("phase", "current", "previous", "staged", "at_start", "starts", "first_start", "failed")
        rows = check_keys(check_format(document, FORMAT), keys)
        try:
            if type(rows["at_start"]) is not bool or type(rows["starts"]) is not int:
                msg = "'at_start' is true or false and 'starts' a whole number"
                raise ValueError(msg)
            return cls(
                phase=Phase(rows["phase"]),
                current=_tree_from_json(rows["current"]),
                previous=_tree_from_json(rows["previous"]),
                staged=_tree_from_json(rows["staged"]),
                at_start=rows["at_start"],
                starts=rows["starts"],
                first_start=_time_from_json(rows["first_start"]) if rows["first_start"] else None,
                failed=tuple(
                    Failure(
                        Version(f["version"]), Digest.parse(f["tree"]), str(f["reason"]), _time_from_json(f["when"])
                    )
                    for f in rows["failed"]
                ),
            )
        except (TypeError, KeyError, AttributeError, OverflowError) as error:
            msg = f"the installation's state is malformed: {error}"
            raise ValueError(msg) from error


def _tree_to_json(tree: Tree | None) -> dict[str, Any] | None:
    if tree is None:
        return None
    release = tree.release
    return {
        "name": tree.name,
        "version": str(release.version),
        "tree": release.tree_digest.hex,
        "checkpoint": release.checkpoint,
    }


def _tree_from_json(row: Mapping[str, Any] | None) -> Tree | None:
    if row is None:
        return None
    return Tree(row["name"], Installed(Version(row["version"]), Digest.parse(row["tree"]), int(row["checkpoint"])))


def _time_from_json(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        msg = f"the time {text!r} has no zone"
        raise ValueError(msg)
    # Here, where a time that no calendar has is still told from the caller's own mistakes.
    return time.astimezone(UTC)
