"""The clock that a test turns by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from instar.system.clock import Clock
from instar.testing.clock import FakeClock

START = datetime(2026, 5, 1, tzinfo=UTC)


def test_it_stands_still() -> None:
    clock: Clock = FakeClock(START)
    assert clock.now() == clock.now() == START
    assert clock.monotonic() == clock.monotonic()


def test_sleeping_turns_it_and_is_remembered() -> None:
    clock = FakeClock(START)
    clock.sleep(90)
    assert clock.now() == START + timedelta(seconds=90)
    assert clock.monotonic() == 90
    assert clock.slept == [90]


def test_it_can_be_advanced() -> None:
    clock = FakeClock(START)
    clock.advance(timedelta(days=1))
    assert clock.now() == START + timedelta(days=1)
    assert clock.monotonic() == 86400
    assert clock.slept == []


def test_setting_the_time_of_day_lets_no_time_pass() -> None:
    clock = FakeClock(START)
    clock.set(datetime(1970, 1, 1, tzinfo=UTC))
    assert clock.now().year == 1970
    assert clock.monotonic() == 0


def test_each_look_can_cost_time() -> None:
    clock = FakeClock(START, step=2)
    assert clock.monotonic() == 2
    assert clock.monotonic() == 4
    assert clock.now() == START + timedelta(seconds=4)
