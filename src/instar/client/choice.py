"""The question to ``policy.select``, put together from what the repository says and how things stand here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from instar.client.here import Here
from instar.install import Status
from instar.model.channel import Entry
from instar.model.version import Version
from instar.policy.select import Decision, Device, Direction, select_release

if TYPE_CHECKING:
    from instar.client.session import Session

__all__ = ["Choice", "choose"]


@dataclass(frozen=True)
class Choice:
    """What was decided, and from what."""

    decision: Decision
    entries: tuple[Entry, ...]
    floor: Version | None

    def offers(self, version: Version) -> bool:
        """Say whether the channel still has this release for anybody."""
        live = {entry.version for entry in self.entries if not entry.halted and not entry.yanked}
        return version in live and (self.floor is None or version >= self.floor)

    def leads_on_from(self, version: Version) -> bool:
        """Say whether the channel holds this release or a newer one: then it can be followed without going down."""
        return any(entry.version >= version and not entry.yanked for entry in self.entries)


def choose(here: Here, session: Session, status: Status) -> Choice:
    """Decide what this device takes next, by what ``session`` knows.

    Raises:
        Expired, Untrusted, Unavailable: as the session does.

    """
    floor = session.floor()
    entries = session.channels().of(here.channel, here.config.platform)
    current = status.current
    device = Device(
        id=here.config.device_id or here.installation.record.device_id,
        product=here.config.product,
        version=None if current is None else current.version,
        checkpoint=0 if current is None else current.checkpoint,
        facts=here.config.facts,
        failed=frozenset(failure.version for failure in status.failed),
    )
    # Naming another channel is the will of the device's owner, and may lead down; the floor holds all the same.
    direction = Direction.ANY if here.switches_channel else Direction.UP
    decision = select_release(entries, device, now=session.now, floor=floor, direction=direction)
    return Choice(decision, entries, floor)
