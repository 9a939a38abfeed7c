"""``instar release``: a folder becomes a signed release that a channel offers."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from instar.content.manifests import compress_manifest, make_delta
from instar.errors import Misconfigured
from instar.model.channel import Channels
from instar.model.digest import Digest
from instar.model.manifest import MAX_META, MAX_NOTES, piece_key
from instar.model.names import Name
from instar.model.progress import OnProgress, ignore_progress
from instar.model.version import Version
from instar.publish.channels import Offer, add_release
from instar.publish.history import OldRelease, read_recent, recent_versions
from instar.publish.project import Project
from instar.publish.session import Session, local_disk, publishing, refuse_below_floor
from instar.publish.settings import MAX_BASES, Effort
from instar.storage.local import LocalStorage
from instar.system.files import remove_tree
from instar.trust.layout import manifest_path, target_key
from instar.trust.roles import Authority

if TYPE_CHECKING:
    from instar.content.build import Built

__all__ = ["Released", "Wanted", "release"]

# Earlier releases of the platform whose chunks are not stored again. Each names all the chunks that it consists of,
# however old they are, so more of them would find only what has come back after having been gone.
_REMEMBERED: Final = 8
# Manifests of that many earlier releases are made into differences, whatever the number that patches are made for.
_DELTAS: Final = 3
# Bytes of a compressed manifest below which a difference is not worth its line in the metadata: every client that
# looks fetches those lines.
_WORTH_DELTA: Final = 2048


@dataclass(frozen=True)
class Wanted:
    """What ``release`` is asked for.

    Args:
        version: of the release.
        platform: where it runs.
        channel: where it is offered; None for the one in the settings.
        offer: to whom.
        notes: what is new, for people.
        meta: what is known about it, for programs.
        checkpoint: no device may skip it.
        allow_older: it may be older than the channel's newest.
        effort: None for the one in the settings.
        base_releases: how many earlier releases patches are made against; None for what the settings say.

    Raises:
        Misconfigured: a number of base releases that makes no sense.

    """

    version: Version
    platform: Name
    channel: Name | None = None
    offer: Offer = field(default_factory=Offer)
    notes: str = ""
    meta: Mapping[str, str] = field(default_factory=dict)
    checkpoint: bool = False
    allow_older: bool = False
    effort: Effort | None = None
    base_releases: int | None = None

    def __post_init__(self) -> None:
        if self.base_releases is not None and not 0 <= self.base_releases <= MAX_BASES:
            msg = f"Patches are made from 0 to {MAX_BASES} earlier releases, not {self.base_releases}."
            raise Misconfigured(msg)


@dataclass(frozen=True, slots=True)
class Released:
    """What became of it. Sizes in bytes: installed, new to the repository, and uploaded."""

    version: Version
    platform: Name
    channel: Name
    percent: float
    size: int
    new: int
    uploaded: int
    patches: int
    bases: tuple[Version, ...]


def release(project: Project, folder: Path, wanted: Wanted, *, progress: OnProgress = ignore_progress) -> Released:
    """Publish a folder as a release.

    Raises:
        Misconfigured: the version exists, is older than the channel's newest, the folder cannot be a release, a key
            is missing; nothing was written.
        Busy: somebody else is publishing.
        Unavailable: the storage or this disk did not take it; clients see what they saw before.
        Untrusted: what the storage holds is not what was signed.

    """
    # Imported here: a server that only promotes and halts needs neither numpy nor a maker of patches.
    from instar.content import build  # noqa: PLC0415

    _check_texts(wanted)
    _check_folder(folder, project)
    settings = project.settings.release
    channel = wanted.channel or settings.channel
    with publishing(project) as session:
        _refuse_existing(session, wanted)
        refuse_below_floor(session, wanted.version)
        channels = _offered(session, wanted, channel)
        signers = project.open_signers(session.roles, [Authority.OWNER, Authority.ONLINE])
        count = settings.base_releases if wanted.base_releases is None else wanted.base_releases
        recent = _recent(session, wanted, channel, max(count, _REMEMBERED))
        with local_disk(project.work):
            project.work.mkdir()
        try:
            built = build.build_release(
                folder,
                build.Label(project.settings.product, wanted.version, wanted.platform, wanted.notes, wanted.meta),
                bases=[old.manifest for old in recent[:count]],
                earlier=[old.manifest for old in [*recent, *_elsewhere(session, wanted)]],
                reader=project.storage,
                work=project.work,
                effort=build.Effort(wanted.effort or settings.effort),
                progress=progress,
            )
            uploaded = _add(session, built, recent[: max(count, _DELTAS)])
            session.set_channels(channels)
            session.commit(signers, progress=progress)
        finally:
            # What cannot be removed now is removed by the next publication; it decides nothing.
            with contextlib.suppress(OSError):
                remove_tree(project.work)
    return Released(
        version=wanted.version,
        platform=wanted.platform,
        channel=channel,
        percent=wanted.offer.percent,
        size=built.manifest.size,
        new=built.statistics.new,
        uploaded=uploaded,
        patches=built.statistics.patches,
        bases=tuple(old.manifest.version for old in recent[:count]),
    )


def _check_texts(wanted: Wanted) -> None:
    if len(wanted.notes.encode()) > MAX_NOTES:
        msg = f"The notes are longer than the {MAX_NOTES:,} bytes that a release can carry."
        raise Misconfigured(msg, hint="Shorten them, or give a link.")
    if sum(len(key.encode()) + len(value.encode()) for key, value in wanted.meta.items()) > MAX_META:
        msg = f"The metadata is longer than the {MAX_META:,} bytes that a release can carry."
        raise Misconfigured(msg, hint="Shorten it.")


def _check_folder(folder: Path, project: Project) -> None:
    """Refuse the mistakes that a scan would not see: a release that holds the keys it is signed with, or packs."""
    try:
        bundle = folder.resolve(strict=True)
    except OSError as error:
        msg = f"The folder {folder} cannot be read: {error.strerror or error}."
        raise Misconfigured(msg, hint="Name the folder that your bundler made.") from error
    if project.folder.resolve().is_relative_to(bundle):
        msg = f"The folder {folder} holds this project itself, with its settings and keys."
        raise Misconfigured(msg, hint="Name the folder that your bundler made.")
    for name, key in project.key_files().items():
        if key.resolve().is_relative_to(bundle):
            msg = f"The folder {folder} holds the {name} key {key}, which would be published with it."
            raise Misconfigured(msg, hint="Name the folder that your bundler made, or keep the key elsewhere.")
    # What is in the one is emptied by this very command; what is in the other is published already.
    own = [project.work, *([project.storage.root] if isinstance(project.storage, LocalStorage) else [])]
    for place in (path.resolve() for path in own):
        if bundle.is_relative_to(place) or place.is_relative_to(bundle):
            msg = f"The folder {folder} and the folder {place}, where instar keeps its own files, lie in one another."
            raise Misconfigured(msg, hint="Name the folder that your bundler made.")


def _refuse_existing(session: Session, wanted: Wanted) -> None:
    # Not by the path alone: 1.0 and 1.0.0 are one version in two spellings, and devices hold them to be the same.
    spellings = [
        str(entry.version)
        for platforms in session.channels.entries.values()
        for entry in platforms.get(wanted.platform, ())
        if entry.version == wanted.version
    ]
    product = session.project.settings.product
    for text in dict.fromkeys([str(wanted.version), *spellings]):
        if session.roles.target(manifest_path(product, wanted.platform, text)):
            other = "" if text == str(wanted.version) else f", as {text}"
            msg = f"{wanted.version} for {wanted.platform!s} exists already{other}."
            raise Misconfigured(msg, hint="A release is never changed: give this one a new version.")


def _offered(session: Session, wanted: Wanted, channel: Name) -> Channels:
    return add_release(
        session.channels,
        (channel, wanted.platform),
        wanted.version,
        wanted.offer,
        now=session.now,
        checkpoint=wanted.checkpoint,
        allow_older=wanted.allow_older,
    )


def _recent(session: Session, wanted: Wanted, channel: Name, count: int) -> list[OldRelease]:
    versions = recent_versions(session.channels, wanted.platform, channel, before=wanted.version)
    return read_recent(session.project, session.roles, wanted.platform, versions, count)


def _elsewhere(session: Session, wanted: Wanted) -> list[OldRelease]:
    """Give the newest release of every other platform: much of what an app brings along is the same on all."""
    others = sorted({name for platforms in session.channels.entries.values() for name in platforms})
    found: list[OldRelease] = []
    for other in others:
        if other == wanted.platform:
            continue
        versions = recent_versions(session.channels, other, Name("stable"), before=wanted.version)
        found.extend(read_recent(session.project, session.roles, other, versions, 1))
    return found


def _add(session: Session, built: Built, recent: Sequence[OldRelease]) -> int:
    """Put packs, manifest and the manifest's differences into the publication. Gives the bytes that they take."""
    document = built.manifest.to_json()
    frame = compress_manifest(document)
    digest = Digest.of(frame)
    path = manifest_path(built.manifest.product, built.manifest.platform, built.manifest.version)
    uploaded = len(frame)
    deltas = []
    for old in recent if len(frame) >= _WORTH_DELTA else ():
        delta = make_delta(old.document, document)
        if 2 * len(delta) > len(frame):
            continue
        name = Digest.of(delta)
        session.add(piece_key(name, "delta"), delta)
        deltas.append({"from": Digest.of(old.document).hex, "sha256": name.hex, "size": len(delta)})
        uploaded += len(delta)
    for file in built.files:
        session.add(file.key, file.path)
        uploaded += file.size
    session.add(target_key(path, digest), frame)
    custom: dict[str, Any] = {"json": {"sha256": Digest.of(document).hex, "size": len(document)}}
    if deltas:
        custom["deltas"] = deltas
    session.roles.set_target(path, size=len(frame), digest=digest, custom=custom)
    return uploaded
