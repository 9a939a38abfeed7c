"""Changing who is offered what: pure functions from one ``Channels`` value to the next.

What is refused here is refused before anything is written. Who may sign the result is not asked here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final, Self

from instar.errors import Misconfigured
from instar.model.channel import Channels, Entry, Ramp
from instar.model.names import Name
from instar.model.version import Version
from instar.policy.rollout import current_percent

__all__ = [
    "KEPT_ENTRIES",
    "MAX_ENTRIES",
    "Offer",
    "Offered",
    "Place",
    "add_release",
    "edit_entries",
    "halt",
    "places_of",
    "promote",
    "resume",
    "set_percent",
    "trim",
    "yank",
]

KEPT_ENTRIES: Final = 32
"""The newest entries of a channel and platform that always stay: what a device can be taken back to."""
MAX_ENTRIES: Final = 256
"""No list grows beyond this, whatever is in it: every device reads all of it."""

_WHOLE: Final = 100.0

Place = tuple[Name, Name]
"""A channel and a platform."""


@dataclass(frozen=True, slots=True)
class Offer:
    """How a release is offered: to how many, how fast, to whom.

    Raises:
        Misconfigured: a percentage outside 0 to 100, a ramp that takes no time, a condition that nothing can meet.

    """

    percent: float = _WHOLE
    ramp: timedelta | None = None
    conditions: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 <= self.percent <= _WHOLE:
            msg = f"A rollout's percentage is between 0 and 100, not {self.percent:g}."
            raise Misconfigured(msg)
        if self.ramp is not None and self.ramp <= timedelta(0):
            msg = "A ramp takes some time, like 12h or 3d."
            raise Misconfigured(msg)
        if not all(fact and values for fact, values in self.conditions.items()):
            msg = "A condition names a fact and the values of it that are let in, like country=DE,AT."
            raise Misconfigured(msg)


@dataclass(frozen=True, slots=True)
class Offered:
    """How a channel offers a release. ``percent`` is what is reached now, on the way to ``entry.percent``."""

    channel: Name
    entry: Entry
    percent: float

    @classmethod
    def at(cls, now: datetime, channel: Name, entry: Entry) -> Self:
        """Look at an entry at a moment."""
        return cls(channel, entry, current_percent(entry, now))

    @property
    def state(self) -> str:
        """One word for people."""
        if self.entry.yanked:
            return "yanked"
        if self.entry.halted:
            return "halted"
        return "offered" if self.percent >= self.entry.percent else "ramping"

    def to_document(self) -> dict[str, Any]:
        """Write it for programs."""
        entry = self.entry
        document: dict[str, Any] = {
            "channel": self.channel,
            "state": self.state,
            "percent": round(self.percent, 2),
            "target_percent": entry.percent,
            "requires": entry.requires,
            "introduces": entry.introduces,
            "conditions": {fact: sorted(values) for fact, values in sorted(entry.conditions.items())},
        }
        if entry.ramp:
            document["ramp"] = {
                "start": entry.ramp.start.isoformat(),
                "seconds": int(entry.ramp.duration.total_seconds()),
            }
        return document


def add_release(
    channels: Channels,
    where: Place,
    version: Version,
    offer: Offer,
    *,
    now: datetime,
    checkpoint: bool = False,
    allow_older: bool = False,
) -> Channels:
    """Offer a new release in a channel on a platform.

    Args:
        channels: what is offered so far.
        where: the channel and the platform.
        version: the release.
        offer: to whom.
        now: when a ramp starts.
        checkpoint: no device may skip this release.
        allow_older: take a version older than the newest one there.

    Raises:
        Misconfigured: it is there already, older than the newest, or cannot stand where checkpoints are.

    """
    entries = channels.of(*where)
    _refuse_known(entries, where, version)
    _refuse_older(entries, where, version, allow_older=allow_older)
    requires, introduces = _checkpoint_numbers(channels, where, version, checkpoint=checkpoint)
    entry = Entry(
        version=version,
        percent=offer.percent,
        ramp=Ramp(now, offer.ramp) if offer.ramp else None,
        conditions=offer.conditions,
        requires=requires,
        introduces=introduces,
    )
    return _with(channels, where, [*entries, entry], now)


def promote(
    channels: Channels,
    version: Version,
    target: Place,
    offer: Offer,
    *,
    now: datetime,
    allow_older: bool = False,
) -> Channels:
    """Offer in another channel a release that the product has on that platform.

    Its conditions come along from where it was offered first, because they belong to what was built.

    Raises:
        Misconfigured: it is there already, was yanked, is older than the newest, or needs a checkpoint that is missing.

    """
    entries = channels.of(*target)
    _refuse_known(entries, target, version)
    _refuse_older(entries, target, version, allow_older=allow_older)
    source = _anywhere(channels, target[1], version)
    if source and source.yanked:
        msg = f"{version} was yanked."
        raise Misconfigured(msg, hint="Release a new version instead.")
    current = _checkpoint_before(entries, version)
    needed = source.requires if source else 0
    if needed > current:
        msg = f"{version} can only be installed after a checkpoint that {target[0]!s} for {target[1]!s} does not have."
        first = _introducer(channels, target[1], needed)
        raise Misconfigured(msg, hint=f"Promote {first.version} first." if first else None)
    introduces = source.introduces if source and source.introduces > current else 0
    entry = Entry(
        version=version,
        percent=offer.percent,
        ramp=Ramp(now, offer.ramp) if offer.ramp else None,
        conditions=offer.conditions or (source.conditions if source else {}),
        requires=current,
        introduces=introduces,
    )
    return _with(channels, target, [*entries, entry], now)


def edit_entries(
    channels: Channels,
    version: Version,
    places: Sequence[Place],
    edit: Callable[[Entry], Entry],
    *,
    now: datetime,
) -> Channels:
    """Change the entries of one version in the places named, by ``edit``."""
    for where in places:
        entries = [edit(entry) if entry.version == version else entry for entry in channels.of(*where)]
        channels = _with(channels, where, entries, now)
    return channels


def set_percent(entry: Entry, offer: Offer, now: datetime) -> Entry:
    """Widen or narrow a rollout. With a ramp it starts at what is reached now, so that no device falls out on the way.

    Raises:
        Misconfigured: the release was yanked.

    """
    if entry.yanked:
        msg = f"{entry.version} was yanked and is offered to nobody any more."
        raise Misconfigured(msg, hint="Release a new version instead.")
    reached = current_percent(entry, now)
    ramp = None
    if offer.ramp and offer.percent > reached:
        # The line through (now, reached) and (now + duration, percent), begun where it crosses zero.
        whole = offer.ramp / (1 - reached / offer.percent)
        ramp = Ramp(now - (whole - offer.ramp), whole)
    return replace(entry, percent=offer.percent, ramp=ramp, conditions=offer.conditions or entry.conditions)


def halt(entry: Entry, now: datetime) -> Entry:
    """Offer it to nobody until it is resumed. A ramp stops where it is: a pause must not end with a jump."""
    if entry.halted:
        return entry
    return replace(entry, halted=True, percent=round(current_percent(entry, now), 2), ramp=None)


def resume(entry: Entry) -> Entry:
    """Offer it again, to as many as before."""
    return replace(entry, halted=False)


def yank(channels: Channels, version: Version, places: Sequence[Place], *, now: datetime) -> Channels:
    """Withdraw a release for good. Devices that run it go back to the newest good one below it.

    Where the version has long left the list it is put in again: the devices that still run it must learn of it.

    Raises:
        Misconfigured: later releases need the checkpoint that it introduces.

    """
    for where in places:
        entries = channels.of(*where)
        gone = [entry for entry in entries if entry.version == version] or [Entry(version)]
        _refuse_orphans(entries, gone[0])
        others = [entry for entry in entries if entry.version != version]
        entry = replace(gone[0], yanked=True, halted=False, ramp=None, percent=0.0)
        channels = _with(channels, where, [*others, entry], now)
    return channels


def places_of(channels: Channels, version: Version) -> list[Place]:
    """Give every channel and platform that has the version."""
    return [
        (channel, platform)
        for channel, platforms in sorted(channels.entries.items())
        for platform, entries in sorted(platforms.items())
        if any(entry.version == version for entry in entries)
    ]


def trim(entries: Sequence[Entry], now: datetime) -> tuple[Entry, ...]:
    """Drop old entries that no device can need any more.

    Kept are the newest ``KEPT_ENTRIES``; checkpoints, which lie on the way of devices far behind; yanked releases,
    which somebody may still run; and of the rest what a newer one does not offer to the same devices already.
    """
    ordered = sorted(entries, key=lambda entry: entry.version)
    newest = ordered[-KEPT_ENTRIES:]
    kept = list(newest)
    for entry in reversed(ordered[:-KEPT_ENTRIES]):
        if entry.introduces or entry.yanked or not any(_replaces(newer, entry, now) for newer in kept):
            kept.insert(0, entry)
    spare = [entry for entry in kept if entry not in newest and not entry.introduces]
    # Checkpoints stay even beyond the bound: without one, devices would be cut off for good.
    excess = spare[: max(0, len(kept) - MAX_ENTRIES)]
    return tuple(entry for entry in kept if entry not in excess)


def _replaces(newer: Entry, older: Entry, now: datetime) -> bool:
    """Whether every device that ``older`` is offered to is offered ``newer`` as well, and can take it."""
    is_open = not newer.halted and not newer.yanked and current_percent(newer, now) >= _WHOLE
    wider = all(
        fact in older.conditions and older.conditions[fact] <= values for fact, values in newer.conditions.items()
    )
    return is_open and wider and newer.requires == older.requires


def _with(channels: Channels, where: Place, entries: Sequence[Entry], now: datetime) -> Channels:
    channel, platform = where
    listed = {name: dict(platforms) for name, platforms in channels.entries.items()}
    listed.setdefault(channel, {})[platform] = trim(entries, now)
    return Channels(channels.product, now, listed)


def _refuse_known(entries: Sequence[Entry], where: Place, version: Version) -> None:
    for entry in entries:
        if entry.version == version:
            state = "was yanked from" if entry.yanked else "is already in"
            msg = f"{version} {state} the channel {where[0]!s} for {where[1]!s}."
            hint = (
                "Release a new version." if entry.yanked else f"Change whom it is offered to: instar rollout {version}"
            )
            raise Misconfigured(msg, hint=hint)


def _refuse_older(entries: Sequence[Entry], where: Place, version: Version, *, allow_older: bool) -> None:
    if entries and not allow_older and version < entries[-1].version:
        newest = entries[-1].version
        msg = f"The channel {where[0]!s} for {where[1]!s} already has {newest}, which is newer than {version}."
        raise Misconfigured(msg, hint="If that is what you want, say --allow-older.")


def _checkpoint_numbers(channels: Channels, where: Place, version: Version, *, checkpoint: bool) -> tuple[int, int]:
    entries = channels.of(*where)
    lost = _lost_checkpoint(entries, version)
    if lost and not checkpoint:
        msg = f"{lost.version}, a release that no device may skip, was yanked, and nothing has taken its place."
        raise Misconfigured(msg, hint="If this release does what that one did, say --checkpoint.")
    if lost:
        # A replacement takes over the numbers: devices that had passed the yanked one have passed this one too.
        return lost.requires, lost.introduces
    current = _checkpoint_before(entries, version)
    if not checkpoint:
        return current, 0
    # Numbers are unique on a platform, because a device takes its own along when it changes the channel.
    highest = max(
        (entry.introduces for platforms in channels.entries.values() for entry in platforms.get(where[1], ())),
        default=0,
    )
    later = next((entry for entry in entries if entry.version > version), None)
    if later:
        msg = f"A checkpoint cannot be put before {later.version}, which is already out."
        raise Misconfigured(msg, hint=f"Give it a version above {entries[-1].version}.")
    return current, highest + 1


def _checkpoint_before(entries: Sequence[Entry], version: Version) -> int:
    return max((e.introduces for e in entries if e.version < version and not e.yanked), default=0)


def _lost_checkpoint(entries: Sequence[Entry], version: Version) -> Entry | None:
    """Give the yanked checkpoint below ``version`` that no other release stands in for."""
    live = {entry.introduces for entry in entries if not entry.yanked}
    lost = [e for e in entries if e.yanked and e.introduces and e.introduces not in live and e.version < version]
    return lost[-1] if lost else None


def _refuse_orphans(entries: Sequence[Entry], gone: Entry) -> None:
    others = [e for e in entries if e.version != gone.version and not e.yanked]
    if not gone.introduces or any(e.introduces == gone.introduces for e in others):
        return
    for entry in others:
        if entry.requires >= gone.introduces:
            msg = f"{gone.version} cannot be yanked: {entry.version} can only be reached through it."
            raise Misconfigured(msg, hint="Halt it instead, or yank the releases after it first.")


def _anywhere(channels: Channels, platform: Name, version: Version) -> Entry | None:
    found = [
        entry
        for platforms in channels.entries.values()
        for entry in platforms.get(platform, ())
        if entry.version == version
    ]
    return max(found, key=lambda entry: entry.yanked, default=None)


def _introducer(channels: Channels, platform: Name, number: int) -> Entry | None:
    for platforms in channels.entries.values():
        for entry in platforms.get(platform, ()):
            if entry.introduces == number and not entry.yanked:
                return entry
    return None
