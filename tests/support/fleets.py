"""A fleet to play with in tests: devices that ask, a worker that is turned by hand, and counting that is checked."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, func, select

from instar.model.device import GroupName, ThingName
from instar.model.job import Counters, ExecutionStatus, JobDocument, JobId, JobSettings, StatusDetails
from instar.server.fleet import Fleet, Notification
from instar.server.fleet.asks import Answer, Described, GetPending, Pending, StartNext, Update
from instar.server.store.database import Store
from instar.server.store.schema import executions, jobs
from instar.server.store.values import counters_of
from instar.testing.clock import FakeClock

EVERYBODY = GroupName("everybody")
DOCUMENT = JobDocument('{"do": "it"}')


class Played:
    """One fleet on one database, with a clock of its own."""

    def __init__(self, store: Store, devices: int = 0, *, tell_executions: bool = False) -> None:
        self.store = store
        self.clock = FakeClock()
        self.fleet = Fleet(store, self.clock, tell_executions=tell_executions)
        self.things = [ThingName(f"d{n}") for n in range(devices)]
        for thing in self.things:
            self.fleet.enroll(thing, {}, actor="test")

    @property
    def now(self) -> datetime:
        return self.clock.now()

    def job(self, name: str, *, things: Sequence[str] = (), settings: JobSettings | None = None) -> JobId:
        """Make a job, for everybody where nobody is named, and let it begin."""
        job = JobId(name)
        meant = [ThingName(thing) for thing in things]
        self.fleet.create_job(
            job, DOCUMENT, settings, things=meant, groups=[] if things else [EVERYBODY], actor="operator"
        )
        self.work()
        return job

    def work(self, minutes: float = 0) -> None:
        """Let time pass, and all that is due be done."""
        self.clock.advance(timedelta(minutes=minutes))
        for _ in range(1_000):
            if not self.fleet.work():
                return
        raise AssertionError("the worker never rests")

    def start(self, thing: str, **details: str) -> Described:
        answer = self.fleet.answer([StartNext(ThingName(thing), StatusDetails(details) if details else None)])[0]
        assert isinstance(answer, Described)
        return answer

    def update(self, thing: str, job: str, status: str, **more: Any) -> Answer:
        return self.fleet.answer([Update(ThingName(thing), JobId(job), ExecutionStatus(status), **more)])[0]

    def pending(self, thing: str) -> tuple[list[str], list[str]]:
        """What is in progress and what is queued for a device, by the jobs' names."""
        answer = self.fleet.answer([GetPending(ThingName(thing))])[0]
        assert isinstance(answer, Pending)
        return [each.job for each in answer.in_progress], [each.job for each in answer.queued]

    def told(self) -> list[Notification]:
        """What devices are told now, once."""
        said = self.fleet.take_notices()
        self.fleet.told(said)
        return said

    def counters(self, job: str) -> Counters:
        """A job's counters, which are what counting its rows gives."""

        def counted(connection: Connection) -> tuple[Counters, dict[str, int], int]:
            row = connection.execute(select(jobs).where(jobs.c.name == job)).one()
            query = (
                select(executions.c.status, func.count())
                .where(executions.c.job_id == row.id)
                .group_by(executions.c.status)
            )
            return counters_of(row), {each[0]: each[1] for each in connection.execute(query)}, row.n_waiting

        counters, rows, waiting = self.store.read(counted)
        assert {status.value: counters.of(status) for status in ExecutionStatus if counters.of(status)} == {
            name: number for name, number in rows.items() if name != "PLANNED"
        }
        assert waiting == rows.get("PLANNED", 0)
        return counters
