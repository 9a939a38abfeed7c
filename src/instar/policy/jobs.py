"""What can happen to an execution and to a job: two tables, and what a step along them does. Pure; no clock.

An execution is one device's standing with one job. Everything that happens to it is an event of the attempt it belongs
to; a pair of status and event that is not in the table raises, so nothing ends twice and nothing ended comes back,
except by :class:`Retry` and :class:`Rejoin`, which are new attempts. Who may send which event, and what others hear of
it, is not decided here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from instar.errors import Conflict
from instar.model.job import Counters, ExecutionStatus, FailureKind, JobStatus, RetryRule, StatusDetails, check_minutes

__all__ = [
    "EXECUTION_TABLE",
    "JOB_TABLE",
    "NO_STEP_TIMEOUT",
    "Cancel",
    "Event",
    "Execution",
    "Fail",
    "ForceCancel",
    "InvalidTransition",
    "JobEvent",
    "Leave",
    "Progress",
    "Reject",
    "Rejoin",
    "Report",
    "Retry",
    "Start",
    "Succeed",
    "TimeOut",
    "advance",
    "advance_job",
    "count",
    "may_retry",
]

NO_STEP_TIMEOUT: Final = -1
"""Minutes of a step timeout that take the timer away."""


class InvalidTransition(Conflict):
    """What was asked cannot happen to what stands as it stands.

    Args:
        message: which, for a person.
        status: how the execution stands; None where it is about a job.

    """

    def __init__(self, message: str, *, status: ExecutionStatus | None = None) -> None:
        super().__init__(message, hint="Ask how it stands, and decide again.")
        self.status = status


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happens to one attempt of an execution; about another attempt it is refused."""

    attempt: int


@dataclass(frozen=True, slots=True)
class Report(Event):
    """What a device says: its details replace those before, None keeps them.

    ``step_minutes`` sets the step timer anew, ``NO_STEP_TIMEOUT`` takes it away, None leaves it.

    Raises:
        ValueError: the minutes are neither that nor 1 to 10,080.

    """

    details: StatusDetails | None = None
    step_minutes: int | None = None

    def __post_init__(self) -> None:
        if self.step_minutes is not None and self.step_minutes != NO_STEP_TIMEOUT:
            check_minutes(self.step_minutes)


class Start(Report):
    """The device begins."""

    __slots__ = ()


class Progress(Report):
    """The device goes on."""

    __slots__ = ()


class Succeed(Report):
    """The device has done it."""

    __slots__ = ()


class Fail(Report):
    """The device could not do it."""

    __slots__ = ()


class Reject(Report):
    """The device will not do it: an answer, which a retry would not change."""

    __slots__ = ()


class TimeOut(Event):
    """One of its timers ran out."""

    __slots__ = ()


class Cancel(Event):
    """Its job was cancelled: what has not begun does not begin."""

    __slots__ = ()


class ForceCancel(Event):
    """Its job was cancelled by force: what has begun is given up too."""

    __slots__ = ()


class Leave(Event):
    """The device is no longer meant."""

    __slots__ = ()


class Retry(Event):
    """It is tried again, as its job says."""

    __slots__ = ()


class Rejoin(Event):
    """The device is meant again."""

    __slots__ = ()


_QUEUED, _RUNNING = ExecutionStatus.QUEUED, ExecutionStatus.IN_PROGRESS

EXECUTION_TABLE: Final[Mapping[tuple[ExecutionStatus, type[Event]], ExecutionStatus]] = {
    (_QUEUED, Start): ExecutionStatus.IN_PROGRESS,
    (_QUEUED, Succeed): ExecutionStatus.SUCCEEDED,
    (_QUEUED, Fail): ExecutionStatus.FAILED,
    (_QUEUED, Reject): ExecutionStatus.REJECTED,
    (_QUEUED, Cancel): ExecutionStatus.CANCELED,
    (_QUEUED, ForceCancel): ExecutionStatus.CANCELED,
    (_QUEUED, Leave): ExecutionStatus.REMOVED,
    (_RUNNING, Progress): ExecutionStatus.IN_PROGRESS,
    (_RUNNING, Succeed): ExecutionStatus.SUCCEEDED,
    (_RUNNING, Fail): ExecutionStatus.FAILED,
    (_RUNNING, Reject): ExecutionStatus.REJECTED,
    (_RUNNING, TimeOut): ExecutionStatus.TIMED_OUT,
    (_RUNNING, ForceCancel): ExecutionStatus.CANCELED,
    (_RUNNING, Leave): ExecutionStatus.REMOVED,
    (ExecutionStatus.FAILED, Retry): ExecutionStatus.QUEUED,
    (ExecutionStatus.TIMED_OUT, Retry): ExecutionStatus.QUEUED,
    (ExecutionStatus.REMOVED, Rejoin): ExecutionStatus.QUEUED,
}


class JobEvent:
    """Something that happens to a job. Used as classes: they carry nothing."""

    class Approve:
        """A second operator agreed."""

    class Begin:
        """Its time has come."""

    class Pause:
        """No further device is given it; those that have it go on."""

    class Resume:
        """It goes on."""

    class Complete:
        """Everything that was given out has ended, and nothing more will be."""

    class Cancel:
        """An operator, an abort rule or the end of its schedule stopped it."""

    class Delete:
        """It is to be forgotten."""


JOB_TABLE: Final[Mapping[tuple[JobStatus, type], JobStatus]] = {
    (JobStatus.AWAITING_APPROVAL, JobEvent.Approve): JobStatus.SCHEDULED,
    (JobStatus.AWAITING_APPROVAL, JobEvent.Cancel): JobStatus.CANCELED,
    (JobStatus.SCHEDULED, JobEvent.Begin): JobStatus.IN_PROGRESS,
    (JobStatus.SCHEDULED, JobEvent.Cancel): JobStatus.CANCELED,
    (JobStatus.IN_PROGRESS, JobEvent.Pause): JobStatus.PAUSED,
    (JobStatus.IN_PROGRESS, JobEvent.Complete): JobStatus.COMPLETED,
    (JobStatus.IN_PROGRESS, JobEvent.Cancel): JobStatus.CANCELED,
    (JobStatus.PAUSED, JobEvent.Resume): JobStatus.IN_PROGRESS,
    (JobStatus.PAUSED, JobEvent.Complete): JobStatus.COMPLETED,
    (JobStatus.PAUSED, JobEvent.Cancel): JobStatus.CANCELED,
    **{
        (status, JobEvent.Delete): JobStatus.DELETION_IN_PROGRESS
        for status in JobStatus
        if status is not JobStatus.DELETION_IN_PROGRESS
    },
}


@dataclass(frozen=True, slots=True)
class Execution:
    """One device's standing with one job.

    Attributes:
        status: where it stands.
        queued_at: when this attempt was given to the device.
        updated_at: when something last happened to it.
        started_at: when the device began, None before that.
        attempt: counts from 1; the execution number of AWS.
        version: 1 when queued, one more at each event.
        details: what the device said last.
        deadline: when it times out unless it has ended, None for never.
        step_deadline: when it times out unless the device says something that moves it, None for never.
        failures: how often it was tried again because it had failed.
        timeouts: how often because it had timed out.

    """

    status: ExecutionStatus
    queued_at: datetime
    updated_at: datetime
    started_at: datetime | None = None
    attempt: int = 1
    version: int = 1
    details: StatusDetails = field(default_factory=StatusDetails)
    deadline: datetime | None = None
    step_deadline: datetime | None = None
    failures: int = 0
    timeouts: int = 0

    @classmethod
    def queued(cls, now: datetime) -> Execution:
        """Make the first attempt."""
        return cls(ExecutionStatus.QUEUED, queued_at=now, updated_at=now)

    @property
    def due(self) -> datetime | None:
        """When the first of its timers runs out. The step timer never outlives the other."""
        return min((time for time in (self.deadline, self.step_deadline) if time), default=None)


def advance(execution: Execution, event: Event, *, now: datetime, timeout: timedelta | None = None) -> Execution:
    """Give the execution as it stands after the event.

    Args:
        execution: how it stands.
        event: what happens.
        now: when.
        timeout: how long the job lets it be in progress; used when it begins.

    Raises:
        InvalidTransition: that cannot happen to it, or the event is about another attempt.

    """
    if event.attempt != execution.attempt:
        raise InvalidTransition(
            f"The execution is at attempt {execution.attempt}, not {event.attempt}.", status=execution.status
        )
    status = EXECUTION_TABLE.get((execution.status, type(event)))
    if status is None:
        raise InvalidTransition(
            f"An execution that is {execution.status} cannot {_in_words(event)}.", status=execution.status
        )
    if isinstance(event, Retry | Rejoin):
        return _next_attempt(execution, event, now)
    changed = replace(execution, status=status, version=execution.version + 1, updated_at=now)
    if status.ended:
        changed = replace(changed, deadline=None, step_deadline=None)
    elif isinstance(event, Start):
        changed = replace(changed, started_at=now, deadline=now + timeout if timeout else None)
    if isinstance(event, Report):
        changed = _reported(changed, event, now)
    return changed


def advance_job(status: JobStatus, event: type) -> JobStatus:
    """Give the job's status after the event, one of the classes in :class:`JobEvent`.

    Raises:
        InvalidTransition: that cannot happen to it.

    """
    try:
        return JOB_TABLE[status, event]
    except KeyError:
        raise InvalidTransition(f"A job that is {status} cannot {event.__name__.lower()}.") from None


def may_retry(rules: Iterable[RetryRule], execution: Execution) -> bool:
    """Whether the job lets this execution, which has just ended, be tried again."""
    if execution.status not in {ExecutionStatus.FAILED, ExecutionStatus.TIMED_OUT}:
        return False
    used = {
        FailureKind.FAILED: execution.failures,
        FailureKind.TIMED_OUT: execution.timeouts,
        FailureKind.ALL: execution.failures + execution.timeouts,
    }
    return any(
        used[rule.failure] < rule.retries and rule.failure.name in {execution.status.name, FailureKind.ALL.name}
        for rule in rules
    )


def count(counters: Counters, before: ExecutionStatus | None, after: ExecutionStatus | None) -> Counters:
    """Give the counters after one execution went from one status to another; None is not there."""
    changed = counters
    if before is not None:
        changed = _shifted(changed, before, -1)
    return changed if after is None else _shifted(changed, after, 1)


def _shifted(counters: Counters, status: ExecutionStatus, by: int) -> Counters:
    changes: dict[str, int] = {status.name.lower(): counters.of(status) + by}
    return replace(counters, **changes)


def _reported(execution: Execution, report: Report, now: datetime) -> Execution:
    changed = execution if report.details is None else replace(execution, details=report.details)
    if execution.status.ended or report.step_minutes is None:
        return changed
    if report.step_minutes == NO_STEP_TIMEOUT:
        return replace(changed, step_deadline=None)
    return replace(changed, step_deadline=now + timedelta(minutes=report.step_minutes))


def _next_attempt(execution: Execution, event: Retry | Rejoin, now: datetime) -> Execution:
    fresh = replace(Execution.queued(now), attempt=execution.attempt + 1)
    if isinstance(event, Rejoin):
        return fresh
    failed = execution.status is ExecutionStatus.FAILED
    return replace(fresh, failures=execution.failures + failed, timeouts=execution.timeouts + (not failed))


def _in_words(event: Event) -> str:
    words = "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in type(event).__name__)
    return words.strip()
