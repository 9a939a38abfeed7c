"""One transaction about some devices: their executions are read once, things happen to them, all is written at the end.

What devices must hear of it and what their jobs make of it (counters, abort, completion) follows from what stood there
before and after, and is written in the same transaction. Which device may ask what is not checked here.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import Connection

from instar.model.device import ThingName
from instar.model.job import ExecutionStatus, JobDocument, JobId, JobSettings, JobStatus
from instar.policy.campaign import is_complete, judge_abort
from instar.policy.jobs import Event, Execution, JobEvent, Retry, Start, advance, advance_job, may_retry
from instar.server.store.executions import Standing, keep_attempt, pending_of, standing_of, write_executions
from instar.server.store.jobs import Change, Job, change_status, shift_counters, wake
from instar.server.store.outbox import add_events, add_notices

__all__ = ["Desk", "Lasting", "in_order", "settle", "told_of_job"]

_JOB_EVENTS = {
    JobStatus.COMPLETED: "completed",
    JobStatus.CANCELED: "canceled",
    JobStatus.DELETION_IN_PROGRESS: "deletion_in_progress",
}


@dataclass(frozen=True, slots=True)
class Lasting:
    """What never changes about a job, so that it is read once."""

    document: JobDocument
    settings: JobSettings


@dataclass
class Desk:
    """Some devices, locked, in one transaction.

    Args:
        connection: the transaction.
        now: the time of everything that happens.
        devices: numbers and names of the devices; locked by the caller.
        lasting: what never changes about the job of a number.
        tell_executions: whether each end of an execution is an event for others.

    """

    connection: Connection
    now: datetime
    devices: Mapping[int, ThingName]
    lasting: Callable[[Connection, int], Lasting]
    tell_executions: bool = False
    _pending: dict[int, list[Standing]] = field(init=False)
    _before: dict[int, tuple[tuple[int, ...], int | None]] = field(init=False, default_factory=dict)
    _changed: dict[tuple[int, int], Standing] = field(init=False, default_factory=dict)
    _shifts: defaultdict[int, Counter[ExecutionStatus]] = field(init=False)
    _waiting: Counter[int] = field(init=False, default_factory=Counter)
    _events: list[tuple[str, str, str]] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self._shifts = defaultdict(Counter)
        self._pending = {number: [] for number in self.devices}
        for standing in pending_of(self.connection, self.devices):
            self._pending[standing.device].append(standing)
        for number, standings in self._pending.items():
            # What a sweep has not come to yet was there before, so that its going is heard of.
            ordered = in_order(standings)
            self._before[number] = _outline(ordered)

    def pending(self, device: int) -> list[Standing]:
        """Give what waits for a device, in order."""
        return in_order(each for each in self._pending[device] if each.offered)

    def everything_of(self, device: int) -> list[Standing]:
        """Give what is queued or in progress for a device, also what it may not see any more."""
        return list(self._pending[device])

    def find(self, device: int, job: JobId) -> Standing | None:
        """Give how a device stands with a job, pending or ended; None where it was never given it."""
        for standing in self._pending[device]:
            if standing.job == job:
                return standing
        for standing in self._changed.values():
            if (standing.device, standing.job) == (device, job):
                return standing
        return standing_of(self.connection, device, job)

    def happen(self, standing: Standing, event: Event) -> Execution:
        """Let an event happen, and what follows from it by the job's own rules; give how it stood after the event.

        Raises:
            InvalidTransition: it cannot.

        """
        timeout = self._timeout(standing) if isinstance(event, Start) else None
        after = advance(standing.execution, event, now=self.now, timeout=timeout)
        self._become(standing, after)
        if after.status.ended and self.tell_executions:
            self._events.append((standing.job, self.devices[standing.device], after.status.lower()))
        if (
            after.status in {ExecutionStatus.FAILED, ExecutionStatus.TIMED_OUT}
            and not standing.job_status.ended
            and may_retry(self.lasting(self.connection, standing.job_number).settings.retries, after)
        ):
            keep_attempt(self.connection, standing)
            self._become(standing, advance(after, Retry(after.attempt), now=self.now))
        return after

    def give(self, standing: Standing) -> None:
        """Take in an execution that was just made for one of the devices."""
        self._pending[standing.device].append(standing)
        self._shifts[standing.job_number][standing.execution.status] += 1

    def wait(self, job: int, by: int = 1) -> None:
        """Count one more device, or one fewer, that waits for a job."""
        self._waiting[job] += by

    def close(self) -> None:
        """Write everything. Nothing may happen after it."""
        write_executions(self.connection, [self._changed[key] for key in sorted(self._changed)])
        add_notices(self.connection, list(self._notices()))
        for number in sorted(self._shifts.keys() | self._waiting.keys()):
            shift, waiting = self._shifts[number], self._waiting[number]
            job = shift_counters(self.connection, number, shift, waiting=waiting)
            if job is not None:
                settle(self.connection, job, self.now, grew=shift[ExecutionStatus.QUEUED] + waiting > 0)
        add_events(self.connection, self.now, self._events)

    def _become(self, standing: Standing, after: Execution) -> None:
        shift = self._shifts[standing.job_number]
        shift[standing.execution.status] -= 1
        shift[after.status] += 1
        standing.execution = after
        self._changed[standing.job_number, standing.device] = standing
        listed = self._pending[standing.device]
        if after.status.ended:
            self._pending[standing.device] = [each for each in listed if each is not standing]
        elif not any(each is standing for each in listed):
            listed.append(standing)

    def _timeout(self, standing: Standing) -> timedelta | None:
        return self.lasting(self.connection, standing.job_number).settings.in_progress_timeout

    def _notices(self) -> Iterable[tuple[int, bool, bool]]:
        touched = {standing.device for standing in self._changed.values()}
        touched |= {number for number, each in self._pending.items() if len(each) != len(self._before[number][0])}
        for number in sorted(touched):
            jobs, head = _outline(self.pending(number))
            listed = sorted(jobs) != sorted(self._before[number][0])
            if listed or head != self._before[number][1]:
                yield number, listed, head != self._before[number][1]


def in_order(standings: Iterable[Standing]) -> list[Standing]:
    """Put what waits for a device in order: first what it has begun, then by the time of queueing."""
    return sorted(
        standings,
        key=lambda each: (
            each.execution.status is ExecutionStatus.QUEUED,
            each.execution.queued_at,
            each.job_number,
        ),
    )


def settle(connection: Connection, job: Job, now: datetime, *, grew: bool = False) -> None:
    """Let a job, whose counters have just changed and whose row is locked, stop or complete when they say so.

    Args:
        connection: the transaction.
        job: as it stands now.
        now: the time.
        grew: whether something was queued in it just now, or waits for it.

    """
    campaign = job.campaign
    # What waits is given out, and what came while the job was being cancelled, by a retry say, is swept up too.
    if grew and (campaign.status.ended or campaign.waiting):
        wake(connection, [job.number], now)
    if campaign.status.ended:
        return
    rule = judge_abort(campaign.settings.abort, campaign.counters)
    if rule is not None:
        status = advance_job(campaign.status, JobEvent.Cancel)
        reason = (
            f"stopped by itself: of {campaign.counters.executed} that ended, {rule.threshold_percent:g} % or more "
            f"were {rule.failure.lower().replace('_', ' ') if rule.failure != 'ALL' else 'failures of any kind'}"
        )
    elif is_complete(campaign):
        status, reason = advance_job(campaign.status, JobEvent.Complete), None
    else:
        return
    change_status(connection, job, Change(status, now, reason))
    told_of_job(connection, job, status, now)


def told_of_job(connection: Connection, job: Job, status: JobStatus, now: datetime) -> None:
    """Let others be told what became of a job, where that is one of the events."""
    if status in _JOB_EVENTS:
        add_events(connection, now, [(job.name, "", _JOB_EVENTS[status])])


def _outline(ordered: list[Standing]) -> tuple[tuple[int, ...], int | None]:
    jobs = tuple(each.job_number for each in ordered)
    return jobs, jobs[0] if jobs else None
