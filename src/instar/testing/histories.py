"""A repository with a long past, made in one go: as many releases as years of publishing would have left.

The manifests are tiny but real, and the metadata is what it would be: every release has its signed target, with custom
fields as long as real ones, because that is what devices download.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from instar.content.manifests import compress_manifest
from instar.model.channel import Channels, Entry
from instar.model.digest import Digest
from instar.model.manifest import Manifest
from instar.model.names import Name
from instar.model.version import Version
from instar.publish.channels import trim
from instar.publish.project import Project
from instar.publish.session import Session, publishing
from instar.trust.layout import manifest_path, target_key
from instar.trust.roles import Authority

__all__ = ["fill"]

# How many differences a large manifest comes with.
_DELTAS = 3


def fill(project: Project, count: int, *, platform: str = "linux-x86_64", channel: str = "stable") -> None:
    """Add the releases ``1.0`` to ``<count>.0``, in one publication, and offer them all.

    Their manifests hold a single empty file; the differences named beside them do not exist.

    Raises:
        InstarError: as for every publication.

    """
    with publishing(project) as session:
        versions = [Version(f"{number}.0") for number in range(1, count + 1)]
        for version in versions:
            _add(session, version, Name(platform))
        signers = project.open_signers(session.roles, [Authority.OWNER, Authority.ONLINE])
        session.set_channels(_offer(session, versions, Name(channel), Name(platform)))
        session.commit(signers)


def _add(session: Session, version: Version, platform: Name) -> None:
    product = session.project.settings.product
    document = Manifest(product, version, platform, files=(), notes=f"What is new in {version}.").to_json()
    frame = compress_manifest(document)
    digest, content = Digest.of(frame), Digest.of(document)
    path = manifest_path(product, platform, version)
    row = {"from": content.hex, "sha256": digest.hex, "size": len(frame)}
    custom: dict[str, Any] = {"json": {"sha256": content.hex, "size": len(document)}, "deltas": [row] * _DELTAS}
    session.add(target_key(path, digest), frame)
    session.roles.set_target(path, size=len(frame), digest=digest, custom=custom)


def _offer(session: Session, versions: Sequence[Version], channel: Name, platform: Name) -> Channels:
    entries = [*session.channels.of(channel, platform), *map(Entry, versions)]
    unique = {entry.version: entry for entry in entries}
    listed = {name: dict(platforms) for name, platforms in session.channels.entries.items()}
    listed.setdefault(channel, {})[platform] = trim(list(unique.values()), session.now)
    return Channels(session.channels.product, session.now, listed)
