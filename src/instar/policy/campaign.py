"""What a job does next, by itself: when it begins, how many more devices it reaches now, when it stops. Pure; no clock.

One function looks at how a job stands and says the next step; the worker does it and asks again, until it is told to
wait. So any worker can go on where another died.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from instar.model.job import (
    AbortRule,
    ConstantRate,
    Counters,
    Counting,
    EndBehavior,
    FailureKind,
    JobSettings,
    JobStatus,
    Rollout,
    Selection,
)
from instar.policy.windows import is_open, next_change

__all__ = [
    "Begin",
    "Campaign",
    "Complete",
    "Drop",
    "End",
    "Erase",
    "GiveOut",
    "Pace",
    "Plan",
    "Step",
    "Sweep",
    "Wait",
    "is_complete",
    "is_direct",
    "judge_abort",
    "next_step",
    "rate_now",
]

_MINUTE: Final = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Pace:
    """How many devices were given the job in the minute that began then."""

    minute: datetime | None = None
    given: int = 0

    def after(self, count: int, now: datetime) -> Pace:
        """Give the pace after so many more."""
        return replace(self, given=self.given + count) if self.is_running(now) else Pace(now, count)

    def is_running(self, now: datetime) -> bool:
        """Whether its minute is this one. A clock that was set back begins another."""
        return self.minute is not None and self.minute <= now < self.minute + _MINUTE


@dataclass(frozen=True, slots=True)
class Campaign:
    """A job on its way.

    Attributes:
        status: where the job stands.
        settings: how it is given out.
        counters: where its executions stand.
        planned: whether everybody it is meant for was found.
        waiting: those found that were not yet given it.
        pace: how many were given it lately.
        closed: whether its schedule has ended, so that nobody else is given it.
        force: whether it was cancelled by force.

    """

    status: JobStatus
    settings: JobSettings
    counters: Counters = field(default_factory=Counters)
    planned: bool = False
    waiting: int = 0
    pace: Pace = Pace()
    closed: bool = False
    force: bool = False


@dataclass(frozen=True, slots=True)
class Begin:
    """Its time has come."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Find the next batch of those it is meant for."""


@dataclass(frozen=True, slots=True)
class GiveOut:
    """Give it to so many more of those found; None to all."""

    count: int | None


@dataclass(frozen=True, slots=True)
class End:
    """Its schedule has ended."""

    behavior: EndBehavior


@dataclass(frozen=True, slots=True)
class Sweep:
    """Cancel a batch of what is queued, with ``force`` also of what is in progress."""

    force: bool


@dataclass(frozen=True, slots=True)
class Drop:
    """Forget a batch of those found: they will not be given it."""


@dataclass(frozen=True, slots=True)
class Erase:
    """Forget a batch of its executions, and with the last of them the job."""


@dataclass(frozen=True, slots=True)
class Complete:
    """It is done."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do before then; None: before something happens to it."""

    until: datetime | None = None


Step = Begin | Plan | GiveOut | End | Drop | Sweep | Erase | Complete | Wait


def next_step(campaign: Campaign, now: datetime) -> Step:
    """Give what to do next about a job."""
    # 1. What was stopped is swept up, whatever else its settings say.
    if campaign.status.ended:
        return _about_ended(campaign)
    # 2. The end of its schedule comes also to what has not begun or rests.
    schedule = campaign.settings.schedule
    if schedule.end and schedule.end <= now and not campaign.closed:
        return End(schedule.at_end)
    end = None if campaign.closed else schedule.end
    if campaign.status is JobStatus.AWAITING_APPROVAL:
        return Wait(end)
    if campaign.status is JobStatus.SCHEDULED:
        return Wait(schedule.start) if schedule.start and now < schedule.start else Begin()
    # 3. What everybody has ended is done, also while it rests.
    if campaign.closed and campaign.waiting:
        return Drop()
    if is_complete(campaign):
        return Complete()
    if campaign.status is JobStatus.PAUSED or campaign.closed:
        return Wait(end)
    # 4. First find whom it is meant for, then give it out as fast as its windows and its pace let it.
    return _about_waiting(campaign, now, end) if campaign.planned else Plan()


def _about_ended(campaign: Campaign) -> Step:
    deleting = campaign.status is JobStatus.DELETION_IN_PROGRESS
    force = campaign.force or deleting
    if campaign.status is JobStatus.COMPLETED:
        return Wait()
    if campaign.waiting:
        return Drop()
    if campaign.counters.queued or (force and campaign.counters.in_progress):
        return Sweep(force)
    return Erase() if deleting else Wait()


def _about_waiting(campaign: Campaign, now: datetime, end: datetime | None) -> Step:
    windows = campaign.settings.schedule.windows
    if not campaign.waiting:
        return Wait(end)
    if not is_open(windows, now):
        return Wait(_first(next_change(windows, now), end))
    pace = campaign.pace
    rate = rate_now(campaign.settings.rollout, campaign.counters)
    if rate is None:
        return GiveOut(None)
    if pace.minute is None or not pace.is_running(now):
        return GiveOut(min(rate, campaign.waiting))
    left = min(rate - pace.given, campaign.waiting)
    return GiveOut(left) if left > 0 else Wait(_first(pace.minute + _MINUTE, end))


def is_complete(campaign: Campaign) -> bool:
    """Whether nothing is left of the job, and nothing more will come to it."""
    if campaign.counters.pending:
        return False
    return campaign.closed or (
        campaign.planned and not campaign.waiting and campaign.settings.selection is Selection.SNAPSHOT
    )


def is_direct(settings: JobSettings) -> bool:
    """Whether whoever is found is given the job at once: there is no pace and no window to wait for."""
    return settings.rollout is None and not settings.schedule.windows


def rate_now(rollout: Rollout, counters: Counters) -> int | None:
    """Give how many devices a minute the job reaches now; None for no limit."""
    if rollout is None:
        return None
    if isinstance(rollout, ConstantRate):
        return rollout.per_minute
    reached = counters.succeeded if rollout.counting is Counting.SUCCEEDED else counters.total
    # No rate goes beyond the maximum: after so many steps the power would only overflow.
    steps = min(reached // rollout.every, 1_000)
    try:
        rate = rollout.base_per_minute * rollout.factor**steps
    except OverflowError:
        return rollout.maximum_per_minute
    return int(min(rate, rollout.maximum_per_minute))


def judge_abort(rules: tuple[AbortRule, ...], counters: Counters) -> AbortRule | None:
    """Give the first rule that says to stop, None to go on."""
    for rule in rules:
        bad = {
            FailureKind.FAILED: counters.failed,
            FailureKind.REJECTED: counters.rejected,
            FailureKind.TIMED_OUT: counters.timed_out,
            FailureKind.ALL: counters.failed + counters.rejected + counters.timed_out,
        }[rule.failure]
        if counters.executed >= rule.minimum and bad * 100 >= rule.threshold_percent * counters.executed:
            return rule
    return None


def _first(one: datetime | None, other: datetime | None) -> datetime | None:
    return min((time for time in (one, other) if time), default=None)
