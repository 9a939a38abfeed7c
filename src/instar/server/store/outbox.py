"""What is to be said to others once it has happened: written in the same transaction, leased, said, deleted.

A worker that dies between saying and deleting says it again when the lease is over: nothing is lost, and something may
be said twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, Table, delete, insert, select, update

from instar.server.store.schema import events, notices
from instar.server.store.values import milliseconds, moment

__all__ = ["LEASE", "JobEvent", "Notice", "add_events", "add_notices", "claim_events", "claim_notices", "forget"]

LEASE: Final = timedelta(seconds=30)
"""How long a worker has to say what it took."""


@dataclass(frozen=True, slots=True)
class Notice:
    """A device's list has changed, and with ``head`` what stands first in it."""

    number: int
    device: int
    listing: bool
    head: bool


@dataclass(frozen=True, slots=True)
class JobEvent:
    """Something that happened to a job, or to the execution of one device."""

    number: int
    at: datetime
    job: str
    thing: str
    what: str


def add_notices(connection: Connection, rows: Sequence[tuple[int, bool, bool]]) -> None:
    """Let these devices be told: number, whether their list changed, whether its first entry did."""
    if rows:
        connection.execute(
            insert(notices), [{"device_id": number, "listing": listing, "head": head} for number, listing, head in rows]
        )


def add_events(connection: Connection, now: datetime, rows: Iterable[tuple[str, str, str]]) -> None:
    """Let others be told: the job, the device or nothing, what happened."""
    values = [{"at": milliseconds(now), "job": job, "thing": thing, "what": what} for job, thing, what in rows]
    if values:
        connection.execute(insert(events), values)


def claim_notices(connection: Connection, now: datetime, limit: int) -> list[Notice]:
    """Take notices to say; until the lease is over nobody else gets them."""
    rows = _claim(connection, notices, now, limit)
    return sorted((Notice(row.id, row.device_id, row.listing, row.head) for row in rows), key=lambda each: each.number)


def claim_events(connection: Connection, now: datetime, limit: int) -> list[JobEvent]:
    """Take events to tell; until the lease is over nobody else gets them."""
    rows = _claim(connection, events, now, limit)
    found = (JobEvent(row.id, moment(row.at), row.job, row.thing, row.what) for row in rows)
    return sorted(found, key=lambda each: each.number)


def forget(connection: Connection, said: Sequence[Notice] | Sequence[JobEvent]) -> None:
    """Forget what was said."""
    if said:
        table = notices if isinstance(said[0], Notice) else events
        connection.execute(delete(table).where(table.c.id.in_([each.number for each in said])))


def _claim(connection: Connection, table: Table, now: datetime, limit: int) -> Sequence[Any]:
    free = (
        select(table.c.id)
        .where(table.c.leased_until <= milliseconds(now))
        .order_by(table.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    until = milliseconds(now + LEASE)
    return connection.execute(
        update(table).where(table.c.id.in_(free)).values(leased_until=until).returning(table)
    ).all()
