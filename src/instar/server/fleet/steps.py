"""What workers do by themselves: the next step of a job, and timers that ran out. One batch, one transaction.

What the next step is, :mod:`instar.policy.campaign` says. A worker that dies leaves nothing half done: the transaction
is undone, and whoever looks next begins with the same step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection

from instar.model.device import ThingName
from instar.model.job import EndBehavior, ExecutionStatus
from instar.policy.campaign import (
    Begin,
    Complete,
    Drop,
    End,
    Erase,
    GiveOut,
    Plan,
    Step,
    Sweep,
    Wait,
    is_direct,
    next_step,
)
from instar.policy.jobs import Cancel, ForceCancel, JobEvent, TimeOut, advance_job
from instar.server.fleet.desk import Desk, settle, told_of_job
from instar.server.store.bulk import BATCH, drop_waiting, erase_executions, give_out, pending_behind, plan_batch
from instar.server.store.devices import lock_numbers
from instar.server.store.executions import due_devices
from instar.server.store.jobs import (
    Change,
    Job,
    change_status,
    claim_job,
    erase_job,
    groups_meant,
    job_numbered,
    rest_until,
    save,
    shift_counters,
)
from instar.server.store.outbox import add_events
from instar.server.store.values import milliseconds

__all__ = ["OpenDesk", "step", "time_out"]

OpenDesk = Callable[[Connection, Mapping[int, ThingName]], Desk]
"""Opens a desk for devices that are locked."""

# Executions that are cancelled or time out in one transaction; each is a value in memory.
_SWEEP: Final = 1_000
# What to do about a job that says it has something to do where nothing was found.
_LATER: Final = timedelta(minutes=1)


def step(connection: Connection, now: datetime, open_desk: OpenDesk) -> bool:
    """Do the next step of a job that is due; False where none is."""
    job = claim_job(connection, now)
    if job is None:
        return False
    _take(connection, job, next_step(job.campaign, now), now, open_desk)
    return True


def time_out(connection: Connection, now: datetime, open_desk: OpenDesk) -> int:
    """Let executions whose timers ran out end; give how many did."""
    names = lock_numbers(connection, sorted(set(due_devices(connection, now, _SWEEP))))
    if not names:
        return 0
    desk = open_desk(connection, names)
    ended = 0
    for number in names:
        for standing in desk.everything_of(number):
            # Looked at again behind the lock: the device may have been faster than its timer.
            if standing.execution.due and standing.execution.due <= now:
                desk.happen(standing, TimeOut(standing.execution.attempt))
                ended += 1
    desk.close()
    return ended


def _take(connection: Connection, job: Job, todo: Step, now: datetime, open_desk: OpenDesk) -> None:
    match todo:
        case Wait(until):
            rest_until(connection, job, until)
        case Begin():
            _change(connection, job, JobEvent.Begin, now)
        case Complete():
            _change(connection, job, JobEvent.Complete, now)
        case End(EndBehavior.STOP_ROLLOUT):
            save(connection, job.number, closed=True)
        case End(behavior):
            save(connection, job.number, closed=True)
            force = behavior is EndBehavior.FORCE_CANCEL
            _change(connection, job, JobEvent.Cancel, now, reason="its schedule ended", force=force)
        case Plan():
            _plan(connection, job, now)
        case GiveOut(count):
            _give_out(connection, job, count, now)
        case Drop():
            dropped = drop_waiting(connection, job=job.number)
            shift_counters(connection, job.number, {}, waiting=-dropped)
            _rest_unless(connection, job, dropped, now)
        case Sweep(force):
            _sweep(connection, job, now, open_desk, force=force)
        case Erase():
            if not erase_executions(connection, job=job.number):
                erase_job(connection, job.number)
                add_events(connection, now, [(job.name, "", "deleted")])


def _change(
    connection: Connection, job: Job, event: type, now: datetime, *, reason: str | None = None, force: bool = False
) -> None:
    status = advance_job(job.campaign.status, event)
    # Where somebody was faster, the job has been woken, and whoever looks next sees how it stands.
    if change_status(connection, job, Change(status, now, reason, force=force)):
        told_of_job(connection, job, status, now)


def _plan(connection: Connection, job: Job, now: datetime) -> None:
    place, after = job.plan
    sources: Sequence[int | None] = [None, *groups_meant(connection, job.number)]
    direct = is_direct(job.campaign.settings)
    found = plan_batch(connection, job=job.number, group=sources[place], after=after, now=now, direct=direct)
    if found.added:
        shifts = {ExecutionStatus.QUEUED: found.added} if direct else {}
        shift_counters(connection, job.number, shifts, waiting=0 if direct else found.added)
    if found.last is not None:
        save(connection, job.number, plan_device=found.last)
    elif place + 1 < len(sources):
        save(connection, job.number, plan_group=place + 1, plan_device=0)
    else:
        save(connection, job.number, planned=True)


def _give_out(connection: Connection, job: Job, count: int | None, now: datetime) -> None:
    given = give_out(connection, job=job.number, limit=min(count or BATCH, BATCH), now=now)
    if given:
        pace = job.campaign.pace.after(given, now)
        shift_counters(connection, job.number, {ExecutionStatus.QUEUED: given}, waiting=-given)
        minute = None if pace.minute is None else milliseconds(pace.minute)
        save(connection, job.number, pace_minute=minute, pace_given=pace.given)
    _rest_unless(connection, job, given, now)


def _sweep(connection: Connection, job: Job, now: datetime, open_desk: OpenDesk, *, force: bool) -> None:
    numbers = pending_behind(connection, job=job.number, after=job.swept, force=force, limit=_SWEEP)
    if not numbers:
        # Something came in behind: from the start again, at once the first time.
        save(connection, job.number, sweep_device=0)
        _rest_unless(connection, job, job.swept, now)
        return
    desk = open_desk(connection, lock_numbers(connection, numbers))
    for number in numbers:
        for standing in desk.everything_of(number):
            begun = standing.execution.status is ExecutionStatus.IN_PROGRESS
            if standing.job_number == job.number and (force or not begun):
                kind = ForceCancel if force else Cancel
                desk.happen(standing, kind(standing.execution.attempt))
    save(connection, job.number, sweep_device=numbers[-1])
    desk.close()
    settled = job_numbered(connection, job.number)
    if settled is not None:
        settle(connection, settled, now)


def _rest_unless(connection: Connection, job: Job, done: int, now: datetime) -> None:
    """Let a job rest whose counters promised more than its rows hold; it would be looked at for ever."""
    if not done:
        rest_until(connection, job, now + _LATER)
