"""A fleet's jobs as values: what a job says, how it is rolled out, where it and its executions stand.

The limits are those of AWS IoT Jobs, so that whatever is made here can be said in that protocol too. Nothing here
decides what happens next: that is :mod:`instar.policy.jobs`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final, Self

from cronsim import CronSim, CronSimError

__all__ = [
    "AbortRule",
    "ConstantRate",
    "Counters",
    "Counting",
    "EndBehavior",
    "ExecutionStatus",
    "ExponentialRate",
    "FailureKind",
    "JobDocument",
    "JobId",
    "JobSettings",
    "JobStatus",
    "RetryRule",
    "Rollout",
    "Schedule",
    "Selection",
    "StatusDetails",
    "Window",
    "check_minutes",
]

_JOB_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_DETAIL_KEY = re.compile(r"[a-zA-Z0-9:_-]{1,128}")
# And halves of characters, which JSON can spell and UTF-8 cannot.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
# Characters; devices keep a document in memory whole.
_MAX_DOCUMENT: Final = 32_768
# Levels of objects and lists in a document: more is nobody's job, and some parsers on devices recurse.
_MAX_DEPTH: Final = 32
_MAX_DETAILS: Final = 10
_MAX_DETAIL: Final = 1024
_MAX_DESCRIPTION: Final = 2028
# Seven days, the longest that a device may take for one job.
_MAX_MINUTES: Final = 10_080
# Ten minutes less than a day: the next opening of a daily window is never inside the last.
_MAX_WINDOW: Final = 1_430
_MAX_RATE: Final = 1_000
_FACTORS: Final = (1.1, 5.0)
_MAX_RETRIES: Final = 10
_MAX_RETRY_RULES: Final = 2
_MAX_PERCENT: Final = 100.0


class JobId(str):
    """What a job is called: 1 to 64 of ``a-z A-Z 0-9 _ -``.

    Raises:
        ValueError: it is not.

    """

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        """Check and keep it."""
        if not _JOB_ID.fullmatch(text):
            msg = f"{text[:80]!r} cannot name a job: use 1 to 64 letters, digits, '_' or '-'"
            raise ValueError(msg)
        return super().__new__(cls, text)


class ExecutionStatus(StrEnum):
    """Where one device stands with one job."""

    QUEUED = "QUEUED"
    IN_PROGRESS = "IN_PROGRESS"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    REJECTED = "REJECTED"
    TIMED_OUT = "TIMED_OUT"
    CANCELED = "CANCELED"
    REMOVED = "REMOVED"

    @property
    def ended(self) -> bool:
        """Whether the device has nothing more to do with it."""
        return self not in {ExecutionStatus.QUEUED, ExecutionStatus.IN_PROGRESS}


class JobStatus(StrEnum):
    """Where a job stands. The first and the fourth are ours; to a device they look like SCHEDULED and IN_PROGRESS."""

    AWAITING_APPROVAL = "AWAITING_APPROVAL"
    SCHEDULED = "SCHEDULED"
    IN_PROGRESS = "IN_PROGRESS"
    PAUSED = "PAUSED"
    COMPLETED = "COMPLETED"
    CANCELED = "CANCELED"
    DELETION_IN_PROGRESS = "DELETION_IN_PROGRESS"

    @property
    def ended(self) -> bool:
        """Whether the job gives out nothing more, ever."""
        return self in {JobStatus.COMPLETED, JobStatus.CANCELED, JobStatus.DELETION_IN_PROGRESS}


class Selection(StrEnum):
    """Who is meant: those in the groups when the job begins, or also those who come later."""

    SNAPSHOT = "SNAPSHOT"
    CONTINUOUS = "CONTINUOUS"


class Counting(StrEnum):
    """What makes an exponential rollout faster."""

    NOTIFIED = "NOTIFIED"
    SUCCEEDED = "SUCCEEDED"


class FailureKind(StrEnum):
    """Which ends of an execution a rule is about."""

    FAILED = "FAILED"
    REJECTED = "REJECTED"
    TIMED_OUT = "TIMED_OUT"
    ALL = "ALL"


class EndBehavior(StrEnum):
    """What the end of a schedule does to a job that is not done."""

    STOP_ROLLOUT = "STOP_ROLLOUT"
    CANCEL = "CANCEL"
    FORCE_CANCEL = "FORCE_CANCEL"


@dataclass(frozen=True, slots=True)
class JobDocument:
    """What the device is told to do: the text of one JSON object, kept as it was written.

    Raises:
        ValueError: it is longer than 32,768 characters, nested deeper than 32 levels, or no JSON object.

    """

    text: str

    def __post_init__(self) -> None:
        if len(self.text) > _MAX_DOCUMENT:
            msg = f"a job document has at most {_MAX_DOCUMENT:,} characters, not {len(self.text):,}"
            raise ValueError(msg)
        try:
            self.text.encode()
            value = json.loads(self.text, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            msg = f"the job document is not JSON: {error}"
            raise ValueError(msg) from error
        if not isinstance(value, dict):
            msg = "a job document is a JSON object"
            raise ValueError(msg)  # noqa: TRY004  # what a person typed is a bad value, whatever its type
        if _is_deeper(value, _MAX_DEPTH):
            msg = f"a job document has at most {_MAX_DEPTH} levels"
            raise ValueError(msg)

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> JobDocument:
        """Write an object as a document."""
        return cls(json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False))

    @property
    def value(self) -> dict[str, Any]:
        """The object, parsed anew: nobody else holds it."""
        parsed: dict[str, Any] = json.loads(self.text)
        return parsed


@dataclass(frozen=True, slots=True)
class StatusDetails:
    """What a device adds to its status, as names and values of text.

    Raises:
        ValueError: more than 10, a name that is not 1 to 128 of ``a-z A-Z 0-9 : _ -``, a value that is not 1 to 1,024
            characters without control characters.

    """

    pairs: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.pairs) > _MAX_DETAILS:
            msg = f"status details are at most {_MAX_DETAILS} names, not {len(self.pairs)}"
            raise ValueError(msg)
        for name, value in self.pairs.items():
            if not _DETAIL_KEY.fullmatch(name):
                msg = f"{name[:80]!r} cannot name a status detail: use 1 to 128 letters, digits, ':', '_' or '-'"
                raise ValueError(msg)
            if not 1 <= len(value) <= _MAX_DETAIL or _CONTROL.search(value):
                msg = f"the status detail {name!r} is not 1 to {_MAX_DETAIL:,} characters without control characters"
                raise ValueError(msg)


@dataclass(frozen=True, slots=True)
class ConstantRate:
    """So many devices a minute, 1 to 1,000.

    Raises:
        ValueError: it is outside that.

    """

    per_minute: int

    def __post_init__(self) -> None:
        _check_rate(self.per_minute)


@dataclass(frozen=True, slots=True)
class ExponentialRate:
    """A rollout that begins slowly, and is ``factor`` times as fast after each ``every`` devices.

    Raises:
        ValueError: a rate outside 1 to 1,000 a minute, a factor outside 1.1 to 5, no devices in a step.

    """

    base_per_minute: int
    factor: float
    every: int
    counting: Counting
    maximum_per_minute: int = _MAX_RATE

    def __post_init__(self) -> None:
        _check_rate(self.base_per_minute)
        _check_rate(self.maximum_per_minute)
        if not _FACTORS[0] <= self.factor <= _FACTORS[1]:
            msg = f"a rollout grows by a factor of {_FACTORS[0]} to {_FACTORS[1]}, not {self.factor}"
            raise ValueError(msg)
        if self.every < 1:
            msg = f"a rollout grows after at least one device, not {self.every}"
            raise ValueError(msg)


Rollout = ConstantRate | ExponentialRate | None
"""How fast a job reaches devices; None is as fast as the server can."""


@dataclass(frozen=True, slots=True)
class AbortRule:
    """Cancel the job when, of the executions that devices ended, too many ended badly.

    Attributes:
        failure: which ends are bad.
        threshold_percent: above 0, at most 100; reached is enough.
        minimum: of so many executions that have ended; before that nothing is judged.

    Raises:
        ValueError: a figure is outside that.

    """

    failure: FailureKind
    threshold_percent: float
    minimum: int

    def __post_init__(self) -> None:
        if not 0 < self.threshold_percent <= _MAX_PERCENT:
            msg = f"an abort threshold is more than 0 and at most 100 percent, not {self.threshold_percent}"
            raise ValueError(msg)
        if self.minimum < 1:
            msg = f"an abort rule judges at least one execution, not {self.minimum}"
            raise ValueError(msg)


@dataclass(frozen=True, slots=True)
class RetryRule:
    """How often an execution is tried again after it failed or timed out. A rejection is an answer and stays.

    Raises:
        ValueError: it is about rejections, or retries outside 1 to 10.

    """

    failure: FailureKind
    retries: int

    def __post_init__(self) -> None:
        if self.failure is FailureKind.REJECTED:
            msg = "a rejected execution is never tried again"
            raise ValueError(msg)
        if not 1 <= self.retries <= _MAX_RETRIES:
            msg = f"an execution is tried again 1 to {_MAX_RETRIES} times, not {self.retries}"
            raise ValueError(msg)


@dataclass(frozen=True, slots=True)
class Window:
    """When devices may be given the job: from each time of a cron expression (UTC) for so many minutes.

    Raises:
        ValueError: no cron expression of five fields, minutes outside 1 to 1,430.

    """

    cron: str
    minutes: int

    def __post_init__(self) -> None:
        try:
            if len(self.cron.split()) != 5:  # noqa: PLR2004  # six would have seconds, which no window needs
                msg = "it needs five fields"
                raise ValueError(msg)
            # Some date that exists; only whether it parses is asked.
            CronSim(self.cron, datetime.min)  # noqa: DTZ901  # nothing is compared with it
        except (CronSimError, ValueError) as error:
            msg = f"{self.cron[:80]!r} is not a cron expression: minute, hour, day, month, day of the week ({error})"
            raise ValueError(msg) from error
        if not 1 <= self.minutes <= _MAX_WINDOW:
            msg = f"a maintenance window has 1 to {_MAX_WINDOW:,} minutes, not {self.minutes}"
            raise ValueError(msg)


@dataclass(frozen=True, slots=True)
class Schedule:
    """When a job begins and ends; without times it begins at once and has no end.

    Raises:
        ValueError: a time without a zone, or an end that is not after the start.

    """

    start: datetime | None = None
    end: datetime | None = None
    at_end: EndBehavior = EndBehavior.STOP_ROLLOUT
    windows: tuple[Window, ...] = ()

    def __post_init__(self) -> None:
        if any(time is not None and time.tzinfo is None for time in (self.start, self.end)):
            msg = "the start and end of a schedule need a time zone"
            raise ValueError(msg)
        if self.start and self.end and self.end <= self.start:
            msg = "a schedule ends after it has started"
            raise ValueError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSettings:
    """Everything about how a job is given out that does not change while it runs.

    Raises:
        ValueError: a description of more than 2,028 characters, a timeout outside 1 to 10,080 minutes, more than two
            retry rules or ten retries in all.

    """

    selection: Selection = Selection.SNAPSHOT
    description: str = ""
    rollout: Rollout = None
    abort: tuple[AbortRule, ...] = ()
    retries: tuple[RetryRule, ...] = ()
    in_progress_minutes: int | None = None
    schedule: Schedule = Schedule()
    needs_approval: bool = False

    def __post_init__(self) -> None:
        if len(self.description) > _MAX_DESCRIPTION or _CONTROL.search(self.description.replace("\n", "")):
            msg = f"a description is at most {_MAX_DESCRIPTION:,} characters without control characters"
            raise ValueError(msg)
        if self.in_progress_minutes is not None:
            check_minutes(self.in_progress_minutes)
        if len(self.retries) > _MAX_RETRY_RULES or sum(rule.retries for rule in self.retries) > _MAX_RETRIES:
            msg = f"a job has at most {_MAX_RETRY_RULES} retry rules, and at most {_MAX_RETRIES} retries in all"
            raise ValueError(msg)

    @property
    def in_progress_timeout(self) -> timedelta | None:
        """How long an execution may be in progress."""
        return None if self.in_progress_minutes is None else timedelta(minutes=self.in_progress_minutes)


@dataclass(frozen=True, slots=True)
class Counters:
    """How many of a job's executions stand where. Their sum is how many devices were given the job."""

    queued: int = 0
    in_progress: int = 0
    succeeded: int = 0
    failed: int = 0
    rejected: int = 0
    timed_out: int = 0
    canceled: int = 0
    removed: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return sum(getattr(self, each.name) for each in fields(self))

    @property
    def pending(self) -> int:
        """Those that have not ended."""
        return self.queued + self.in_progress

    @property
    def executed(self) -> int:
        """Those that a device ended, or did not end in time."""
        return self.succeeded + self.failed + self.rejected + self.timed_out

    def of(self, status: ExecutionStatus) -> int:
        """Give those of one status."""
        count: int = getattr(self, status.name.lower())
        return count


def check_minutes(minutes: int) -> int:
    """Give back a timeout in minutes that is one.

    Raises:
        ValueError: it is outside 1 to 10,080.

    """
    if not 1 <= minutes <= _MAX_MINUTES:
        msg = f"a timeout has 1 to {_MAX_MINUTES:,} minutes, not {minutes}"
        raise ValueError(msg)
    return minutes


def _check_rate(per_minute: int) -> None:
    if not 1 <= per_minute <= _MAX_RATE:
        msg = f"a rollout reaches 1 to {_MAX_RATE:,} devices a minute, not {per_minute}"
        raise ValueError(msg)


def _refuse_constant(name: str) -> object:
    msg = f"{name} is no JSON value"
    raise ValueError(msg)


def _is_deeper(value: object, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    if levels == 0:
        return True
    return any(_is_deeper(item, levels - 1) for item in (value.values() if isinstance(value, dict) else value))
