"""Removing what nobody needs any more.

Kept is what the repository names now, and what it named at any time within the last day: a client may be in the
middle of reading that, a cache may still hand it out. What is not instar's is not touched.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from instar.errors import Misconfigured
from instar.model.digest import Digest
from instar.model.manifest import piece_key
from instar.model.version import Version
from instar.publish.history import read_release, split_path
from instar.publish.project import Project
from instar.publish.session import Session, publishing
from instar.storage.ports import Listed
from instar.trust.layout import (
    MANIFEST_SUFFIX,
    MAX_TARGETS,
    METADATA,
    TARGETS,
    Target,
    metadata_key,
    role_of,
    target_key,
)
from instar.trust.roles import Authority

__all__ = ["GRACE", "Pruned", "prune"]

GRACE: Final = timedelta(days=1)
"""How long something stays after the last metadata that named it was replaced."""

_PACKS: Final = "packs/"
# Roles that name no targets.
_TOP: Final = frozenset({"root", "snapshot", "timestamp"})


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was removed, or would be: releases that are no longer vouched for, objects, and the objects' bytes."""

    releases: tuple[str, ...]
    objects: tuple[str, ...]
    size: int


def prune(project: Project, *, keep: int | None = None, grace: timedelta = GRACE, dry_run: bool = False) -> Pruned:
    """Remove objects that nothing names any more; with ``keep``, first stop vouching for old releases.

    Args:
        project: the project.
        keep: how many releases of each platform stay besides those that a channel lists; None keeps all. Needs the
            owner's key. Devices on a removed release can still be updated, by chunks.
        grace: see :data:`GRACE`.
        dry_run: only say what would go.

    Raises:
        Misconfigured: fewer than one release is to be kept, or a key is missing.
        Busy, Unavailable, Untrusted: as for :func:`instar.publish.release`.

    """
    if keep is not None and keep < 1:
        msg = "At least one release of each platform must stay."
        raise Misconfigured(msg)
    with publishing(project) as session:
        gone = _outdated(session, keep) if keep is not None else []
        if gone and not dry_run:
            signers = project.open_signers(session.roles, [Authority.OWNER, Authority.ONLINE])
            for target in gone:
                session.roles.remove_target(target.path)
            session.commit(signers)
        listed = [row for prefix in (METADATA, TARGETS, _PACKS) for row in project.storage.list(prefix)]
        needed = _needed(project, listed, since=session.now - grace)
        unused = [row for row in listed if row.key not in needed and row.modified < session.now - grace]
        if not dry_run:
            for row in unused:
                project.storage.delete(row.key)
    return Pruned(
        tuple(target.path for target in gone),
        tuple(row.key for row in unused),
        sum(row.size for row in unused),
    )


def _outdated(session: Session, keep: int) -> list[Target]:
    product = session.project.settings.product
    by_platform: dict[str, list[tuple[Version, Target]]] = {}
    for path, target in session.roles.targets(product).items():
        if path.endswith(MANIFEST_SUFFIX):
            platform, version = split_path(path)
            by_platform.setdefault(platform, []).append((version, target))
    listed = {
        (platform, entry.version)
        for platforms in session.channels.entries.values()
        for platform, entries in platforms.items()
        for entry in entries
    }
    return [
        target
        for platform, rows in sorted(by_platform.items())
        for version, target in sorted(rows, key=lambda row: row[0])[:-keep]
        if (platform, version) not in listed
    ]


def _needed(project: Project, listed: list[Listed], *, since: datetime) -> set[str]:
    """Give the keys that some metadata names which was current at or after ``since``."""
    published = project.roles().published
    needed = {metadata_key(role, None if role == "timestamp" else version) for role, version in published.items()}
    needed |= _current_since(listed, since)
    manifests: dict[str, Target] = {}
    for key in sorted(needed):
        role = role_of(key)
        if role in _TOP:
            continue
        for target in _targets_in(project.fetch(key, MAX_TARGETS)):
            needed.add(target.key)
            if target.path.endswith(MANIFEST_SUFFIX):
                manifests[target.key] = target
    stored = {row.key for row in listed}
    for target in manifests.values():
        needed.update(piece_key(Digest.parse(row["sha256"]), "delta") for row in target.custom.get("deltas", ()))
        if target.key in stored:
            needed.update(pack.key for pack in read_release(project, target).manifest.packs)
    return needed


def _current_since(listed: list[Listed], since: datetime) -> set[str]:
    """Give the metadata files that were the newest of their role at or after ``since``; roots always."""
    versions: dict[str, list[tuple[int, Listed]]] = {}
    found: set[str] = set()
    for row in listed:
        if not row.key.startswith(METADATA):
            continue
        role = role_of(row.key)
        number = row.key.removeprefix(METADATA).partition(".")[0]
        if role == "root" or not number.isdecimal():
            found.add(row.key)
        else:
            versions.setdefault(role, []).append((int(number), row))
    for rows in versions.values():
        rows.sort(key=lambda pair: pair[0], reverse=True)
        replaced: datetime | None = None
        for _, row in rows:
            if replaced is not None and replaced < since:
                break
            found.add(row.key)
            replaced = row.modified
    return found


def _targets_in(data: bytes) -> Iterator[Target]:
    """Read the targets that a role file names. It was verified when it counted; here it only makes more be kept."""
    signed: Mapping[str, Any] = json.loads(data)["signed"]
    for path, row in signed["targets"].items():
        digest = Digest.parse(row["hashes"]["sha256"])
        yield Target(path, target_key(path, digest), row["length"], digest, row.get("custom", {}))
