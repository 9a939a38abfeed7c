"""Reading earlier releases: their manifests, verified, and which of them a new release can build on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from instar.content.manifests import expand_manifest, parse_manifest
from instar.errors import Untrusted
from instar.model.channel import Channels
from instar.model.digest import Digest
from instar.model.manifest import MAX_JSON, Manifest
from instar.model.names import Name
from instar.model.version import Version
from instar.publish.project import Project
from instar.publish.session import read_target
from instar.trust.layout import MANIFEST_SUFFIX, Target, manifest_path
from instar.trust.roles import RoleSet

__all__ = ["OldRelease", "json_of", "read_recent", "read_release", "recent_versions", "split_path"]

_HINT: Final = "Somebody or something changed the storage, or a newer instar wrote it."


@dataclass(frozen=True)
class OldRelease:
    """A release of the repository. ``document`` is the manifest's JSON, byte for byte as signed."""

    target: Target
    document: bytes
    manifest: Manifest


def json_of(target: Target) -> tuple[Digest, int]:
    """Give the digest and the size of the JSON that a manifest's target promises.

    Raises:
        Untrusted: it promises none.

    """
    try:
        row: Mapping[str, Any] = target.custom["json"]
        size = row["size"]
        if not isinstance(size, int) or isinstance(size, bool):
            raise TypeError(size)
        return Digest.parse(row["sha256"]), size
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        msg = f"The metadata does not say what the manifest {target.path} holds."
        raise Untrusted(msg, hint=_HINT) from error


def read_release(project: Project, target: Target) -> OldRelease:
    """Read a release's manifest, and check it against what was signed.

    Raises:
        Untrusted: it is something else, or another release's.
        Unavailable: it could not be read.

    """
    digest, size = json_of(target)
    document = expand_manifest(read_target(project, target, limit=MAX_JSON), digest=digest, size=size)
    manifest = parse_manifest(document)
    if manifest_path(manifest.product, manifest.platform, manifest.version) != target.path:
        msg = f"{target.path} holds the manifest of {manifest.product} {manifest.version} for {manifest.platform}."
        raise Untrusted(msg, hint=_HINT)
    return OldRelease(target, document, manifest)


def recent_versions(channels: Channels, platform: Name, first: Name, *, before: Version) -> list[Version]:
    """Give the versions offered on a platform, by how many devices may come from them to ``before``.

    That is: older versions first, and of these the newest first; of the channel ``first`` before all others; what was
    yanked last, for hardly a device runs it for long.
    """
    order = sorted(channels.entries, key=lambda channel: (channel != first, channel))
    rows = [entry for channel in order for entry in reversed(channels.of(channel, platform))]
    rows.sort(key=lambda entry: (entry.version > before, entry.yanked))
    return list(dict.fromkeys(entry.version for entry in rows))


def split_path(path: str) -> tuple[Name, Version]:
    """Read platform and version out of a manifest's target path.

    Raises:
        ValueError: it is the path of no manifest.

    """
    name = path.partition("/")[2]
    if not name.endswith(MANIFEST_SUFFIX):
        msg = f"{path!r} is no manifest's path"
        raise ValueError(msg)
    # A version in its canonical spelling holds no dash; a platform's name may.
    platform, _, version = name.removesuffix(MANIFEST_SUFFIX).rpartition("-")
    return Name(platform), Version(version)


def read_recent(
    project: Project,
    roles: RoleSet,
    platform: Name,
    versions: Iterable[Version],
    count: int,
) -> list[OldRelease]:
    """Read the first ``count`` of ``versions`` that the repository has for a platform.

    Raises:
        Untrusted, Unavailable: as for :func:`read_release`.

    """
    found: list[OldRelease] = []
    for version in versions:
        if len(found) == count:
            break
        target = roles.target(manifest_path(project.settings.product, platform, version))
        if target is not None:
            found.append(read_release(project, target))
    return found
