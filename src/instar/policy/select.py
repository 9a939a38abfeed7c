"""Which release of a channel a device takes next, if any. One pure function; the rules are numbered in its body.

What leads from one release to another is not decided here: that is :mod:`instar.policy.ladder`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from instar.model.channel import Entry
from instar.model.version import Version
from instar.policy.ladder import Aim, Ladder, Rung, Standing, climb
from instar.policy.rollout import is_in

__all__ = ["Decision", "Device", "Direction", "Reason", "select_release"]


class Reason(StrEnum):
    """Why this was decided. The values are shown to people."""

    NEWER = "a newer release is offered"
    CHECKPOINT = "a release that cannot be skipped comes first"
    YANKED = "the installed release was withdrawn"
    CHANNEL_SWITCH = "the newest release of the channel that was switched to"
    UP_TO_DATE = "the installed release is the newest that is offered"
    NOT_IN_CHANNEL = "the channel has no release for this platform"
    NOT_YET = "there is a newer release, but it is not offered to this device, or not yet"
    FAILED_HERE = "the newer release failed on this device and is not tried again"
    BELOW_FLOOR = "every release on offer is below the security floor"
    CHECKPOINT_MISSING = "a release that must be installed first is not offered"


class Direction(StrEnum):
    """Whether a device may go back to an older release."""

    UP = "only newer releases"
    ANY = "older ones too: the owner of the device switched to another channel"


@dataclass(frozen=True, slots=True)
class Device:
    """What the decision needs to know of a device.

    ``version`` is None before the first install; ``failed`` are the releases that were rolled back here.
    """

    id: str
    product: str
    version: Version | None
    checkpoint: int = 0
    facts: Mapping[str, str] = field(default_factory=dict)
    failed: frozenset[Version] = frozenset()


@dataclass(frozen=True, slots=True)
class Decision:
    """``entry`` is what to install, None for nothing; ``reason`` says why."""

    entry: Entry | None
    reason: Reason


def select_release(
    entries: Sequence[Entry],
    device: Device,
    *,
    now: datetime,
    floor: Version | None = None,
    direction: Direction = Direction.UP,
) -> Decision:
    """Choose among a channel's entries for the device's platform, oldest first."""
    # 1. A channel without releases offers none.
    if not entries:
        return Decision(None, Reason.NOT_IN_CHANNEL)
    # 2. The owner's security floor stands above everything that a channel says.
    above = [entry for entry in entries if floor is None or entry.version >= floor]
    if not above:
        return Decision(None, Reason.BELOW_FLOOR)
    # 3. What is offered: let in by rollout and conditions, and not seen to fail here.
    offered = [
        entry
        for entry in above
        if is_in(entry, device_id=device.id, product=device.product, facts=device.facts, now=now)
    ]
    usable = [entry for entry in offered if entry.version not in device.failed]
    # 4. Going down needs a signed reason (the installed release is yanked) or the will of the device's owner.
    #    Whoever switches to a channel that carries what is installed is there already.
    yanked = any(entry.yanked and entry.version == device.version for entry in entries)
    carried = any(entry.version == device.version and not entry.yanked for entry in above)
    may_go_down = yanked or (direction is Direction.ANY and not carried) or device.version is None
    candidates = [
        entry
        for entry in usable
        if device.version is None or entry.version > device.version or (may_go_down and entry.version != device.version)
    ]
    if not candidates:
        return Decision(None, _why_nothing(above, offered, device))
    # 5. A first install has nothing to migrate, so it starts at the newest.
    if device.version is None:
        return Decision(candidates[-1], Reason.NEWER)
    # 6. The newest that is reachable: it requires exactly the checkpoint the device has passed, or releases that
    #    introduce the ones between are offered too, and then the first of those is taken.
    ladder = Ladder.of(Rung(entry, entry.version, entry.requires, entry.introduces) for entry in candidates)
    standing = Standing(device.version, device.checkpoint)
    for top in reversed(ladder.tops):
        if not (way := climb(ladder, top, standing, Aim.RETURN if may_go_down else Aim.NEWER)):
            continue
        if len(way) > 1:
            return Decision(way[0].release, Reason.CHECKPOINT)
        if top.release.version < device.version:
            return Decision(top.release, Reason.YANKED if yanked else Reason.CHANNEL_SWITCH)
        return Decision(top.release, Reason.NEWER)
    return Decision(None, Reason.CHECKPOINT_MISSING)


def _why_nothing(above: Sequence[Entry], offered: Sequence[Entry], device: Device) -> Reason:
    if device.version is None:
        return Reason.FAILED_HERE if offered else Reason.NOT_YET
    if any(entry.version > device.version and entry.version in device.failed for entry in offered):
        return Reason.FAILED_HERE
    if any(entry.version > device.version and not entry.halted and not entry.yanked for entry in above):
        return Reason.NOT_YET
    return Reason.UP_TO_DATE
