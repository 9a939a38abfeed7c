"""Jobs and how they stand: statements, each in the caller's transaction. A job's row is the last to be locked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update

from instar.model.device import GroupName
from instar.model.job import ExecutionStatus, JobDocument, JobId, JobSettings, JobStatus
from instar.policy.campaign import Campaign, Pace
from instar.server.store.schema import groups, job_devices, job_groups, job_locks, jobs
from instar.server.store.values import counters_of, milliseconds, moment, settings_from_text, settings_text

__all__ = [
    "Change",
    "Job",
    "add_job",
    "change_status",
    "claim_job",
    "erase_job",
    "find_job",
    "groups_meant",
    "job_numbered",
    "list_jobs",
    "rest_until",
    "save",
    "shift_counters",
    "wake",
]


@dataclass(frozen=True, slots=True)
class Job:
    """A job as the database holds it.

    Attributes:
        number: its number in the database.
        name: what it is called.
        document: what devices are told.
        campaign: how it stands.
        created_by: who made it; that person does not approve it.
        approved_by: who approved it.
        created: when it was made.
        updated: when its status last changed.
        ended: when it ended.
        reason: why it stands as it does, for people.
        woken: counts whenever a worker is to look at it again.
        plan: how far finding its devices came: the place among its groups, the last device.
        swept: the last device that a sweep came to.

    """

    number: int
    name: JobId
    document: JobDocument
    campaign: Campaign
    created_by: str
    approved_by: str | None
    created: datetime
    updated: datetime
    ended: datetime | None
    reason: str | None
    woken: int
    plan: tuple[int, int]
    swept: int


@dataclass(frozen=True, slots=True)
class Change:
    """A job's status becoming another."""

    status: JobStatus
    now: datetime
    reason: str | None = None
    force: bool = False
    approved_by: str | None = None


def add_job(  # noqa: PLR0913  # a row of many columns, all by name
    connection: Connection,
    *,
    name: JobId,
    document: JobDocument,
    settings: JobSettings,
    status: JobStatus,
    created_by: str,
    now: datetime,
    device_numbers: Sequence[int],
    group_numbers: Sequence[int],
) -> int:
    """Make a job; give its number.

    Raises:
        IntegrityError: there is one of that name.

    """
    at = milliseconds(now)
    number: int = connection.execute(
        insert(jobs)
        .values(
            name=name,
            status=status.value,
            document=document.text,
            settings=settings_text(settings),
            selection=settings.selection.value,
            created_by=created_by,
            created_at=at,
            updated_at=at,
            due_at=at,
        )
        .returning(jobs.c.id)
    ).scalar_one()
    connection.execute(insert(job_locks).values(job_id=number))
    if device_numbers:
        connection.execute(insert(job_devices), [{"job_id": number, "device_id": each} for each in device_numbers])
    if group_numbers:
        connection.execute(insert(job_groups), [{"job_id": number, "group_id": each} for each in group_numbers])
    return number


def find_job(connection: Connection, name: JobId) -> Job | None:
    """Give a job by its name."""
    row = connection.execute(select(jobs).where(jobs.c.name == name)).first()
    return None if row is None else _job(row)


def job_numbered(connection: Connection, number: int) -> Job | None:
    """Give a job by its number."""
    row = connection.execute(select(jobs).where(jobs.c.id == number)).first()
    return None if row is None else _job(row)


def list_jobs(
    connection: Connection, *, status: JobStatus | None = None, before: int | None = None, limit: int = 100
) -> list[Job]:
    """Give jobs, the newest first, with ``before`` those older than the job of that number."""
    query = select(jobs).order_by(jobs.c.id.desc()).limit(limit)
    if status is not None:
        query = query.where(jobs.c.status == status.value)
    if before is not None:
        query = query.where(jobs.c.id < before)
    return [_job(row) for row in connection.execute(query)]


def groups_meant(connection: Connection, number: int) -> list[int]:
    """Give the groups that a job is for, in order."""
    query = select(job_groups.c.group_id).where(job_groups.c.job_id == number).order_by(job_groups.c.group_id)
    return list(connection.execute(query).scalars())


def group_names_meant(connection: Connection, number: int) -> list[GroupName]:
    """Give the names of the groups that a job is for."""
    query = select(groups.c.name).join(job_groups, job_groups.c.group_id == groups.c.id)
    names = connection.execute(query.where(job_groups.c.job_id == number).order_by(groups.c.id)).scalars()
    return [GroupName(name) for name in names]


def claim_job(connection: Connection, now: datetime) -> Job | None:
    """Give a job whose next step is due, and keep other workers from it until the transaction ends."""
    query = (
        select(jobs.c.id)
        .join(job_locks, job_locks.c.job_id == jobs.c.id)
        .where(jobs.c.due_at <= milliseconds(now))
        .order_by(jobs.c.due_at)
        .limit(1)
        .with_for_update(of=job_locks, skip_locked=True)
    )
    number = connection.execute(query).scalar()
    # Read only now: what stood in the row before the lock was had may be old.
    return None if number is None else job_numbered(connection, number)


def change_status(connection: Connection, job: Job, change: Change) -> bool:
    """Let a job go from the status that was read to another; False where somebody else was faster."""
    values: dict[str, Any] = {
        "status": change.status.value,
        "updated_at": milliseconds(change.now),
        "due_at": milliseconds(change.now),
        "woken": jobs.c.woken + 1,
        "reason": change.reason,
    }
    if change.status.ended:
        values |= {"ended_at": milliseconds(change.now), "force": change.force, "sweep_device": 0}
    if change.approved_by:
        values["approved_by"] = change.approved_by
    same = (jobs.c.id == job.number, jobs.c.status == job.campaign.status.value)
    return connection.execute(update(jobs).where(*same).values(**values)).rowcount == 1


def save(connection: Connection, number: int, **columns: Any) -> None:
    """Set columns that only the holder of the job's lock changes."""
    connection.execute(update(jobs).where(jobs.c.id == number).values(**columns))


def rest_until(connection: Connection, job: Job, until: datetime | None) -> None:
    """Let nobody look at the job before then, unless somebody woke it since it was read."""
    at = None if until is None else milliseconds(until)
    connection.execute(update(jobs).where(jobs.c.id == job.number, jobs.c.woken == job.woken).values(due_at=at))


def wake(connection: Connection, numbers: Sequence[int], now: datetime) -> None:
    """Let a worker look at these jobs now."""
    if numbers:
        connection.execute(
            update(jobs).where(jobs.c.id.in_(numbers)).values(due_at=milliseconds(now), woken=jobs.c.woken + 1)
        )


def shift_counters(
    connection: Connection, number: int, by: Mapping[ExecutionStatus, int], *, waiting: int = 0
) -> Job | None:
    """Count executions from one status to another; give the job as it stands then, its row locked."""
    values: dict[str, Any] = {
        f"n_{status.name.lower()}": jobs.c[f"n_{status.name.lower()}"] + shift for status, shift in by.items() if shift
    }
    if waiting:
        values["n_waiting"] = jobs.c.n_waiting + waiting
    if not values:
        return job_numbered(connection, number)
    row = connection.execute(update(jobs).where(jobs.c.id == number).values(**values).returning(jobs)).first()
    return None if row is None else _job(row)


def erase_job(connection: Connection, number: int) -> None:
    """Forget a job that has no executions left."""
    for table in (job_devices, job_groups, job_locks):
        connection.execute(delete(table).where(table.c.job_id == number))
    connection.execute(delete(jobs).where(jobs.c.id == number))


def _job(row: Row[Any]) -> Job:
    campaign = Campaign(
        status=JobStatus(row.status),
        settings=settings_from_text(row.settings),
        counters=counters_of(row),
        planned=row.planned,
        waiting=row.n_waiting,
        pace=Pace(None if row.pace_minute is None else moment(row.pace_minute), row.pace_given),
        closed=row.closed,
        force=row.force,
    )
    return Job(
        number=row.id,
        name=JobId(row.name),
        document=JobDocument(row.document),
        campaign=campaign,
        created_by=row.created_by,
        approved_by=row.approved_by,
        created=moment(row.created_at),
        updated=moment(row.updated_at),
        ended=None if row.ended_at is None else moment(row.ended_at),
        reason=row.reason,
        woken=row.woken,
        plan=(row.plan_group, row.plan_device),
        swept=row.sweep_device,
    )
