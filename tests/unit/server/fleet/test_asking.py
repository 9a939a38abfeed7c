"""What devices ask and hear, on both databases."""

from datetime import timedelta

import pytest

from instar.model.device import ThingName
from instar.model.job import ExecutionStatus, JobId, JobSettings, StatusDetails
from instar.server.fleet.asks import (
    Describe,
    Described,
    GetPending,
    Pending,
    Refusal,
    Refused,
    StartNext,
    Update,
    Updated,
)
from instar.server.store.database import Store
from tests.support.fleets import DOCUMENT, Played


@pytest.fixture
def played(store: Store) -> Played:
    return Played(store, 2)


def heard(played: Played) -> tuple[dict[str, list[tuple[str, int, bool]]] | None, tuple[str, str, int] | str | None]:
    """What the one device hears: its list, and what is next; None where it hears nothing of that."""
    said = played.told()
    listing = next((each.pending for each in said if each.pending), None)
    head = next((each.next for each in said if each.next), None)
    lists = None
    if listing is not None:
        lists = {
            name: [(each.job, each.execution.version, each.execution.started_at is not None) for each in summaries]
            for name, summaries in (("IN_PROGRESS", listing.in_progress), ("QUEUED", listing.queued))
            if summaries
        }
    if head is None:
        return lists, None
    if head.summary is None:
        return lists, "nothing"
    assert head.document == DOCUMENT
    return lists, (head.summary.job, head.summary.execution.status, head.summary.execution.version)


def test_the_published_example_of_notifications_for_three_jobs(store: Store) -> None:
    # https://docs.aws.amazon.com/iot/latest/developerguide/jobs-comm-notifications.html, step by step.
    played = Played(store, 1)
    second = timedelta(seconds=1)
    played.job("job1", things=["d0"])
    assert heard(played) == ({"QUEUED": [("job1", 1, False)]}, ("job1", "QUEUED", 1))
    played.clock.advance(second)
    played.job("job2", things=["d0"])
    assert heard(played) == ({"QUEUED": [("job1", 1, False), ("job2", 1, False)]}, None)
    played.clock.advance(second)
    played.update("d0", "job1", "IN_PROGRESS")
    assert heard(played) == (None, None)
    played.clock.advance(second)
    played.job("job3", things=["d0"])
    assert heard(played) == (
        {"IN_PROGRESS": [("job1", 2, True)], "QUEUED": [("job2", 1, False), ("job3", 1, False)]},
        None,
    )
    played.clock.advance(second)
    played.update("d0", "job1", "SUCCEEDED")
    assert heard(played) == ({"QUEUED": [("job2", 1, False), ("job3", 1, False)]}, ("job2", "QUEUED", 1))
    played.clock.advance(second)
    played.update("d0", "job3", "IN_PROGRESS")
    assert heard(played) == (None, ("job3", "IN_PROGRESS", 2))
    played.clock.advance(second)
    played.update("d0", "job2", "REJECTED")
    assert heard(played) == ({"IN_PROGRESS": [("job3", 2, True)]}, None)
    played.clock.advance(second)
    played.fleet.delete_job(JobId("job3"), actor="operator", force=True)
    played.work()
    assert heard(played) == ({}, "nothing")
    assert heard(played) == (None, None)


def test_pending_jobs_come_in_order_and_only_to_those_meant(played: Played) -> None:
    for name in ("one", "two", "three"):
        played.job(name, things=["d0"])
        played.clock.advance(timedelta(seconds=1))
    played.update("d0", "two", "IN_PROGRESS")
    assert played.pending("d0") == (["two"], ["one", "three"])
    assert played.pending("d1") == ([], [])


def test_the_next_job_is_the_one_begun_then_the_oldest(played: Played) -> None:
    played.job("one", things=["d0"])
    played.clock.advance(timedelta(seconds=1))
    played.job("two", things=["d0"])
    begun = played.start("d0", step="1")
    assert begun.summary is not None
    assert begun.document == DOCUMENT
    execution = begun.summary.execution
    assert (begun.summary.job, execution.status, execution.version) == ("one", "IN_PROGRESS", 2)
    assert execution.details == StatusDetails({"step": "1"})
    assert execution.started_at == played.now
    # One that is begun keeps its details.
    again = played.start("d0", step="2")
    assert again.summary == begun.summary
    played.update("d0", "one", "SUCCEEDED")
    second = played.start("d0")
    assert second.summary is not None
    assert second.summary.job == "two"
    played.update("d0", "two", "FAILED")
    assert played.start("d0") == Described(None)


def test_a_job_is_described_by_its_name_or_as_the_next(played: Played) -> None:
    played.job("one", things=["d0"])
    d0, d1, one = ThingName("d0"), ThingName("d1"), JobId("one")
    ask = played.fleet.answer
    (by_name, following, bare) = ask([Describe(d0, one), Describe(d0), Describe(d0, one, with_document=False)])
    assert isinstance(by_name, Described)
    assert by_name == following
    assert by_name.document == DOCUMENT
    assert isinstance(bare, Described)
    assert bare.document is None
    assert ask([Describe(d1)]) == [Described(None)]
    unknown = ask(
        [
            Describe(d1, one),
            Describe(d0, JobId("two")),
            Describe(ThingName("stranger"), one),
            Describe(d0, one, attempt=2),
        ]
    )
    assert [each.why for each in unknown if isinstance(each, Refused)] == [Refusal.NOT_FOUND] * 4
    played.update("d0", "one", "SUCCEEDED")
    (ended,) = ask([Describe(d0, one)])
    assert isinstance(ended, Refused)
    assert ended.why is Refusal.ENDED


def test_an_update_is_answered_with_what_was_asked_for(played: Played) -> None:
    played.job("one", things=["d0"])
    assert played.update("d0", "one", "IN_PROGRESS") == Updated()
    answer = played.update(
        "d0", "one", "IN_PROGRESS", details=StatusDetails({"a": "b"}), with_state=True, with_document=True
    )
    assert isinstance(answer, Updated)
    assert answer.document == DOCUMENT
    assert answer.state is not None
    assert (answer.state.version, answer.state.status, answer.state.details.pairs) == (3, "IN_PROGRESS", {"a": "b"})
    kept = played.update("d0", "one", "SUCCEEDED", with_state=True)
    assert isinstance(kept, Updated)
    assert kept.state is not None
    assert kept.state.details.pairs == {"a": "b"}


def test_an_update_to_what_has_ended_changed_or_is_unknown_is_refused_and_changes_nothing(played: Played) -> None:
    played.job("one", things=["d0"])
    played.update("d0", "one", "IN_PROGRESS")
    mismatch = played.update("d0", "one", "SUCCEEDED", expected_version=1)
    assert isinstance(mismatch, Refused)
    assert mismatch.why is Refusal.VERSION_MISMATCH
    assert mismatch.state is not None
    assert (mismatch.state.version, mismatch.state.status) == (2, "IN_PROGRESS")
    late = played.update("d0", "one", "SUCCEEDED", attempt=7)
    assert isinstance(late, Refused)
    assert late.why is Refusal.INVALID_STATE
    assert isinstance(played.update("d0", "one", "SUCCEEDED", expected_version=2, attempt=1), Updated)
    ended = played.update("d0", "one", "FAILED")
    assert isinstance(ended, Refused)
    assert ended.why is Refusal.INVALID_STATE
    assert ended.state is not None
    assert ended.state.status is ExecutionStatus.SUCCEEDED
    for thing, job in (("d0", "two"), ("d1", "one"), ("stranger", "one")):
        unknown = played.update(thing, job, "FAILED")
        assert isinstance(unknown, Refused)
        assert unknown.why is Refusal.NOT_FOUND
    assert played.counters("one").succeeded == 1


@pytest.mark.parametrize("status", ["QUEUED", "TIMED_OUT", "CANCELED", "REMOVED"])
def test_what_only_the_server_says_is_no_update(status: str) -> None:
    with pytest.raises(ValueError, match="does not say"):
        Update(ThingName("d0"), JobId("one"), ExecutionStatus(status))


def test_many_asks_are_answered_in_order_in_one_transaction(played: Played) -> None:
    played.job("one")
    d0, d1, one = ThingName("d0"), ThingName("d1"), JobId("one")
    succeeded = Update(d0, one, ExecutionStatus.SUCCEEDED, with_state=True)
    answers = played.fleet.answer([StartNext(d0), succeeded, succeeded, GetPending(d0), StartNext(d1)])
    assert isinstance(answers[1], Updated)
    assert answers[1].state is not None
    assert answers[1].state.version == 3
    assert isinstance(answers[2], Refused)
    assert answers[3] == Pending()
    assert played.counters("one").in_progress == 1
    assert played.fleet.answer([]) == []


def test_the_timer_of_the_job_or_of_the_step_ends_an_execution(played: Played) -> None:
    played.job("one", settings=JobSettings(in_progress_minutes=10))
    played.update("d0", "one", "IN_PROGRESS", step_minutes=5)
    played.update("d1", "one", "IN_PROGRESS")
    played.work(4.9)
    assert played.counters("one").in_progress == 2
    played.work(0.2)
    assert (played.counters("one").timed_out, played.counters("one").in_progress) == (1, 1)
    played.told()
    played.work(5)
    assert played.counters("one").timed_out == 2
    assert [(each.thing, each.pending) for each in played.told()] == [("d1", Pending())]
    refused = played.update("d0", "one", "SUCCEEDED")
    assert isinstance(refused, Refused)
    assert refused.state is not None
    assert refused.state.status is ExecutionStatus.TIMED_OUT
    assert played.fleet.job(JobId("one")).campaign.status == "COMPLETED"


def test_what_a_device_was_given_is_remembered(played: Played) -> None:
    played.job("one", things=["d0"])
    played.update("d0", "one", "SUCCEEDED", details=StatusDetails({"a": "b"}))
    played.clock.advance(timedelta(seconds=1))
    played.job("two", things=["d0"])
    history = played.fleet.history(ThingName("d0"))
    assert [(each.job, each.execution.status) for each in history] == [("two", "QUEUED"), ("one", "SUCCEEDED")]
    assert history[1].execution.details.pairs == {"a": "b"}
