"""Many executions at once, without ever holding them: INSERT … SELECT and its like, a batch in each transaction.

Each function does one batch in order of the devices' numbers and says how far it came, so that any worker can do the
next. Devices of the batch are locked first where what they hear depends on their other executions.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, Select, and_, delete, exists, func, insert, literal, select, true, update

from instar.model.job import ExecutionStatus
from instar.server.store.devices import insert_new
from instar.server.store.schema import (
    PLANNED,
    attempts,
    devices,
    executions,
    group_members,
    is_pending,
    is_planned,
    job_devices,
    notices,
)
from instar.server.store.values import milliseconds

__all__ = ["BATCH", "Found", "drop_waiting", "erase_executions", "give_out", "pending_behind", "plan_batch"]

BATCH: Final = 20_000
"""Rows of one transaction: some tenths of a second, so that devices wait for no more than that."""


@dataclass(frozen=True, slots=True)
class Found:
    """What one batch of finding came to: so many new rows, the last device looked at; None when there are no more."""

    added: int
    last: int | None


def plan_batch(
    connection: Connection,
    *,
    job: int,
    group: int | None,
    after: int,
    now: datetime,
    direct: bool,
    limit: int = BATCH,
) -> Found:
    """Find the next devices that a job is for.

    Args:
        connection: the transaction.
        job: the job's number.
        group: the group whose members are meant; None for the devices that were named alone.
        after: the last device that was looked at before.
        now: the time.
        direct: they are given the job at once; else they wait.
        limit: how many devices are looked at.

    """
    source, column = (
        (job_devices, job_devices.c.job_id == job)
        if group is None
        else (group_members, group_members.c.group_id == group)
    )
    behind = and_(column, source.c.device_id > after)
    batch = select(source.c.device_id).where(behind).order_by(source.c.device_id).limit(limit).subquery()
    last: int | None = connection.execute(select(func.max(batch.c.device_id))).scalar()
    if last is None:
        return Found(0, None)
    meant = select(source.c.device_id).where(behind, source.c.device_id <= last)
    if direct:
        _lock(connection, meant)
    at = milliseconds(now)
    status = ExecutionStatus.QUEUED.value if direct else PLANNED
    # Behind the lock, in a statement of its own: what was retired while this one waited is not meant any more. The
    # condition that is always true keeps SQLite from reading ON CONFLICT as part of a join.
    rows = (
        select(literal(job), devices.c.id, literal(status), literal(at), literal(at))
        .where(devices.c.id.in_(meant), devices.c.retired_at.is_(None), true())
        .order_by(devices.c.id)
    )
    names = ["job_id", "device_id", "status", "queued_at", "updated_at"]
    added = connection.execute(insert_new(connection, executions).from_select(names, rows)).rowcount
    if direct and added:
        _notify(connection, job, after, last, at)
    return Found(added, last)


def give_out(connection: Connection, *, job: int, limit: int, now: datetime) -> int:
    """Give a job to the next devices that wait for it; give how many there were."""
    waiting = (
        select(executions.c.device_id)
        .where(executions.c.job_id == job, is_planned())
        .order_by(executions.c.device_id)
        .limit(limit)
    )
    batch = waiting.subquery()
    first, last = connection.execute(select(func.min(batch.c.device_id), func.max(batch.c.device_id))).one()
    if last is None:
        return 0
    inside = (executions.c.job_id == job, executions.c.device_id >= first, executions.c.device_id <= last, is_planned())
    _lock(connection, select(executions.c.device_id).where(*inside))
    at = milliseconds(now)
    given = connection.execute(
        update(executions).where(*inside).values(status=ExecutionStatus.QUEUED.value, queued_at=at, updated_at=at)
    ).rowcount
    _notify(connection, job, first - 1, last, at)
    return given


def drop_waiting(connection: Connection, *, job: int, limit: int = BATCH) -> int:
    """Forget devices that wait for a job and will not be given it; give how many there were."""
    waiting = select(executions.c.device_id).where(executions.c.job_id == job, is_planned()).limit(limit)
    return connection.execute(
        delete(executions).where(executions.c.job_id == job, is_planned(), executions.c.device_id.in_(waiting))
    ).rowcount


def pending_behind(connection: Connection, *, job: int, after: int, force: bool, limit: int) -> list[int]:
    """Give the next devices whose execution of a job is queued, with ``force`` also those that have begun."""
    statuses = [ExecutionStatus.QUEUED.value, *([ExecutionStatus.IN_PROGRESS.value] if force else [])]
    query = (
        select(executions.c.device_id)
        .where(executions.c.job_id == job, executions.c.device_id > after, executions.c.status.in_(statuses))
        .order_by(executions.c.device_id)
        .limit(limit)
    )
    return list(connection.execute(query).scalars())


def erase_executions(connection: Connection, *, job: int, limit: int = BATCH) -> int:
    """Forget executions of a job, with their earlier attempts; give how many there were."""
    erased = 0
    for table in (attempts, executions):
        some = select(table.c.device_id).where(table.c.job_id == job).limit(limit)
        erased += connection.execute(delete(table).where(table.c.job_id == job, table.c.device_id.in_(some))).rowcount
    return erased


def _lock(connection: Connection, numbers: Select[tuple[int]]) -> None:
    # SQLite has one writer, which is this one.
    if connection.dialect.name != "sqlite":
        locked = (
            select(devices.c.id).where(devices.c.id.in_(numbers)).order_by(devices.c.id).with_for_update(key_share=True)
        )
        connection.execute(select(func.count()).select_from(locked.subquery()))


def _notify(connection: Connection, job: int, after: int, last: int, at: int) -> None:
    """Let those who were given the job just now hear of it; it is their first when nothing else is pending."""
    other = executions.alias()
    others = exists().where(
        other.c.device_id == executions.c.device_id,
        other.c.job_id != job,
        is_pending(other),
    )
    rows = select(executions.c.device_id, literal(True), ~others).where(  # noqa: FBT003  # a column's value
        executions.c.job_id == job,
        executions.c.device_id > after,
        executions.c.device_id <= last,
        executions.c.queued_at == at,
        is_pending(),
    )
    connection.execute(insert(notices).from_select(["device_id", "listing", "head"], rows))
