"""The tables of executions and jobs, walked pair by pair and by random histories."""

import itertools
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instar.errors import Conflict
from instar.model.job import Counters, ExecutionStatus, FailureKind, JobStatus, RetryRule, StatusDetails
from instar.policy.jobs import (
    EXECUTION_TABLE,
    JOB_TABLE,
    NO_STEP_TIMEOUT,
    Cancel,
    Event,
    Execution,
    Fail,
    ForceCancel,
    InvalidTransition,
    JobEvent,
    Leave,
    Progress,
    Reject,
    Rejoin,
    Retry,
    Start,
    Succeed,
    TimeOut,
    advance,
    advance_job,
    count,
    may_retry,
)

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
EVENTS = (Start, Progress, Succeed, Fail, Reject, TimeOut, Cancel, ForceCancel, Leave, Retry, Rejoin)
JOB_EVENTS = [event for event in vars(JobEvent).values() if isinstance(event, type)]


def execution_in(status: ExecutionStatus) -> Execution:
    """An execution that came to a status by the shortest way."""
    queued = Execution.queued(NOW)
    if status is ExecutionStatus.QUEUED:
        return queued
    for event in EVENTS:
        if EXECUTION_TABLE.get((ExecutionStatus.QUEUED, event)) is status:
            return advance(queued, event(1), now=NOW)
    assert status is ExecutionStatus.TIMED_OUT
    return advance(advance(queued, Start(1), now=NOW), TimeOut(1), now=NOW)


@pytest.mark.parametrize(("status", "event"), list(itertools.product(ExecutionStatus, EVENTS)))
def test_every_pair_is_in_the_table_or_raises(status: ExecutionStatus, event: type[Event]) -> None:
    execution = execution_in(status)
    assert execution.status is status
    if (status, event) in EXECUTION_TABLE:
        assert advance(execution, event(1), now=NOW).status is EXECUTION_TABLE[status, event]
    else:
        with pytest.raises(InvalidTransition) as caught:
            advance(execution, event(1), now=NOW)
        assert caught.value.status is status
        assert isinstance(caught.value, Conflict)


@pytest.mark.parametrize(("status", "event"), list(itertools.product(JobStatus, JOB_EVENTS)))
def test_every_pair_of_a_job_is_in_the_table_or_raises(status: JobStatus, event: type) -> None:
    if (status, event) in JOB_TABLE:
        assert advance_job(status, event) is JOB_TABLE[status, event]
    else:
        with pytest.raises(InvalidTransition, match=str(status)):
            advance_job(status, event)


def test_only_a_new_attempt_leaves_an_end_and_a_rejection_has_none() -> None:
    leaving = {(status, event) for status, event in EXECUTION_TABLE if status.ended}
    assert leaving == {
        (ExecutionStatus.FAILED, Retry),
        (ExecutionStatus.TIMED_OUT, Retry),
        (ExecutionStatus.REMOVED, Rejoin),
    }
    assert all(to is JobStatus.DELETION_IN_PROGRESS for (status, _), to in JOB_TABLE.items() if status.ended)


def test_an_event_about_another_attempt_is_refused() -> None:
    retried = advance(execution_in(ExecutionStatus.FAILED), Retry(1), now=NOW)
    assert (retried.attempt, retried.version, retried.status) == (2, 1, ExecutionStatus.QUEUED)
    with pytest.raises(InvalidTransition, match="attempt 2, not 1"):
        advance(retried, Succeed(1), now=NOW)


def test_the_version_counts_each_event_and_details_stay_until_others_come() -> None:
    started = advance(Execution.queued(NOW), Start(1, StatusDetails({"step": "1"})), now=NOW + MINUTE)
    assert (started.version, started.started_at, started.details.pairs) == (2, NOW + MINUTE, {"step": "1"})
    silent = advance(started, Progress(1), now=NOW + 2 * MINUTE)
    assert (silent.version, silent.details.pairs, silent.updated_at) == (3, {"step": "1"}, NOW + 2 * MINUTE)
    assert silent.started_at == NOW + MINUTE
    done = advance(silent, Succeed(1, StatusDetails()), now=NOW + 3 * MINUTE)
    assert (done.version, done.details.pairs) == (4, {})


def test_the_first_timer_is_the_one_that_counts() -> None:
    started = advance(Execution.queued(NOW), Start(1, step_minutes=5), now=NOW, timeout=10 * MINUTE)
    assert started.due == NOW + 5 * MINUTE
    # Said anew, but never later than the timer that only the end stops.
    later = advance(started, Progress(1, step_minutes=20), now=NOW + MINUTE)
    assert later.due == NOW + 10 * MINUTE
    assert advance(later, Progress(1), now=NOW + MINUTE).step_deadline == NOW + 21 * MINUTE
    without = advance(started, Progress(1, step_minutes=NO_STEP_TIMEOUT), now=NOW)
    assert (without.step_deadline, without.due) == (None, NOW + 10 * MINUTE)
    assert advance(started, Succeed(1, step_minutes=3), now=NOW).due is None
    assert Execution.queued(NOW).due is None


@pytest.mark.parametrize("minutes", [0, -2, 10_081])
def test_a_step_timeout_has_limits(minutes: int) -> None:
    with pytest.raises(ValueError, match="minutes"):
        Progress(1, step_minutes=minutes)


def test_retries_are_counted_by_why_they_were_needed() -> None:
    rules = [RetryRule(FailureKind.FAILED, 1), RetryRule(FailureKind.TIMED_OUT, 2)]
    execution = Execution.queued(NOW)
    seen = []
    for event in (Fail, TimeOut, TimeOut, Fail):
        execution = advance(execution, Start(execution.attempt), now=NOW)
        execution = advance(execution, event(execution.attempt), now=NOW)
        seen.append(may_retry(rules, execution))
        if seen[-1]:
            execution = advance(execution, Retry(execution.attempt), now=NOW)
    assert seen == [True, True, True, False]
    assert (execution.attempt, execution.failures, execution.timeouts) == (4, 1, 2)
    assert may_retry([RetryRule(FailureKind.ALL, 4)], execution)
    assert not may_retry([RetryRule(FailureKind.ALL, 3)], execution)
    assert not may_retry(rules, execution_in(ExecutionStatus.REJECTED))
    assert not may_retry([RetryRule(FailureKind.TIMED_OUT, 9)], execution_in(ExecutionStatus.FAILED))


def test_who_comes_back_begins_anew() -> None:
    again = advance(execution_in(ExecutionStatus.REMOVED), Rejoin(1), now=NOW + MINUTE)
    assert again == Execution(ExecutionStatus.QUEUED, NOW + MINUTE, NOW + MINUTE, attempt=2)


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from(EVENTS), st.integers(0, 1)), max_size=60))
def test_no_history_leaves_the_table_and_the_counters_always_add_up(
    history: list[tuple[int, type[Event], int]],
) -> None:
    executions = [Execution.queued(NOW)] * 3
    counters = Counters()
    for execution in executions:
        counters = count(counters, None, execution.status)
    for device, kind, late in history:
        before = executions[device]
        try:
            after = advance(before, kind(before.attempt - late), now=NOW)
        except InvalidTransition:
            assert late or (before.status, kind) not in EXECUTION_TABLE
            continue
        assert after.status is EXECUTION_TABLE[before.status, kind]
        assert (after.attempt, after.version) == (
            (before.attempt + 1, 1) if kind in {Retry, Rejoin} else (before.attempt, before.version + 1)
        )
        executions[device] = after
        counters = count(counters, before.status, after.status)
        assert counters.total == len(executions)
        assert all(counters.of(status) == sum(e.status is status for e in executions) for status in ExecutionStatus)
    assert counters.pending + sum(e.status.ended for e in executions) == len(executions)
    assert {each.name for each in fields(Counters)} == {status.name.lower() for status in ExecutionStatus}


def drawn(table: dict[tuple[str, type], str]) -> str:
    """The table as a picture: one arrow for each pair of statuses, with what leads along it."""
    arrows: dict[tuple[str, str], list[str]] = {}
    for (status, event), to in table.items():
        arrows.setdefault((str(status), str(to)), []).append(event.__name__)
    lines = [f"    {a} --> {b}: {', '.join(names)}" for (a, b), names in arrows.items()]
    return "\n".join(["```mermaid", "stateDiagram-v2", *lines, "```"])


@pytest.mark.parametrize("table", [EXECUTION_TABLE, JOB_TABLE], ids=["executions", "jobs"])
def test_the_pictures_in_the_documentation_are_drawn_from_the_tables(table: dict[tuple[str, type], str]) -> None:
    text = (Path(__file__).parents[3] / "docs" / "fleet.md").read_text(encoding="utf-8")
    assert drawn(table) in text, f"docs/fleet.md should hold:\n{drawn(table)}"
