"""Executions by the batch of devices that ask: read, decided elsewhere, written; and the timers that are due."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, bindparam, insert, select, update

from instar.model.job import ExecutionStatus, JobId, JobStatus
from instar.policy.jobs import Execution
from instar.server.store.devices import insert_new
from instar.server.store.schema import PLANNED, attempts, executions, is_pending, jobs
from instar.server.store.values import details_text, execution_of, execution_values, milliseconds

__all__ = [
    "Standing",
    "add_execution",
    "due_devices",
    "history_of",
    "keep_attempt",
    "list_executions",
    "pending_of",
    "standing_of",
    "write_executions",
]


@dataclass(slots=True)
class Standing:
    """One device's standing with one job, as it was read, and as it became."""

    job_number: int
    job: JobId
    job_status: JobStatus
    force: bool
    device: int
    execution: Execution

    @property
    def offered(self) -> bool:
        """Whether the device may still see it: a sweep that is under way has not come to everybody yet."""
        if self.job_status not in {JobStatus.CANCELED, JobStatus.DELETION_IN_PROGRESS}:
            return not self.execution.status.ended
        forced = self.force or self.job_status is JobStatus.DELETION_IN_PROGRESS
        return self.execution.status is ExecutionStatus.IN_PROGRESS and not forced


_COLUMNS = (executions, jobs.c.name.label("job_name"), jobs.c.status.label("job_status"), jobs.c.force)
_CHANGED = (
    "status", "attempt", "version", "queued_at", "updated_at", "started_at", "details", "deadline", "step_deadline",
    "due_at", "failures", "timeouts",
)  # fmt: skip


def pending_of(connection: Connection, numbers: Iterable[int]) -> list[Standing]:
    """Give what is queued or in progress for these devices."""
    wanted = list(numbers)
    if not wanted:
        return []
    query = (
        select(*_COLUMNS)
        .join(jobs, jobs.c.id == executions.c.job_id)
        .where(executions.c.device_id.in_(wanted), is_pending())
    )
    return [_standing(row) for row in connection.execute(query)]


def standing_of(connection: Connection, number: int, job: JobId) -> Standing | None:
    """Give how a device stands with a job, also when that has ended; None where it was never given it."""
    query = (
        select(*_COLUMNS)
        .join(jobs, jobs.c.id == executions.c.job_id)
        .where(jobs.c.name == job, executions.c.device_id == number, executions.c.status != PLANNED)
    )
    row = connection.execute(query).first()
    return None if row is None else _standing(row)


def add_execution(connection: Connection, job: int, device: int, execution: Execution | None, now: datetime) -> bool:
    """Give a device a job, or let it wait for it where ``execution`` is None; False where it has it already."""
    at = milliseconds(now)
    values: dict[str, Any] = (
        {"status": PLANNED, "queued_at": at, "updated_at": at} if execution is None else execution_values(execution)
    )
    statement = insert_new(connection, executions).values(job_id=job, device_id=device, **values)
    return connection.execute(statement).rowcount == 1


def write_executions(connection: Connection, standings: Sequence[Standing]) -> None:
    """Write how these stand now."""
    if standings:
        statement = (
            update(executions)
            .where(executions.c.job_id == bindparam("of_job"), executions.c.device_id == bindparam("of_device"))
            .values({name: bindparam(name) for name in _CHANGED})
        )
        rows = [
            {"of_job": each.job_number, "of_device": each.device, **execution_values(each.execution)}
            for each in standings
        ]
        connection.execute(statement, rows)


def keep_attempt(connection: Connection, standing: Standing) -> None:
    """Keep an attempt that another one follows."""
    execution = standing.execution
    connection.execute(
        insert(attempts).values(
            job_id=standing.job_number,
            device_id=standing.device,
            attempt=execution.attempt,
            status=execution.status.value,
            queued_at=milliseconds(execution.queued_at),
            started_at=None if execution.started_at is None else milliseconds(execution.started_at),
            ended_at=milliseconds(execution.updated_at),
            details=details_text(execution.details),
        )
    )


def due_devices(connection: Connection, now: datetime, limit: int) -> list[int]:
    """Give devices with a timer that has run out, the longest overdue first."""
    query = (
        select(executions.c.device_id)
        .where(executions.c.due_at.is_not(None), executions.c.due_at <= milliseconds(now))
        .order_by(executions.c.due_at)
        .limit(limit)
    )
    return list(connection.execute(query).scalars())


def list_executions(
    connection: Connection, job: int, *, status: ExecutionStatus | None = None, after: int = 0, limit: int = 100
) -> list[Standing]:
    """Give executions of a job in order of the devices' numbers, behind ``after``."""
    query = (
        select(*_COLUMNS)
        .join(jobs, jobs.c.id == executions.c.job_id)
        .where(executions.c.job_id == job, executions.c.device_id > after, executions.c.status != PLANNED)
        .order_by(executions.c.device_id)
        .limit(limit)
    )
    if status is not None:
        query = query.where(executions.c.status == status.value)
    return [_standing(row) for row in connection.execute(query)]


def history_of(connection: Connection, device: int, *, limit: int = 100) -> list[Standing]:
    """Give what a device was ever given, the newest first; of several attempts the last."""
    query = (
        select(*_COLUMNS)
        .join(jobs, jobs.c.id == executions.c.job_id)
        .where(executions.c.device_id == device, executions.c.status != PLANNED)
        .order_by(executions.c.queued_at.desc(), executions.c.job_id.desc())
        .limit(limit)
    )
    return [_standing(row) for row in connection.execute(query)]


def _standing(row: Row[Any]) -> Standing:
    return Standing(
        job_number=row.job_id,
        job=JobId(row.job_name),
        job_status=JobStatus(row.job_status),
        force=row.force,
        device=row.device_id,
        execution=execution_of(row),
    )
