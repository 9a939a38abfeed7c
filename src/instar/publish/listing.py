"""What is in the repository: all releases, or one, as values for people and programs. Nothing is changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from instar.errors import Misconfigured
from instar.model.channel import Channels
from instar.model.digest import Digest
from instar.model.names import Name
from instar.model.version import Version
from instar.publish.channels import Offered
from instar.publish.history import read_release, split_path
from instar.publish.project import Project
from instar.publish.session import read_channels
from instar.trust.layout import MANIFEST_SUFFIX, Target

__all__ = ["Listing", "ReleaseDetails", "ReleaseRow", "list_releases", "show_release"]


@dataclass(frozen=True, slots=True)
class ReleaseRow:
    """A release in the list. A yanked one that the owner no longer vouches for is not in it."""

    version: Version
    platform: Name
    offered: tuple[Offered, ...]


@dataclass(frozen=True, slots=True)
class Listing:
    """All releases of the product, newest first, the security floor, and when the first signature ends."""

    releases: tuple[ReleaseRow, ...]
    floor: str | None
    expires: datetime


@dataclass(frozen=True, slots=True)
class ReleaseDetails:
    """One release on one platform.

    Sizes in bytes: ``size`` installed, ``download`` what a first install fetches, ``manifest`` compressed. ``patches``
    maps a codec to the number of patches and their bytes.
    """

    row: ReleaseRow
    size: int
    files: int
    tree_digest: Digest
    download: int
    patches: Mapping[str, tuple[int, int]]
    manifest: int
    notes: str
    meta: Mapping[str, str]


def list_releases(project: Project) -> Listing:
    """List the product's releases.

    Raises:
        NotFound, Unavailable, Untrusted: the repository could not be read, or is not to be believed.

    """
    roles = project.roles()
    channels = read_channels(project, roles)
    product = project.settings.product
    now = project.clock.now()
    found = [split_path(path) for path in roles.targets(product) if path.endswith(MANIFEST_SUFFIX)]
    found.sort(key=lambda pair: pair[0])
    found.sort(key=lambda pair: pair[1], reverse=True)
    offers = _index(channels, now)
    return Listing(
        tuple(ReleaseRow(version, platform, offers.get((platform, version), ())) for platform, version in found),
        roles.floor(product),
        min(roles.expiries().values()),
    )


def show_release(project: Project, version: Version, *, platform: Name | None = None) -> list[ReleaseDetails]:
    """Show a release, on every platform that has it or on one.

    Raises:
        Misconfigured: there is no such release.
        NotFound, Unavailable, Untrusted: the repository could not be read, or is not to be believed.

    """
    roles = project.roles()
    channels = read_channels(project, roles)
    offers = _index(channels, project.clock.now())
    targets: list[tuple[Name, Target]] = []
    for path, target in roles.targets(project.settings.product).items():
        if path.endswith(MANIFEST_SUFFIX):
            name, other = split_path(path)
            if other == version and platform in {None, name}:
                targets.append((name, target))
    if not targets:
        where = f" for {platform!s}" if platform else ""
        msg = f"There is no release {version}{where}."
        raise Misconfigured(msg, hint="See `instar list`.")
    details = []
    for name, target in targets:
        manifest = read_release(project, target).manifest
        patches: dict[str, tuple[int, int]] = {}
        for file in manifest.files:
            for patch in file.patches:
                count, size = patches.get(patch.codec.value, (0, 0))
                patches[patch.codec.value] = (count + 1, size + patch.size)
        details.append(
            ReleaseDetails(
                row=ReleaseRow(version, name, offers.get((name, version), ())),
                size=manifest.size,
                files=len(manifest.files),
                tree_digest=manifest.tree_digest,
                download=sum(frame.length for frame in manifest.frames),
                patches=patches,
                manifest=target.size,
                notes=manifest.notes,
                meta=manifest.meta,
            )
        )
    return details


def _index(channels: Channels, now: datetime) -> dict[tuple[Name, Version], tuple[Offered, ...]]:
    index: dict[tuple[Name, Version], tuple[Offered, ...]] = {}
    for channel, platforms in sorted(channels.entries.items()):
        for platform, entries in platforms.items():
            for entry in entries:
                offered = Offered.at(now, channel, entry)
                index[platform, entry.version] = (*index.get((platform, entry.version), ()), offered)
    return index
