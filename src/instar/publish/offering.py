"""Who is offered what: promote, rollout, halt, resume, yank, and the security floor.

Except for the floor, all of it needs the online key alone, so a server can do it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from instar.errors import Misconfigured
from instar.model.channel import Channels, Entry
from instar.model.names import Name
from instar.model.version import Version
from instar.publish import channels as edit
from instar.publish.channels import Offer, Offered
from instar.publish.history import split_path
from instar.publish.project import Project
from instar.publish.session import Session, publishing, refuse_below_floor
from instar.trust.layout import MANIFEST_SUFFIX, manifest_path
from instar.trust.roles import Authority

__all__ = ["Change", "Where", "halt", "promote", "resume", "rollout", "set_floor", "yank"]


@dataclass(frozen=True, slots=True)
class Where:
    """Which places a command is limited to; None for all that have the version."""

    channel: Name | None = None
    platform: Name | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """What a release's entry in a channel on a platform has become."""

    platform: Name
    offered: Offered


def promote(
    project: Project,
    version: Version,
    channel: Name,
    *,
    platform: Name | None = None,
    offer: Offer | None = None,
    allow_older: bool = False,
) -> list[Change]:
    """Offer in ``channel`` what is a release already, on every platform that has it, or on one.

    Raises:
        Misconfigured: there is no such release, or it cannot be offered there.
        Busy, Unavailable, Untrusted: as for :func:`instar.publish.release`.

    """
    with publishing(project) as session:
        platforms = [platform] if platform else _platforms_of(session, version)
        for name in platforms:
            if session.roles.target(manifest_path(project.settings.product, name, version)) is None:
                raise _unknown(version, name)
        if not platforms:
            raise _unknown(version, None)
        refuse_below_floor(session, version)
        channels = session.channels
        for name in platforms:
            if platform is None and version in {entry.version for entry in channels.of(channel, name)}:
                continue  # promoted there before; the others are still wanted
            channels = edit.promote(
                channels, version, (channel, name), offer or Offer(), now=session.now, allow_older=allow_older
            )
        if channels == session.channels:
            msg = f"{version} is in the channel {channel!s} already."
            raise Misconfigured(msg, hint=f"Change whom it is offered to: instar rollout {version}")
        return _publish(session, channels, version, [(channel, name) for name in platforms])


def rollout(project: Project, version: Version, offer: Offer, *, where: Where | None = None) -> list[Change]:
    """Widen or narrow whom a release is offered to. Its conditions stay unless ``offer`` has some.

    Raises:
        Misconfigured: no channel has it, several do and none was named, or it was yanked.
        Busy, Unavailable, Untrusted: as for :func:`instar.publish.release`.

    """
    with publishing(project) as session:
        places = _places(session, version, where or Where())
        names = sorted({channel for channel, _ in places})
        if len(names) > 1:
            msg = f"{version} is in the channels {', '.join(names)}."
            raise Misconfigured(msg, hint="Say with --channel which one is meant.")
        return _edit(session, version, places, lambda entry: edit.set_percent(entry, offer, session.now))


def halt(project: Project, version: Version, *, where: Where | None = None) -> list[Change]:
    """Offer a release to nobody until it is resumed; devices that have it keep it.

    Raises:
        Misconfigured: no channel has it.
        Busy, Unavailable, Untrusted: as for :func:`instar.publish.release`.

    """
    with publishing(project) as session:
        places = _places(session, version, where or Where())
        return _edit(session, version, places, lambda entry: edit.halt(entry, session.now))


def resume(project: Project, version: Version, *, where: Where | None = None) -> list[Change]:
    """Offer a halted release again, to as many as before.

    Raises:
        Misconfigured: no channel has it, or it was yanked.
        Busy, Unavailable, Untrusted: as for :func:`instar.publish.release`.

    """
    with publishing(project) as session:
        places = _places(session, version, where or Where())
        if any(e.yanked for place in places for e in session.channels.of(*place) if e.version == version):
            msg = f"{version} was yanked, which is for good."
            raise Misconfigured(msg, hint="Release a new version instead.")
        return _edit(session, version, places, edit.resume)


def yank(project: Project, version: Version, *, where: Where | None = None) -> list[Change]:
    """Withdraw a release for good: devices that run it go back to the newest good one below it.

    Raises:
        Misconfigured: there is no such release, or others can only be reached through it.
        Busy, Unavailable, Untrusted: as for :func:`instar.publish.release`.

    """
    wanted = where or Where()
    with publishing(project) as session:
        platforms = [p for p in _platforms_of(session, version) if wanted.platform in {None, p}]
        if not platforms:
            raise _unknown(version, wanted.platform)
        # Also where it has left the list, or was never: devices may have come from another channel with it.
        places = [
            (channel, platform)
            for channel, listed in sorted(session.channels.entries.items())
            for platform in platforms
            if platform in listed and wanted.channel in {None, channel}
        ]
        if not places:
            msg = f"No channel has releases for {', '.join(platforms)}."
            raise Misconfigured(msg, hint="See `instar list`.")
        channels = edit.yank(session.channels, version, places, now=session.now)
        return _publish(session, channels, version, places)


def set_floor(project: Project, version: Version, *, allow_lower: bool = False) -> Version | None:
    """Sign that nothing below ``version`` may run any more, whatever a channel offers. Gives the floor before.

    Raises:
        Misconfigured: it is lower than the floor before, or above everything on offer.
        Busy, Unavailable, Untrusted: as for :func:`instar.publish.release`.

    """
    product = project.settings.product
    with publishing(project) as session:
        text = session.roles.floor(product)
        before = Version(text) if text else None
        if before and version < before and not allow_lower:
            msg = f"The security floor is {before}, which is above {version}."
            raise Misconfigured(
                msg,
                hint="Devices would take releases again that are known to be unsafe. "
                "If that is what you want, say --allow-lower.",
            )
        for channel, platforms in session.channels.entries.items():
            for platform, entries in platforms.items():
                live = [entry.version for entry in entries if not entry.yanked]
                if live and max(live) < version:
                    msg = f"The channel {channel!s} has nothing for {platform!s} that is {version} or newer."
                    raise Misconfigured(msg, hint="Release or promote something there first, or yank what it offers.")
        session.roles.set_floor(product, str(version))
        session.commit(project.open_signers(session.roles, [Authority.OWNER, Authority.ONLINE]))
        return before


def _edit(
    session: Session, version: Version, places: Sequence[edit.Place], change: Callable[[Entry], Entry]
) -> list[Change]:
    channels = edit.edit_entries(session.channels, version, places, change, now=session.now)
    return _publish(session, channels, version, places)


def _publish(session: Session, channels: Channels, version: Version, places: Sequence[edit.Place]) -> list[Change]:
    if _same(channels, session.channels, session.now):
        return _changes(channels, version, places, session.now)
    signers = session.project.open_signers(session.roles, [Authority.ONLINE])
    session.set_channels(channels)
    session.commit(signers)
    return _changes(channels, version, places, session.now)


def _same(one: Channels, other: Channels, now: datetime) -> bool:
    return Channels(one.product, now, one.entries) == Channels(other.product, now, other.entries)


def _changes(channels: Channels, version: Version, places: Sequence[edit.Place], now: datetime) -> list[Change]:
    return [
        Change(platform, Offered.at(now, channel, entry))
        for channel, platform in places
        for entry in channels.of(channel, platform)
        if entry.version == version
    ]


def _places(session: Session, version: Version, where: Where) -> list[edit.Place]:
    found = edit.places_of(session.channels, version)
    places = [place for place in found if where.channel in {None, place[0]} and where.platform in {None, place[1]}]
    if not places:
        wanted = " for ".join(name for name in (where.channel, where.platform) if name)
        msg = f"No channel has {version}." if not wanted else f"{wanted} does not have {version}."
        raise Misconfigured(msg, hint="See `instar list`.")
    return places


def _platforms_of(session: Session, version: Version) -> list[Name]:
    """Give the platforms that the owner has signed the version for."""
    product = session.project.settings.product
    listed = {name for platforms in session.channels.entries.values() for name in platforms}
    found = {name for name in listed if session.roles.target(manifest_path(product, name, version))}
    if not found:
        # Long out of every list, perhaps on a platform that nothing is offered for any more.
        paths = [path for path in session.roles.targets(product) if path.endswith(MANIFEST_SUFFIX)]
        found = {platform for platform, other in map(split_path, paths) if other == version}
    return sorted(found)


def _unknown(version: Version, platform: Name | None) -> Misconfigured:
    where = f" for {platform!s}" if platform else ""
    return Misconfigured(f"There is no release {version}{where}.", hint="See `instar list`.")
