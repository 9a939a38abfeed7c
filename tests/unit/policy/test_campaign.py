"""What a job does by itself: pace, windows, schedule, abort, and that it always ends."""

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
    JobStatus,
    RetryRule,
    Schedule,
    Selection,
    Window,
)
from instar.policy.campaign import (
    Begin,
    Campaign,
    Complete,
    Drop,
    End,
    Erase,
    GiveOut,
    Pace,
    Plan,
    Step,
    Sweep,
    Wait,
    judge_abort,
    next_step,
    rate_now,
)
from instar.policy.jobs import (
    JOB_TABLE,
    Cancel,
    Execution,
    Fail,
    ForceCancel,
    JobEvent,
    Reject,
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
HOUR = timedelta(hours=1)
RUNNING = Campaign(JobStatus.IN_PROGRESS, JobSettings(), planned=True)


def running(settings: JobSettings, **changes: object) -> Campaign:
    return replace(RUNNING, settings=settings, **changes)  # type: ignore[arg-type]


def test_a_job_begins_when_its_time_has_come() -> None:
    later = JobSettings(schedule=Schedule(start=NOW + HOUR))
    assert next_step(Campaign(JobStatus.SCHEDULED, JobSettings()), NOW) == Begin()
    assert next_step(Campaign(JobStatus.SCHEDULED, later), NOW) == Wait(NOW + HOUR)
    assert next_step(Campaign(JobStatus.SCHEDULED, later), NOW + HOUR) == Begin()
    assert next_step(Campaign(JobStatus.AWAITING_APPROVAL, later), NOW + HOUR) == Wait()


def test_devices_are_found_before_the_job_is_given_out() -> None:
    assert next_step(replace(RUNNING, planned=False), NOW) == Plan()
    assert next_step(replace(RUNNING, waiting=7), NOW) == GiveOut(None)


def test_a_snapshot_is_complete_when_all_have_ended_and_a_continuous_job_only_when_it_is_closed() -> None:
    ended = Counters(succeeded=1, failed=2)
    assert next_step(replace(RUNNING, counters=ended), NOW) == Complete()
    assert next_step(replace(RUNNING, counters=ended, status=JobStatus.PAUSED), NOW) == Complete()
    assert next_step(replace(RUNNING, counters=replace(ended, in_progress=1)), NOW) == Wait()
    assert next_step(replace(RUNNING, counters=replace(ended, queued=1)), NOW) == Wait()
    continuous = running(JobSettings(selection=Selection.CONTINUOUS), counters=ended)
    assert next_step(continuous, NOW) == Wait()
    assert next_step(replace(continuous, closed=True), NOW) == Complete()
    assert next_step(replace(continuous, closed=True, waiting=3), NOW) == Drop()


def test_a_constant_rate_reaches_so_many_each_minute() -> None:
    campaign = running(JobSettings(rollout=ConstantRate(100)), waiting=250)
    assert next_step(campaign, NOW) == GiveOut(100)
    given_some = replace(campaign, waiting=220, pace=campaign.pace.after(30, NOW))
    assert next_step(given_some, NOW + timedelta(seconds=20)) == GiveOut(70)
    spent = replace(given_some, waiting=150, pace=given_some.pace.after(70, NOW + timedelta(seconds=20)))
    assert next_step(spent, NOW + timedelta(seconds=59)) == Wait(NOW + timedelta(minutes=1))
    assert next_step(spent, NOW + timedelta(minutes=1)) == GiveOut(100)
    assert next_step(replace(spent, waiting=3), NOW + timedelta(minutes=2)) == GiveOut(3)
    # A clock that was set back stops nothing.
    assert next_step(spent, NOW - HOUR) == GiveOut(100)
    assert Pace(NOW, 5).after(2, NOW + timedelta(minutes=1)) == Pace(NOW + timedelta(minutes=1), 2)


@pytest.mark.parametrize(
    ("counting", "counters", "rate"),
    [
        (Counting.NOTIFIED, Counters(), 50),
        (Counting.NOTIFIED, Counters(queued=999), 50),
        (Counting.NOTIFIED, Counters(queued=500, failed=500), 100),
        (Counting.NOTIFIED, Counters(queued=2_000), 200),
        (Counting.NOTIFIED, Counters(queued=4_000), 500),
        (Counting.NOTIFIED, Counters(queued=10**9), 500),
        (Counting.SUCCEEDED, Counters(queued=5_000), 50),
        (Counting.SUCCEEDED, Counters(succeeded=1_000), 100),
    ],
)
def test_an_exponential_rate_grows_with_what_was_reached(counting: Counting, counters: Counters, rate: int) -> None:
    rollout = ExponentialRate(50, 2.0, 1_000, counting, maximum_per_minute=500)
    assert rate_now(rollout, counters) == rate


def test_a_growth_beyond_numbers_is_the_maximum() -> None:
    assert rate_now(ExponentialRate(1, 5.0, 1, Counting.NOTIFIED), Counters(queued=900)) == 1_000


def test_outside_its_windows_a_job_is_given_to_nobody_else() -> None:
    nightly = Schedule(windows=(Window("0 2 * * *", 120),))
    campaign = running(JobSettings(schedule=nightly), waiting=5)
    assert next_step(campaign, NOW) == Wait(datetime(2026, 11, 22, 2, tzinfo=UTC))
    assert next_step(campaign, datetime(2026, 11, 22, 3, 59, tzinfo=UTC)) == GiveOut(None)
    ending = replace(nightly, end=NOW + HOUR)
    assert next_step(running(JobSettings(schedule=ending), waiting=5), NOW) == Wait(NOW + HOUR)


@pytest.mark.parametrize("behavior", EndBehavior)
@pytest.mark.parametrize(
    "status", [JobStatus.AWAITING_APPROVAL, JobStatus.SCHEDULED, JobStatus.IN_PROGRESS, JobStatus.PAUSED]
)
def test_the_end_of_the_schedule_comes_to_every_job_that_is_not_done(behavior: EndBehavior, status: JobStatus) -> None:
    settings = JobSettings(schedule=Schedule(end=NOW, at_end=behavior))
    assert next_step(Campaign(status, settings, waiting=4), NOW) == End(behavior)


def test_what_was_cancelled_is_swept_until_nothing_is_queued() -> None:
    cancelled = Campaign(JobStatus.CANCELED, JobSettings(), Counters(queued=3, in_progress=2), waiting=1)
    assert next_step(cancelled, NOW) == Drop()
    assert next_step(replace(cancelled, waiting=0), NOW) == Sweep(force=False)
    swept = replace(cancelled, waiting=0, counters=Counters(in_progress=2, canceled=3))
    assert next_step(swept, NOW) == Wait()
    assert next_step(replace(swept, force=True), NOW) == Sweep(force=True)
    deleting = replace(swept, status=JobStatus.DELETION_IN_PROGRESS)
    assert next_step(deleting, NOW) == Sweep(force=True)
    assert next_step(replace(deleting, counters=Counters(canceled=5)), NOW) == Erase()
    assert next_step(replace(swept, status=JobStatus.COMPLETED), NOW) == Wait()


@pytest.mark.parametrize(
    ("counters", "stops"),
    [
        (Counters(failed=9), False),
        (Counters(failed=10), True),
        (Counters(failed=1, succeeded=19), True),
        (Counters(failed=1, succeeded=20), False),
        (Counters(rejected=10, timed_out=10), False),
        (Counters(failed=1, succeeded=5, canceled=100, queued=100, in_progress=100, removed=100), False),
    ],
)
def test_a_rule_stops_the_job_at_its_share_of_what_was_executed(counters: Counters, stops: bool) -> None:
    rule = AbortRule(FailureKind.FAILED, 5, 10)
    assert judge_abort((rule,), counters) == (rule if stops else None)


@pytest.mark.parametrize("kind", FailureKind)
def test_each_rule_looks_at_its_own_kind_of_failure(kind: FailureKind) -> None:
    rule = AbortRule(kind, 50, 1)
    for name in ("failed", "rejected", "timed_out"):
        counters = Counters(**{name: 1})
        assert (judge_abort((rule,), counters) is rule) is (kind is FailureKind.ALL or kind.name.lower() == name)


rollouts = st.one_of(
    st.none(),
    st.builds(ConstantRate, st.integers(1, 5)),
    st.builds(ExponentialRate, st.integers(1, 3), st.just(2.0), st.integers(1, 3), st.sampled_from(Counting)),
)


class Play:
    """A job with its devices, which start what they are given, and answer or fall silent until the timer ends it."""

    def __init__(self, settings: JobSettings, devices: int, answers: list[str]) -> None:
        self.campaign = Campaign(JobStatus.SCHEDULED, settings)
        self.executions: list[Execution] = []
        self.devices = devices
        self.answers = itertools.cycle(answers)

    def work(self, now: datetime) -> None:
        """All the steps of one moment."""
        for _ in range(100):
            step = next_step(self.campaign, now)
            if isinstance(step, Wait):
                assert step.until is None or step.until > now
                return
            self.take(step, now)
            assert self.campaign.counters.total == len(self.executions)
        pytest.fail("a worker would never rest")

    def take(self, step: Step, now: datetime) -> None:
        campaign = self.campaign
        match step:
            case Begin():
                self.happen(JobEvent.Begin)
            case Complete():
                self.happen(JobEvent.Complete)
            case Plan():
                self.campaign = replace(campaign, planned=True, waiting=self.devices)
            case GiveOut(number):
                self.give_out(campaign.waiting if number is None else number, now)
            case End(EndBehavior.STOP_ROLLOUT):
                self.campaign = replace(campaign, closed=True)
            case End(how):
                self.campaign = replace(campaign, closed=True)
                self.happen(JobEvent.Cancel, force=how is EndBehavior.FORCE_CANCEL)
            case Drop():
                self.campaign = replace(campaign, waiting=0)
            case Sweep(force):
                self.sweep(now, force=force)
            case _:
                pytest.fail(f"nobody asked for {step}")

    def happen(self, event: type, *, force: bool = False) -> None:
        self.campaign = replace(self.campaign, status=advance_job(self.campaign.status, event), force=force)

    def give_out(self, number: int, now: datetime) -> None:
        assert 0 < number <= self.campaign.waiting
        for _ in range(number):
            self.executions.append(Execution.queued(now))
            counters = count(self.campaign.counters, None, ExecutionStatus.QUEUED)
            self.campaign = replace(self.campaign, counters=counters)
        pace = self.campaign.pace.after(number, now)
        self.campaign = replace(self.campaign, waiting=self.campaign.waiting - number, pace=pace)

    def sweep(self, now: datetime, *, force: bool) -> None:
        for n, execution in enumerate(self.executions):
            if execution.status is ExecutionStatus.QUEUED or (force and not execution.status.ended):
                self.become(n, advance(execution, (ForceCancel if force else Cancel)(execution.attempt), now=now))

    def become(self, n: int, after: Execution) -> None:
        counters = count(self.campaign.counters, self.executions[n].status, after.status)
        self.campaign = replace(self.campaign, counters=counters)
        self.executions[n] = after

    def live(self, now: datetime) -> None:
        """What the devices and their timers do in one minute."""
        settings = self.campaign.settings
        for n, execution in enumerate(self.executions):
            if execution.status.ended or (execution.due and execution.due > now):
                continue
            after = self.answer(execution, now)
            if may_retry(settings.retries, after) and not self.campaign.status.ended:
                after = advance(after, Retry(after.attempt), now=now)
            self.become(n, after)
        if not self.campaign.status.ended and judge_abort(settings.abort, self.campaign.counters):
            self.happen(JobEvent.Cancel)

    def answer(self, execution: Execution, now: datetime) -> Execution:
        if execution.status is ExecutionStatus.IN_PROGRESS:
            return advance(execution, TimeOut(execution.attempt), now=now)
        answer = next(self.answers)
        if answer == "quick":
            return advance(execution, Succeed(execution.attempt), now=now)
        timeout = self.campaign.settings.in_progress_timeout
        started = advance(execution, Start(execution.attempt), now=now, timeout=timeout)
        kind = {"ok": Succeed, "fail": Fail, "reject": Reject}.get(answer)
        return advance(started, kind(started.attempt), now=now) if kind else started

    def meddle(self, what: str | None) -> None:
        # What was paused is resumed by somebody, or it would rest for ever, as it was told.
        if what is None and self.campaign.status is JobStatus.PAUSED:
            what = "resume"
        events = {"pause": JobEvent.Pause, "resume": JobEvent.Resume, "cancel": JobEvent.Cancel}
        event = events.get((what or "").removeprefix("force "))
        if event and (self.campaign.status, event) in JOB_TABLE:
            self.happen(event, force=(what or "").startswith("force"))


settings = st.builds(
    JobSettings,
    rollout=rollouts,
    retries=st.lists(st.builds(RetryRule, st.just(FailureKind.ALL), st.integers(1, 3)), max_size=1).map(tuple),
    abort=st.sampled_from([(), (AbortRule(FailureKind.ALL, 50, 2),)]),
    in_progress_minutes=st.just(2),
    schedule=st.builds(
        Schedule,
        end=st.one_of(st.none(), st.integers(1, 60).map(lambda minutes: NOW + timedelta(minutes=minutes))),
        at_end=st.sampled_from(EndBehavior),
    ),
)


@given(
    settings,
    st.integers(0, 12),
    st.lists(st.sampled_from(["ok", "fail", "reject", "silent", "quick"]), min_size=1, max_size=40),
    st.dictionaries(st.integers(0, 30), st.sampled_from(["pause", "cancel", "force cancel", "resume"]), max_size=3),
)
def test_a_job_always_ends_and_its_counters_add_up_all_the_way(
    settings: JobSettings, devices: int, answers: list[str], meddling: dict[int, str]
) -> None:
    play = Play(settings, devices, answers)
    for minute in range(200):
        now = NOW + timedelta(minutes=minute)
        play.work(now)
        if play.campaign.status.ended and not play.campaign.counters.pending:
            return
        play.live(now)
        play.meddle(meddling.get(minute))
    pytest.fail(f"the job never ended: {play.campaign}")
