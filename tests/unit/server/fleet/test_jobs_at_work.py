"""Jobs from their making to their end, on both databases."""

from datetime import timedelta

import pytest

from instar.errors import Conflict, Misconfigured, NotFound
from instar.model.device import FactsQuery, GroupName, ThingName
from instar.model.job import (
    AbortRule,
    ConstantRate,
    EndBehavior,
    FailureKind,
    JobId,
    JobSettings,
    RetryRule,
    Schedule,
    Selection,
    Window,
)
from instar.policy.jobs import InvalidTransition
from instar.server.fleet.asks import Pending, Refusal, Refused
from instar.server.fleet.service import Fleet
from instar.server.store import bulk, jobs
from instar.server.store.database import Store, open_store
from instar.server.store.outbox import LEASE
from tests.support.fleets import DOCUMENT, EVERYBODY, Played

CONTINUOUS = JobSettings(selection=Selection.CONTINUOUS)


def status_of(played: Played, job: str) -> str:
    return played.fleet.job(JobId(job)).campaign.status


def events_of(played: Played) -> list[tuple[str, str, str]]:
    found = played.fleet.take_events()
    played.fleet.told(found)
    return [(each.job, each.thing, each.what) for each in found]


def test_a_job_for_everybody_completes_when_all_have_ended(store: Store) -> None:
    played = Played(store, 5, tell_executions=True)
    played.job("one")
    assert played.counters("one").queued == 5
    for thing in played.things:
        assert status_of(played, "one") == "IN_PROGRESS"
        played.update(thing, "one", "SUCCEEDED")
    assert status_of(played, "one") == "COMPLETED"
    assert events_of(played) == [("one", f"d{n}", "succeeded") for n in range(4)] + [
        ("one", "", "completed"),
        ("one", "d4", "succeeded"),
    ]
    assert events_of(played) == []
    assert played.counters("one").succeeded == 5


def test_who_is_meant_twice_is_given_the_job_once_and_a_job_for_an_empty_group_is_done(store: Store) -> None:
    played = Played(store, 3)
    some = GroupName("some")
    played.fleet.add_group(some, actor="operator")
    played.fleet.change_members(some, add=played.things[:2], actor="operator")
    played.fleet.create_job(
        JobId("one"), DOCUMENT, things=played.things[1:], groups=[some, EVERYBODY], actor="operator"
    )
    played.work()
    assert played.counters("one").queued == 3
    assert len(played.told()) == 3
    played.fleet.change_members(some, remove=played.things[:2], actor="operator")
    played.fleet.create_job(JobId("two"), DOCUMENT, groups=[some], actor="operator")
    played.work()
    assert status_of(played, "two") == "COMPLETED"


def test_jobs_are_refused_that_are_for_nobody_or_there_already(store: Store) -> None:
    played = Played(store, 1)
    with pytest.raises(Misconfigured, match="nobody"):
        played.fleet.create_job(JobId("one"), DOCUMENT, actor="operator")
    with pytest.raises(NotFound, match="stranger"):
        played.fleet.create_job(JobId("one"), DOCUMENT, things=[ThingName("stranger")], actor="operator")
    with pytest.raises(NotFound, match="nowhere"):
        played.fleet.create_job(JobId("one"), DOCUMENT, groups=[GroupName("nowhere")], actor="operator")
    played.job("one")
    with pytest.raises(Conflict):
        played.job("one")
    with pytest.raises(NotFound, match="two"):
        played.fleet.cancel_job(JobId("two"), actor="operator")


def test_a_rollout_keeps_its_pace(store: Store) -> None:
    played = Played(store, 7)
    played.job("one", settings=JobSettings(rollout=ConstantRate(3)))
    assert (played.counters("one").queued, len(played.told())) == (3, 3)
    played.work(0.5)
    assert played.counters("one").queued == 3
    played.work(0.5)
    assert (played.counters("one").queued, len(played.told())) == (6, 3)
    assert status_of(played, "one") == "IN_PROGRESS"
    played.work(1)
    assert played.counters("one").queued == 7


def test_a_job_waits_for_its_start_and_its_window(store: Store) -> None:
    played = Played(store, 2)
    start = played.now + timedelta(hours=1)
    played.job("one", settings=JobSettings(schedule=Schedule(start=start, windows=(Window("0 2 * * *", 30),))))
    played.work(59)
    assert status_of(played, "one") == "SCHEDULED"
    played.work(1)
    assert status_of(played, "one") == "IN_PROGRESS"
    assert played.counters("one").total == 0
    assert played.pending("d0") == ([], [])
    played.work(60)
    assert played.counters("one").queued == 2


@pytest.mark.parametrize("behavior", EndBehavior)
def test_the_end_of_the_schedule_stops_a_job_as_it_says(store: Store, behavior: EndBehavior) -> None:
    played = Played(store, 4)
    schedule = Schedule(end=played.now + timedelta(minutes=1), at_end=behavior)
    played.job("one", settings=JobSettings(schedule=schedule, rollout=ConstantRate(2)))
    played.update("d0", "one", "IN_PROGRESS")
    played.work(1)
    counters = played.counters("one")
    assert (counters.queued, counters.in_progress, counters.canceled) == {
        EndBehavior.STOP_ROLLOUT: (1, 1, 0),
        EndBehavior.CANCEL: (0, 1, 1),
        EndBehavior.FORCE_CANCEL: (0, 0, 2),
    }[behavior]
    assert counters.total == 2
    if behavior is not EndBehavior.FORCE_CANCEL:
        played.update("d0", "one", "SUCCEEDED")
    if behavior is EndBehavior.STOP_ROLLOUT:
        played.update("d1", "one", "SUCCEEDED")
        assert status_of(played, "one") == "COMPLETED"
    else:
        assert status_of(played, "one") == "CANCELED"


def test_cancelling_takes_back_what_is_queued_and_by_force_what_has_begun(store: Store) -> None:
    played = Played(store, 3, tell_executions=True)
    played.job("one")
    played.update("d0", "one", "IN_PROGRESS")
    played.told()
    played.fleet.cancel_job(JobId("one"), actor="operator", reason="smoke")
    # At once, before any worker came to sweep.
    assert played.pending("d1") == ([], [])
    assert isinstance(played.update("d1", "one", "IN_PROGRESS"), Refused)
    played.work()
    assert (played.counters("one").canceled, played.counters("one").in_progress) == (2, 1)
    assert [(each.thing, each.pending) for each in played.told()] == [("d1", Pending()), ("d2", Pending())]
    assert played.fleet.job(JobId("one")).reason == "smoke"
    with pytest.raises(InvalidTransition):
        played.fleet.cancel_job(JobId("one"), actor="operator", force=True)
    played.update("d0", "one", "SUCCEEDED")
    assert played.counters("one").succeeded == 1
    assert events_of(played) == [
        ("one", "", "canceled"),
        ("one", "d1", "canceled"),
        ("one", "d2", "canceled"),
        ("one", "d0", "succeeded"),
    ]
    played.job("two")
    played.update("d0", "two", "IN_PROGRESS")
    played.fleet.cancel_job(JobId("two"), actor="operator", force=True)
    assert played.pending("d0") == ([], [])
    played.work()
    assert played.counters("two").canceled == 3


def test_a_job_whose_devices_fail_stops_itself(store: Store) -> None:
    played = Played(store, 40)
    settings = JobSettings(rollout=ConstantRate(20), abort=(AbortRule(FailureKind.ALL, 5, 10),))
    played.job("one", settings=settings)
    for number, thing in enumerate(played.things[:20]):
        answer = played.update(thing, "one", "FAILED" if number % 10 == 3 else "SUCCEEDED")
        assert isinstance(answer, Refused) is (number >= 10)
    assert status_of(played, "one") == "CANCELED"
    assert "stopped by itself" in (played.fleet.job(JobId("one")).reason or "")
    played.work(2)
    counters = played.counters("one")
    assert (counters.executed, counters.failed, counters.canceled, counters.total) == (10, 1, 10, 20)


def test_what_failed_is_tried_again_as_often_as_the_job_says(store: Store) -> None:
    played = Played(store, 1)
    rules = (RetryRule(FailureKind.FAILED, 1), RetryRule(FailureKind.TIMED_OUT, 1))
    played.job("one", settings=JobSettings(retries=rules, in_progress_minutes=5))
    played.told()
    played.update("d0", "one", "IN_PROGRESS")
    played.update("d0", "one", "FAILED")
    begun = played.start("d0")
    assert begun.summary is not None
    assert (begun.summary.execution.attempt, begun.summary.execution.version) == (2, 2)
    played.work(6)
    assert played.pending("d0") == ([], ["one"])
    # Said about an attempt that is over.
    assert isinstance(played.update("d0", "one", "FAILED", attempt=2), Refused)
    played.update("d0", "one", "FAILED", attempt=3)
    assert played.counters("one").failed == 1
    assert status_of(played, "one") == "COMPLETED"


def test_a_paused_job_reaches_nobody_else_until_it_is_resumed(store: Store) -> None:
    played = Played(store, 4)
    played.job("one", settings=JobSettings(rollout=ConstantRate(2)))
    played.fleet.pause_job(JobId("one"), actor="operator")
    played.work(5)
    assert played.counters("one").queued == 2
    played.update("d0", "one", "SUCCEEDED")
    played.fleet.resume_job(JobId("one"), actor="operator")
    played.work()
    assert (played.counters("one").queued, played.counters("one").succeeded) == (3, 1)


def test_somebody_else_approves(store: Store) -> None:
    played = Played(store, 1)
    played.job("one", settings=JobSettings(needs_approval=True))
    assert status_of(played, "one") == "AWAITING_APPROVAL"
    with pytest.raises(Misconfigured, match="Somebody else"):
        played.fleet.approve_job(JobId("one"), actor="operator")
    played.fleet.approve_job(JobId("one"), actor="second")
    played.work()
    assert played.fleet.job(JobId("one")).approved_by == "second"
    assert played.counters("one").queued == 1
    actions = [(entry.actor, entry.action) for entry in played.fleet.audit(limit=2)]
    assert actions == [("second", "job.approve"), ("operator", "job.create")]


def test_a_deleted_job_is_forgotten_with_all_its_executions(store: Store) -> None:
    played = Played(store, 3)
    played.job("one")
    with pytest.raises(Conflict, match="has not ended"):
        played.fleet.delete_job(JobId("one"), actor="operator")
    played.fleet.delete_job(JobId("one"), actor="operator", force=True)
    assert played.pending("d0") == ([], [])
    played.work()
    with pytest.raises(NotFound):
        played.fleet.job(JobId("one"))
    assert played.fleet.history(ThingName("d0")) == []
    assert events_of(played) == [("one", "", "deletion_in_progress"), ("one", "", "deleted")]
    played.job("one")
    assert played.counters("one").queued == 3


def test_a_clone_is_for_the_same_and_begins_at_once(store: Store) -> None:
    played = Played(store, 3)
    played.job("one", things=["d0", "d2"], settings=JobSettings(description="first", in_progress_minutes=7))
    played.fleet.cancel_job(JobId("one"), actor="operator")
    played.work()
    played.fleet.clone_job(JobId("again"), JobId("one"), actor="operator")
    played.work()
    assert played.counters("again").queued == 2
    assert played.fleet.job(JobId("again")).campaign.settings.in_progress_minutes == 7
    assert [job.name for job in played.fleet.list_jobs()] == ["again", "one"]


def test_a_continuous_job_comes_to_who_joins_and_goes_from_who_leaves(store: Store) -> None:
    played = Played(store, 1)
    cameras = GroupName("cameras")
    played.fleet.add_group(cameras, query=FactsQuery.parse("camera=yes region!=eu"), actor="operator")
    played.fleet.create_job(JobId("one"), DOCUMENT, CONTINUOUS, groups=[cameras], actor="operator")
    played.work()
    assert status_of(played, "one") == "IN_PROGRESS"
    played.fleet.state_facts(ThingName("d0"), {"camera": "yes"})
    assert played.pending("d0") == ([], ["one"])
    played.fleet.enroll(ThingName("late"), {"camera": "yes", "region": "us"}, actor="test")
    assert played.pending("late") == ([], ["one"])
    assert {each.thing for each in played.told()} == {"d0", "late"}
    played.fleet.state_facts(ThingName("d0"), {"camera": "yes", "region": "eu"})
    assert played.pending("d0") == ([], [])
    assert [(each.thing, each.pending) for each in played.told()] == [("d0", Pending())]
    played.fleet.state_facts(ThingName("d0"), {"camera": "yes"})
    begun = played.start("d0")
    assert begun.summary is not None
    assert begun.summary.execution.attempt == 2
    assert played.counters("one").pending == 2
    # Once done it is done, however often the device comes and goes.
    played.update("d0", "one", "SUCCEEDED")
    played.fleet.state_facts(ThingName("d0"), {})
    played.fleet.state_facts(ThingName("d0"), {"camera": "yes"})
    assert played.pending("d0") == ([], [])
    assert status_of(played, "one") == "IN_PROGRESS"


def test_who_joins_a_paused_or_paced_continuous_job_waits_for_it(store: Store) -> None:
    played = Played(store, 1)
    group = GroupName("some")
    played.fleet.add_group(group, actor="operator")
    played.fleet.create_job(JobId("one"), DOCUMENT, CONTINUOUS, groups=[group], actor="operator")
    played.work()
    played.fleet.pause_job(JobId("one"), actor="operator")
    played.fleet.change_members(group, add=played.things, actor="operator")
    played.work()
    assert played.counters("one").total == 0
    played.fleet.change_members(group, remove=played.things, actor="operator")
    played.fleet.change_members(group, add=played.things, actor="operator")
    played.fleet.resume_job(JobId("one"), actor="operator")
    played.work()
    assert played.counters("one").queued == 1


def test_a_group_of_a_question_is_what_its_devices_say_also_of_those_before_it(store: Store) -> None:
    played = Played(store, 0)
    for name, facts in (("a", {"os": "linux"}), ("b", {"os": "mac"}), ("c", {}), ("d", {"os": "linux", "old": "1"})):
        played.fleet.enroll(ThingName(name), facts, actor="test")
    for name, query, members in (
        ("linux", "os=linux", 2),
        ("either", "os=linux|mac", 3),
        ("not-linux", "os!=linux", 2),
        ("said", "os", 3),
        ("both", "os=linux old", 1),
    ):
        played.fleet.add_group(GroupName(name), query=FactsQuery.parse(query), actor="operator")
        played.fleet.create_job(JobId(name), DOCUMENT, groups=[GroupName(name)], actor="operator")
        played.work()
        assert played.counters(name).queued == members
    with pytest.raises(Misconfigured, match="not named by hand"):
        played.fleet.change_members(GroupName("linux"), add=[ThingName("b")], actor="operator")


def test_a_retired_device_is_asked_for_nothing_and_may_come_again(store: Store) -> None:
    played = Played(store, 2)
    played.job("one")
    played.job("paced", settings=JobSettings(rollout=ConstantRate(1)))
    played.fleet.retire(ThingName("d0"), actor="operator")
    played.fleet.retire(ThingName("d1"), actor="operator")
    assert (played.counters("one").removed, played.counters("one").pending) == (2, 0)
    assert played.counters("paced").total == 1
    played.work(5)
    assert status_of(played, "one") == "COMPLETED"
    assert status_of(played, "paced") == "COMPLETED"
    with pytest.raises(NotFound):
        played.fleet.retire(ThingName("d0"), actor="operator")
    played.fleet.enroll(ThingName("d0"), {}, actor="test")
    with pytest.raises(Conflict, match="enrolled already"):
        played.fleet.enroll(ThingName("d0"), {}, actor="test")
    played.job("two")
    assert played.counters("two").queued == 1


def test_what_a_worker_took_to_say_and_did_not_comes_again(store: Store) -> None:
    played = Played(store, 1)
    played.job("one")
    assert len(played.fleet.take_notices()) == 1
    assert played.fleet.take_notices() == []
    played.clock.advance(LEASE)
    assert len(played.told()) == 1
    played.clock.advance(LEASE)
    assert played.told() == []


def test_a_job_is_given_out_by_the_batch_and_any_worker_goes_on(address: str) -> None:
    # Each step by another worker: nothing of it is remembered anywhere but in the database.
    store = open_store(address)
    played = Played(store, 0)
    from sqlalchemy import insert

    from instar.server.store.schema import devices, group_members

    total = bulk.BATCH * 2 + 1
    rows = [{"id": n, "name": f"d{n}", "enrolled_at": 0} for n in range(1, total + 1)]
    store.write(lambda c: c.execute(insert(devices), rows))
    store.write(lambda c: c.execute(insert(group_members), [{"group_id": 1, "device_id": row["id"]} for row in rows]))
    played.fleet.create_job(JobId("one"), DOCUMENT, groups=[EVERYBODY], actor="operator")
    store.close()
    seen = []
    for _ in range(12):
        store = open_store(address)
        played.store = store
        Fleet(store, played.clock).work()
        seen.append(played.counters("one").queued)
        store.close()
    assert sorted(set(seen)) == [0, bulk.BATCH, bulk.BATCH * 2, total]


def test_what_fails_in_a_job_that_was_cancelled_is_not_tried_again(store: Store) -> None:
    played = Played(store, 2)
    played.job("one", settings=JobSettings(retries=(RetryRule(FailureKind.ALL, 5),)))
    played.update("d0", "one", "IN_PROGRESS")
    played.fleet.cancel_job(JobId("one"), actor="operator")
    played.update("d0", "one", "FAILED")
    played.work()
    assert (played.counters("one").failed, played.counters("one").canceled) == (1, 1)


def test_who_joins_a_paced_continuous_job_that_rests_is_given_it(store: Store) -> None:
    played = Played(store, 1)
    group = GroupName("some")
    played.fleet.add_group(group, actor="operator")
    settings = JobSettings(selection=Selection.CONTINUOUS, rollout=ConstantRate(5))
    played.fleet.create_job(JobId("one"), DOCUMENT, settings, groups=[group], actor="operator")
    played.work()
    played.fleet.change_members(group, add=played.things, actor="operator")
    played.work()
    assert played.counters("one").queued == 1


def test_a_timer_ends_only_what_it_is_for(store: Store) -> None:
    played = Played(store, 1)
    for job, minutes in (("short", 5), ("long", 60)):
        played.job(job, settings=JobSettings(in_progress_minutes=minutes))
        played.update("d0", job, "IN_PROGRESS")
    played.work(6)
    assert played.counters("short").timed_out == 1
    assert played.pending("d0") == (["long"], [])


def test_a_device_knows_nothing_of_a_job_that_it_was_not_given_yet(store: Store) -> None:
    played = Played(store, 2)
    played.job("one", settings=JobSettings(rollout=ConstantRate(1)))
    refused = played.update("d1", "one", "SUCCEEDED")
    assert isinstance(refused, Refused)
    assert refused.why is Refusal.NOT_FOUND
    assert played.fleet.history(ThingName("d1")) == []
    assert played.counters("one").total == 1


def test_a_worker_that_lets_a_job_rest_does_not_overlook_who_woke_it(store: Store) -> None:
    played = Played(store, 1)
    played.job("one")
    seen = played.fleet.job(JobId("one"))
    store.write(lambda c: jobs.wake(c, [seen.number], played.now))
    store.write(lambda c: jobs.rest_until(c, seen, None))
    claimed = store.write(lambda c: jobs.claim_job(c, played.now))
    assert claimed is not None
    store.write(lambda c: jobs.rest_until(c, claimed, None))
    assert store.write(lambda c: jobs.claim_job(c, played.now)) is None
