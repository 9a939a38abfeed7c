"""The fleet: everything that operators, devices and workers can do, each in one transaction.

Plain functions on values; every dialect, the operator's API and the command line call these. Who may call what is
checked before. What others are to be told afterwards is taken from :meth:`Fleet.take_notices` and
:meth:`Fleet.take_events`, and said to be told with :meth:`Fleet.told`.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection, select

from instar.errors import Conflict, Misconfigured, NotFound
from instar.model.device import FactsQuery, GroupName, ThingName, check_facts
from instar.model.job import JobDocument, JobId, JobSettings, JobStatus
from instar.policy.jobs import JobEvent, advance_job
from instar.server.fleet import membership, steps
from instar.server.fleet.answering import answer, pending_for
from instar.server.fleet.asks import Answer, Ask, Describe, Described, Pending, Summary
from instar.server.fleet.desk import Desk, Lasting, told_of_job
from instar.server.store import access, devices, executions, jobs, outbox, schema
from instar.server.store.database import Store
from instar.system.clock import Clock

__all__ = ["Fleet", "Notification"]

# Jobs whose documents and settings are kept in memory, at some 40 KB at most.
_LASTING: Final = 1_000
# How fresh the time is that a device was last heard: a write for each of its questions is not worth more.
_SEEN: Final = timedelta(minutes=1)
# Names in one statement.
_NAMES: Final = 500


@dataclass(frozen=True, slots=True)
class Notification:
    """What one device is to be told: its list where that changed, the first of it where that did."""

    thing: ThingName
    pending: Pending | None
    next: Described | None
    notices: tuple[outbox.Notice, ...]


class Fleet:
    """All devices and jobs of one database. Safe to use from several threads.

    Args:
        store: the database.
        clock: what time it is.
        tell_executions: whether the end of each execution is an event for others, as that of each job is.

    """

    def __init__(self, store: Store, clock: Clock, *, tell_executions: bool = False) -> None:
        self._store = store
        self._clock = clock
        self._tell_executions = tell_executions
        self._lasting: OrderedDict[int, Lasting] = OrderedDict()
        self._lasting_lock = threading.Lock()

    # What devices do.

    def answer(self, asks: Sequence[Ask]) -> list[Answer]:
        """Do what devices ask, in order and in one transaction, and give each its answer.

        What was answered is durable. The more at once, the less each costs.

        Raises:
            Unavailable: the database could not do it; nothing of all that has happened.

        """

        def work(connection: Connection) -> list[Answer]:
            now = self._clock.now()
            found = devices.lock_devices(connection, (ask.thing for ask in asks))
            desk = self._desk(connection, {each.number: each.name for each in found.values()}, now)
            numbers = {each.name: each.number for each in found.values()}
            answers = [answer(desk, numbers, ask) for ask in asks]
            desk.close()
            stale = [each.number for each in found.values() if each.seen is None or now - each.seen >= _SEEN]
            devices.mark_seen(connection, stale, now)
            return answers

        return self._store.write(work) if asks else []

    def enroll(self, name: ThingName, facts: Mapping[str, str], *, actor: str) -> None:
        """Take a device into the fleet, with what it says about itself.

        Raises:
            Conflict: it is there already.
            Misconfigured: the facts are too many or too long.

        """
        stated = _checked(facts)

        def work(connection: Connection) -> None:
            self.enroll_within(connection, name, stated, actor=actor)

        self._store.write(work)

    def enroll_within(self, connection: Connection, name: ThingName, facts: Mapping[str, str], *, actor: str) -> int:
        """Take a device into the fleet in the caller's transaction; give its number.

        Raises:
            Conflict: it is there already.

        """
        now = self._clock.now()
        number = devices.add_device(connection, name, now)
        if number is None:
            raise Conflict(f"The device {name} is enrolled already.", hint="Retire it first, or take another name.")
        access.note(connection, now, actor, "device.enroll", name, facts)
        self._state(connection, number, name, facts, now, new=True)
        return number

    def state_facts(self, name: ThingName, facts: Mapping[str, str]) -> None:
        """Let a device say this about itself, and nothing else. Groups that are questions about facts follow.

        Raises:
            NotFound: there is no such device.
            Misconfigured: the facts are too many or too long.

        """
        stated = _checked(facts)

        def work(connection: Connection) -> None:
            device = self._locked(connection, name)
            self._state(connection, device.number, name, stated, self._clock.now(), new=False)

        self._store.write(work)

    def retire(self, name: ThingName, *, actor: str) -> None:
        """Take a device out of the fleet: what waits for it is removed, its tokens are worth nothing.

        Raises:
            NotFound: there is no such device.

        """

        def work(connection: Connection) -> None:
            now = self._clock.now()
            device = self._locked(connection, name)
            desk = self._desk(connection, {device.number: name}, now)
            membership.left_everything(desk, device.number)
            desk.close()
            devices.retire_device(connection, device.number, now)
            access.revoke(connection, now, device=device.number)
            access.note(connection, now, actor, "device.retire", name, {})

        self._store.write(work)

    # Groups.

    def add_group(self, name: GroupName, *, actor: str, query: FactsQuery | None = None) -> None:
        """Make a group, whose members are named by hand, or are those that ``query`` holds for.

        Raises:
            Conflict: there is one of that name.

        """

        def work(connection: Connection) -> None:
            devices.add_group(connection, name, query)
            detail = {"query": str(query)} if query else {}
            access.note(connection, self._clock.now(), actor, "group.add", name, detail)

        self._store.write(work)

    def change_members(
        self, group: GroupName, *, add: Collection[ThingName] = (), remove: Collection[ThingName] = (), actor: str
    ) -> None:
        """Put devices into a group and take others out.

        Raises:
            NotFound: there is no such group, or a device is not enrolled.
            Misconfigured: its members follow from facts.

        """

        def work(connection: Connection) -> None:
            now = self._clock.now()
            number = _group(connection, group)
            if group == schema.EVERYBODY or number in devices.dynamic_groups(connection):
                raise Misconfigured(
                    f"The members of {group} are not named by hand.", hint="Change what the devices say, or its query."
                )
            found = devices.lock_devices(connection, {*add, *remove})
            for missing in {*add, *remove} - found.keys():
                raise _no_device(missing)
            desk = self._desk(connection, {each.number: each.name for each in found.values()}, now)
            devices.add_members(connection, number, [found[name].number for name in add])
            devices.remove_members(connection, number, [found[name].number for name in remove])
            for name in add:
                membership.joined(desk, found[name].number, [number], now)
            for name in remove:
                membership.left(desk, found[name].number, [number])
            desk.close()
            access.note(connection, now, actor, "group.change", group, {"add": sorted(add), "remove": sorted(remove)})

        self._store.write(work)

    # What operators do with jobs.

    def create_job(  # a job's parts, by name
        self,
        name: JobId,
        document: JobDocument,
        settings: JobSettings | None = None,
        *,
        things: Collection[ThingName] = (),
        groups: Collection[GroupName] = (),
        actor: str,
    ) -> None:
        """Make a job for these devices and the members of these groups.

        Raises:
            Conflict: there is one of that name.
            NotFound: there is no such device or group.
            Misconfigured: it is for nobody.

        """
        how = settings or JobSettings()
        if not (things or groups):
            raise Misconfigured("The job is for nobody.", hint="Name devices or groups.")

        def work(connection: Connection) -> None:
            now = self._clock.now()
            status = JobStatus.AWAITING_APPROVAL if how.needs_approval else JobStatus.SCHEDULED
            jobs.add_job(
                connection,
                name=name,
                document=document,
                settings=how,
                status=status,
                created_by=actor,
                now=now,
                device_numbers=_numbers(connection, things),
                group_numbers=[_group(connection, group) for group in sorted(set(groups))],
            )
            detail = {"things": len(set(things)), "groups": sorted(groups)}
            access.note(connection, now, actor, "job.create", name, detail)

        self._store.write(work)

    def clone_job(self, name: JobId, of: JobId, *, actor: str) -> None:
        """Make a job like another one, for the same devices and groups; its schedule begins and ends with none.

        Raises:
            NotFound: there is no such job.
            Conflict: there is one of that name.

        """

        def read(connection: Connection) -> tuple[jobs.Job, list[ThingName], list[GroupName]]:
            job = _job(connection, of)
            named = (
                select(schema.devices.c.name)
                .join(schema.job_devices, schema.job_devices.c.device_id == schema.devices.c.id)
                .where(schema.job_devices.c.job_id == job.number, schema.devices.c.retired_at.is_(None))
            )
            things = [ThingName(each) for each in connection.execute(named).scalars()]
            return job, things, jobs.group_names_meant(connection, job.number)

        job, things, groups = self._store.read(read)
        settings = job.campaign.settings
        fresh = replace(settings, schedule=replace(settings.schedule, start=None, end=None))
        self.create_job(name, job.document, fresh, things=things, groups=groups, actor=actor)

    def cancel_job(self, name: JobId, *, actor: str, reason: str | None = None, force: bool = False) -> None:
        """Give the job to nobody else, and take it from whom it waits for; with ``force`` also from who has begun.

        Raises:
            NotFound: there is no such job.
            InvalidTransition: it has ended.

        """
        self._change_job(name, JobEvent.Cancel, actor=actor, reason=reason, force=force)

    def pause_job(self, name: JobId, *, actor: str) -> None:
        """Give the job to nobody else until it is resumed.

        Raises:
            NotFound: there is no such job.
            InvalidTransition: it is not in progress.

        """
        self._change_job(name, JobEvent.Pause, actor=actor)

    def resume_job(self, name: JobId, *, actor: str) -> None:
        """Go on with a job that was paused.

        Raises:
            NotFound: there is no such job.
            InvalidTransition: it is not paused.

        """
        self._change_job(name, JobEvent.Resume, actor=actor)

    def approve_job(self, name: JobId, *, actor: str) -> None:
        """Agree with a job that somebody else made.

        Raises:
            NotFound: there is no such job.
            InvalidTransition: it does not wait for that.
            Misconfigured: the same person made it.

        """
        self._change_job(name, JobEvent.Approve, actor=actor)

    def delete_job(self, name: JobId, *, actor: str, force: bool = False) -> None:
        """Forget a job with all its executions; with ``force`` also one that has not ended.

        Raises:
            NotFound: there is no such job.
            InvalidTransition: it is being deleted.
            Conflict: devices may still be at work on it, and ``force`` was not said.

        """
        self._change_job(name, JobEvent.Delete, actor=actor, force=force)

    # What is looked at.

    def job(self, name: JobId) -> jobs.Job:
        """Give a job as it stands.

        Raises:
            NotFound: there is none.

        """
        return self._store.read(lambda connection: _job(connection, name))

    def list_jobs(
        self, *, status: JobStatus | None = None, before: int | None = None, limit: int = 100
    ) -> list[jobs.Job]:
        """Give jobs, the newest first, with ``before`` those older than the one of that number."""
        return self._store.read(lambda c: jobs.list_jobs(c, status=status, before=before, limit=limit))

    def history(self, name: ThingName, *, limit: int = 100) -> list[Summary]:
        """Give what a device was ever given, the newest first.

        Raises:
            NotFound: there is no such device.

        """

        def work(connection: Connection) -> list[Summary]:
            number = next(iter(_numbers(connection, [name])))
            found = executions.history_of(connection, number, limit=limit)
            return [Summary(each.job, each.execution) for each in found]

        return self._store.read(work)

    def audit(self, *, before: int | None = None, limit: int = 100) -> list[access.AuditEntry]:
        """Give the changes that were made, the newest first."""
        return self._store.read(lambda c: access.list_audit(c, before=before, limit=limit))

    # What workers do.

    def work(self) -> bool:
        """Do one piece of what is due: a step of a job, timers that ran out. False where nothing is."""

        def step(connection: Connection) -> bool:
            now = self._clock.now()
            return steps.step(connection, now, lambda c, locked: self._desk(c, locked, now))

        def time_out(connection: Connection) -> int:
            now = self._clock.now()
            return steps.time_out(connection, now, lambda c, locked: self._desk(c, locked, now))

        # Each in a transaction of its own: both lock devices in order, but each its own.
        worked = self._store.write(step)
        return bool(self._store.write(time_out)) or worked

    def take_notices(self, limit: int = 500) -> list[Notification]:
        """Take what devices are to be told; whoever takes it says it soon, and then :meth:`told`."""

        def work(connection: Connection) -> list[Notification]:
            now = self._clock.now()
            notices = outbox.claim_notices(connection, now, limit)
            wanted = sorted({each.device for each in notices})
            query = select(schema.devices.c.id, schema.devices.c.name).where(schema.devices.c.id.in_(wanted))
            names = {row.id: ThingName(row.name) for row in connection.execute(query)} if wanted else {}
            desk = self._desk(connection, names, now)
            # A notice for nobody, who was retired and forgotten, is still taken, or it would come back for ever.
            outbox.forget(connection, [each for each in notices if each.device not in names])
            # Told once, however often its list has changed: what it is told is how the list stands now.
            grouped: dict[int, list[outbox.Notice]] = {}
            for each in notices:
                grouped.setdefault(each.device, []).append(each)
            return [
                self._notification(desk, names[number], tuple(group))
                for number, group in grouped.items()
                if number in names
            ]

        return self._store.write(work)

    def take_events(self, limit: int = 500) -> list[outbox.JobEvent]:
        """Take what happened to jobs, to tell others; whoever takes it tells it soon, and then :meth:`told`."""
        return self._store.write(lambda c: outbox.claim_events(c, self._clock.now(), limit))

    def told(self, said: Iterable[Notification] | Sequence[outbox.JobEvent]) -> None:
        """Forget what was said."""
        notices = [notice for each in said if isinstance(each, Notification) for notice in each.notices]
        events = [each for each in said if isinstance(each, outbox.JobEvent)]

        def work(connection: Connection) -> None:
            outbox.forget(connection, notices)
            outbox.forget(connection, events)

        if notices or events:
            self._store.write(work)

    # The pieces of these.

    def _desk(self, connection: Connection, locked: Mapping[int, ThingName], now: datetime) -> Desk:
        return Desk(connection, now, locked, self._lasting_of, self._tell_executions)

    def _lasting_of(self, connection: Connection, number: int) -> Lasting:
        with self._lasting_lock:
            kept = self._lasting.get(number)
            if kept is not None:
                self._lasting.move_to_end(number)
                return kept
        job = jobs.job_numbered(connection, number)
        if job is None:
            raise NotFound("The job was deleted meanwhile.")
        lasting = Lasting(job.document, job.campaign.settings)
        with self._lasting_lock:
            self._lasting[number] = lasting
            while len(self._lasting) > _LASTING:
                self._lasting.popitem(last=False)
        return lasting

    def _notification(self, desk: Desk, thing: ThingName, notices: tuple[outbox.Notice, ...]) -> Notification:
        device = notices[0].device
        pending = pending_for(desk, device) if any(each.listing for each in notices) else None
        following = None
        if any(each.head for each in notices):
            first = answer(desk, {thing: device}, Describe(thing))
            following = first if isinstance(first, Described) else None
        return Notification(thing, pending, following, notices)

    def _state(  # what is known of the device at that point
        self,
        connection: Connection,
        number: int,
        name: ThingName,
        stated: Mapping[str, str],
        now: datetime,
        new: bool,  # noqa: FBT001  # always by name
    ) -> None:
        desk = self._desk(connection, {number: name}, now)
        devices.set_facts(connection, number, stated)
        before = set(devices.groups_of(connection, number))
        meant = {group for group, query in devices.dynamic_groups(connection).items() if query.holds(stated)}
        dynamic = set(devices.dynamic_groups(connection))
        come, gone = meant - before, (before & dynamic) - meant
        for group in sorted(come):
            devices.add_members(connection, group, [number])
        for group in sorted(gone):
            devices.remove_members(connection, group, [number])
        # A new device is also new among everybody.
        membership.joined(desk, number, come | (before if new else set()), now)
        membership.left(desk, number, gone)
        desk.close()

    def _change_job(
        self, name: JobId, event: type, *, actor: str, reason: str | None = None, force: bool = False
    ) -> None:
        def work(connection: Connection) -> None:
            now = self._clock.now()
            job = _job(connection, name)
            status = advance_job(job.campaign.status, event)
            if event is JobEvent.Delete and not force and not _is_over(job):
                raise Conflict(f"The job {name} has not ended.", hint="Cancel it first, or delete it by force.")
            approving = event is JobEvent.Approve
            if approving and actor == job.created_by:
                raise Misconfigured(f"{actor} made the job {name}.", hint="Somebody else must approve it.")
            change = jobs.Change(status, now, reason, force=force, approved_by=actor if approving else None)
            if not jobs.change_status(connection, job, change):
                raise Conflict(f"The job {name} has changed meanwhile.", hint="Look, and decide again.")
            told_of_job(connection, job, status, now)
            detail = {"reason": reason, "force": force}
            access.note(connection, now, actor, f"job.{event.__name__.lower()}", name, detail)

        self._store.write(work)

    def _locked(self, connection: Connection, name: ThingName) -> devices.Device:
        found = devices.lock_devices(connection, [name])
        if name not in found:
            raise _no_device(name)
        return found[name]


def _checked(facts: Mapping[str, str]) -> Mapping[str, str]:
    try:
        return check_facts(facts)
    except ValueError as error:
        raise Misconfigured(f"The facts cannot be taken: {error}.") from error


def _is_over(job: jobs.Job) -> bool:
    return job.campaign.status.ended and not job.campaign.counters.pending and not job.campaign.waiting


def _job(connection: Connection, name: JobId) -> jobs.Job:
    job = jobs.find_job(connection, name)
    if job is None:
        raise NotFound(f"There is no job {name}.")
    return job


def _group(connection: Connection, name: GroupName) -> int:
    number = devices.group_id(connection, name)
    if number is None:
        raise NotFound(f"There is no group {name}.")
    return number


def _numbers(connection: Connection, names: Collection[ThingName]) -> list[int]:
    wanted = sorted(set(names))
    found: dict[str, int] = {}
    for start in range(0, len(wanted), _NAMES):
        query = select(schema.devices.c.name, schema.devices.c.id).where(
            schema.devices.c.name.in_(wanted[start : start + _NAMES]), schema.devices.c.retired_at.is_(None)
        )
        found |= {row.name: row.id for row in connection.execute(query)}
    for missing in wanted:
        if missing not in found:
            raise _no_device(missing)
    return sorted(found.values())


def _no_device(name: str) -> NotFound:
    return NotFound(f"No device {name} is enrolled.")
