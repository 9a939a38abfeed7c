"""Processes that share a database, killed at random: nothing is lost, doubled or stuck; what was answered stays."""

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from instar.model.job import ExecutionStatus, FailureKind, JobId, JobSettings, RetryRule
from instar.server.fleet.asks import Refused, Update, Updated
from instar.server.store.database import open_store
from instar.server.store.outbox import LEASE
from instar.system.clock import SystemClock
from tests.support.databases import running_cluster
from tests.support.fleets import Played

DEVICES, KILLS = 60, 6

# Devices that begin what they are given and end it, some badly; each says what it was answered only once it was. Beside
# it, a worker that does all that is due.
WORKER = """
import json, sys, random
from instar.errors import InstarError
from instar.model.device import ThingName
from instar.model.job import ExecutionStatus
from instar.server.fleet import Fleet
from instar.server.fleet.asks import StartNext, Update, Updated
from instar.server.store.database import open_store
from instar.system.clock import SystemClock

address, mine, every = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
chance = random.Random()
fleet = Fleet(open_store(address), SystemClock())
names = [ThingName(f"d{n}") for n in range(mine, every, 2)]
while True:
    chance.shuffle(names)
    some = names[:8]
    begun = fleet.answer([StartNext(name) for name in some])
    updates = [
        Update(name, each.summary.job, ExecutionStatus.SUCCEEDED if chance.random() < 0.7 else ExecutionStatus.FAILED,
               attempt=each.summary.execution.attempt)
        for name, each in zip(some, begun) if each.summary is not None
    ]
    answered = fleet.answer(updates)
    for update, answer in zip(updates, answered):
        if isinstance(answer, Updated):
            print(json.dumps([update.thing, update.job, update.attempt, update.status]), flush=True)
    fleet.work()
    fleet.told(fleet.take_notices(20))
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/fleet.db"
    else:
        with running_cluster() as cluster:
            yield cluster.new_database()


def test_workers_that_are_killed_lose_nothing(address: str, tmp_path: Path) -> None:
    store = open_store(address)
    played = Played(store, DEVICES)
    settings = JobSettings(retries=(RetryRule(FailureKind.FAILED, 2),))
    jobs = [JobId(f"job{n}") for n in range(4)]
    played.clock.set(SystemClock().now())
    for job in jobs:
        played.job(job, settings=settings)
    running: dict[int, subprocess.Popen[bytes]] = {}
    chance = random.Random(4)
    said = 0

    def start(mine: int) -> None:
        nonlocal said
        said += 1
        with (tmp_path / f"said-{said}").open("wb") as out:
            running[mine] = subprocess.Popen(
                [sys.executable, "-c", WORKER, address, str(mine), str(DEVICES)], stdout=out
            )

    try:
        for mine in (0, 1):
            start(mine)
        for _ in range(KILLS):
            time.sleep(chance.uniform(0.8, 1.5))
            mine = chance.randrange(2)
            assert running[mine].poll() is None, "a worker ended by itself"
            running[mine].send_signal(signal.SIGKILL)
            running[mine].wait()
            start(mine)
        until = time.monotonic() + 90
        while not all(played.fleet.job(job).campaign.status == "COMPLETED" for job in jobs):
            assert time.monotonic() < until, "a job is stuck"
            assert all(worker.poll() is None for worker in running.values()), "a worker ended by itself"
            time.sleep(0.1)
    finally:
        for worker in running.values():
            worker.kill()
            worker.wait()
    for job in jobs:
        counters = played.counters(job)
        assert (counters.total, counters.pending) == (DEVICES, 0)
    # What was answered has happened: it stands, or it was the end of an attempt that another one followed.
    answered = [
        json.loads(line)
        for file in tmp_path.glob("said-*")
        for line in file.read_text().splitlines(keepends=True)
        if line.endswith("\n")
    ]
    assert len(answered) > DEVICES
    stands = {(thing, each.job): each.execution for thing in played.things for each in played.fleet.history(thing)}
    for thing, job, attempt, status in answered:
        execution = stands[thing, JobId(job)]
        assert execution.attempt >= attempt
        assert execution.attempt > attempt or execution.status == status
    # Said twice, an end is refused; nobody ended one attempt two times.
    assert len({(thing, job, attempt) for thing, job, attempt, _ in answered}) == len(answered)
    again = played.fleet.answer([Update(played.things[0], jobs[0], ExecutionStatus.SUCCEEDED)])[0]
    assert isinstance(again, Refused)
    assert not isinstance(again, Updated)
    # What dead workers had taken to say comes back when their lease is over.
    played.clock.set(SystemClock().now())
    played.clock.advance(LEASE * 2)
    while played.told():
        pass
    store.close()
