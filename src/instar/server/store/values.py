"""Values of the model as columns, and back. What stands in the database was checked before it was written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import Row

from instar.model.job import (
    AbortRule,
    ConstantRate,
    Counters,
    Counting,
    EndBehavior,
    ExecutionStatus,
    ExponentialRate,
    FailureKind,
    JobSettings,
    RetryRule,
    Rollout,
    Schedule,
    Selection,
    StatusDetails,
    Window,
)
from instar.policy.jobs import Execution

__all__ = [
    "counters_of",
    "details_text",
    "execution_of",
    "execution_values",
    "milliseconds",
    "moment",
    "settings_from_text",
    "settings_text",
]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_NO_DETAILS: Final = StatusDetails()


def milliseconds(time: datetime) -> int:
    """Give a time as the database holds it. What is finer than a millisecond is lost."""
    return (time - _EPOCH) // _MILLISECOND


def moment(value: int) -> datetime:
    """Give the time that the database holds."""
    return _EPOCH + value * _MILLISECOND


def _maybe_milliseconds(time: datetime | None) -> int | None:
    return None if time is None else milliseconds(time)


def _maybe_moment(value: int | None) -> datetime | None:
    return None if value is None else moment(value)


def execution_of(row: Row[Any]) -> Execution:
    """Give the execution in a row that has all columns of the table."""
    return Execution(
        status=ExecutionStatus(row.status),
        queued_at=moment(row.queued_at),
        updated_at=moment(row.updated_at),
        started_at=_maybe_moment(row.started_at),
        attempt=row.attempt,
        version=row.version,
        details=StatusDetails(json.loads(row.details)) if row.details else _NO_DETAILS,
        deadline=_maybe_moment(row.deadline),
        step_deadline=_maybe_moment(row.step_deadline),
        failures=row.failures,
        timeouts=row.timeouts,
    )


def execution_values(execution: Execution) -> dict[str, Any]:
    """Give the columns of an execution, without those that say whose it is."""
    return {
        "status": execution.status.value,
        "queued_at": milliseconds(execution.queued_at),
        "updated_at": milliseconds(execution.updated_at),
        "started_at": _maybe_milliseconds(execution.started_at),
        "attempt": execution.attempt,
        "version": execution.version,
        "details": details_text(execution.details),
        "deadline": _maybe_milliseconds(execution.deadline),
        "step_deadline": _maybe_milliseconds(execution.step_deadline),
        "due_at": _maybe_milliseconds(execution.due),
        "failures": execution.failures,
        "timeouts": execution.timeouts,
    }


def details_text(details: StatusDetails) -> str | None:
    """Give the column of status details."""
    return json.dumps(dict(details.pairs), ensure_ascii=False) if details.pairs else None


def counters_of(row: Row[Any]) -> Counters:
    """Give the counters in a row of a job."""
    return Counters(**{status.name.lower(): row._mapping[f"n_{status.name.lower()}"] for status in ExecutionStatus})  # noqa: SLF001  # a row's public mapping is called that


def settings_text(settings: JobSettings) -> str:
    """Write a job's settings as JSON text."""
    schedule = settings.schedule
    document = {
        "selection": settings.selection,
        "description": settings.description,
        "rollout": _rollout_value(settings.rollout),
        "abort": [[rule.failure, rule.threshold_percent, rule.minimum] for rule in settings.abort],
        "retries": [[rule.failure, rule.retries] for rule in settings.retries],
        "in_progress_minutes": settings.in_progress_minutes,
        "start": _maybe_milliseconds(schedule.start),
        "end": _maybe_milliseconds(schedule.end),
        "at_end": schedule.at_end,
        "windows": [[window.cron, window.minutes] for window in schedule.windows],
        "needs_approval": settings.needs_approval,
    }
    return json.dumps(document, ensure_ascii=False)


def settings_from_text(text: str) -> JobSettings:
    """Read a job's settings from JSON text."""
    document: Mapping[str, Any] = json.loads(text)
    return JobSettings(
        selection=Selection(document["selection"]),
        description=document["description"],
        rollout=_rollout_from(document["rollout"]),
        abort=tuple(AbortRule(FailureKind(kind), *rest) for kind, *rest in document["abort"]),
        retries=tuple(RetryRule(FailureKind(kind), retries) for kind, retries in document["retries"]),
        in_progress_minutes=document["in_progress_minutes"],
        schedule=Schedule(
            start=_maybe_moment(document["start"]),
            end=_maybe_moment(document["end"]),
            at_end=EndBehavior(document["at_end"]),
            windows=tuple(Window(cron, minutes) for cron, minutes in document["windows"]),
        ),
        needs_approval=document["needs_approval"],
    )


def _rollout_value(rollout: Rollout) -> list[Any] | None:
    if rollout is None:
        return None
    if isinstance(rollout, ConstantRate):
        return [rollout.per_minute]
    return [rollout.base_per_minute, rollout.factor, rollout.every, rollout.counting, rollout.maximum_per_minute]


def _rollout_from(value: list[Any] | None) -> Rollout:
    if value is None:
        return None
    if len(value) == 1:
        return ConstantRate(value[0])
    base, factor, every, counting, maximum = value
    return ExponentialRate(base, factor, every, Counting(counting), maximum)
