"""Devices coming into groups and leaving them, and what that means for continuous jobs. Never a look at all devices."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, false, select

from instar.model.job import ExecutionStatus, JobId, JobStatus, Selection
from instar.policy.campaign import is_direct
from instar.policy.jobs import Execution, Leave, Rejoin
from instar.server.fleet.desk import Desk
from instar.server.store.executions import Standing, add_execution
from instar.server.store.schema import executions, group_members, is_planned, job_devices, job_groups, jobs

__all__ = ["joined", "left", "left_everything"]


def joined(desk: Desk, device: int, groups: Collection[int], now: datetime) -> None:
    """Give a device, which has just come into these groups, the continuous jobs for them."""
    for row in _continuous(desk.connection, groups):
        if row.status == JobStatus.SCHEDULED:
            # It finds the device itself when it begins.
            continue
        standing = desk.find(device, JobId(row.name))
        if standing is not None:
            if standing.execution.status is ExecutionStatus.REMOVED:
                desk.happen(standing, Rejoin(standing.execution.attempt))
            continue
        settings = desk.lasting(desk.connection, row.id).settings
        if is_direct(settings) and row.status == JobStatus.IN_PROGRESS:
            first = Execution.queued(now)
            if add_execution(desk.connection, row.id, device, first, now):
                desk.give(Standing(row.id, JobId(row.name), JobStatus(row.status), row.force, device, first))
        elif add_execution(desk.connection, row.id, device, None, now):
            desk.wait(row.id)


def left(desk: Desk, device: int, groups: Collection[int]) -> None:
    """Take from a device, which has just left these groups, the continuous jobs for them that nothing else gives it."""
    for row in _continuous(desk.connection, groups):
        if not _still_meant(desk.connection, row.id, device):
            _take_back(desk, device, row.id)


def left_everything(desk: Desk, device: int) -> None:
    """Take from a device, which is retired, all that waits for it."""
    planned = select(executions.c.job_id).where(executions.c.device_id == device, is_planned())
    for job in list(desk.connection.execute(planned).scalars()):
        _take_back(desk, device, job)
    for standing in desk.everything_of(device):
        desk.happen(standing, Leave(standing.execution.attempt))


def _take_back(desk: Desk, device: int, job: int) -> None:
    for standing in desk.everything_of(device):
        if standing.job_number == job:
            desk.happen(standing, Leave(standing.execution.attempt))
            return
    waits = delete(executions).where(executions.c.job_id == job, executions.c.device_id == device, is_planned())
    if desk.connection.execute(waits).rowcount:
        desk.wait(job, -1)


def _continuous(connection: Connection, groups: Collection[int]) -> list[Any]:
    live = [JobStatus.SCHEDULED.value, JobStatus.IN_PROGRESS.value, JobStatus.PAUSED.value]
    query = (
        select(jobs.c.id, jobs.c.name, jobs.c.status, jobs.c.force, jobs.c.closed)
        .where(
            jobs.c.id.in_(select(job_groups.c.job_id).where(job_groups.c.group_id.in_(list(groups)))),
            jobs.c.status.in_(live),
            jobs.c.closed == false(),
            jobs.c.selection == Selection.CONTINUOUS.value,
        )
        .order_by(jobs.c.id)
    )
    return list(connection.execute(query)) if groups else []


def _still_meant(connection: Connection, job: int, device: int) -> bool:
    named = select(job_devices.c.device_id).where(job_devices.c.job_id == job, job_devices.c.device_id == device)
    member = (
        select(group_members.c.device_id)
        .join(job_groups, job_groups.c.group_id == group_members.c.group_id)
        .where(job_groups.c.job_id == job, group_members.c.device_id == device)
    )
    return connection.execute(named.union_all(member).limit(1)).first() is not None
