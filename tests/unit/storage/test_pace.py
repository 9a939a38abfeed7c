"""How long a call may take, in pure time."""

from __future__ import annotations

from datetime import timedelta

import pytest

from instar.storage._pace import Pace, TooSlow
from instar.testing.clock import FakeClock


def make(clock: FakeClock, *, total: float | None = 100.0, least_speed: float = 10.0) -> Pace:
    pace = Pace(clock, total=total, silence=20.0, least_speed=least_speed, window=10.0)
    pace.resume()
    pace.begin_attempt()
    pace.end_head()
    return pace


def pass_time(clock: FakeClock, seconds: float) -> None:
    clock.advance(timedelta(seconds=seconds))


def test_nobody_waits_longer_for_a_byte_than_silence_and_total_allow() -> None:
    clock = FakeClock()
    pace = make(clock)
    assert pace.patience() == 20
    pass_time(clock, 95)
    assert pace.patience() == pytest.approx(5)
    pass_time(clock, 5)
    with pytest.raises(TooSlow, match="100 seconds"):
        pace.patience()


def test_without_a_total_there_is_only_silence() -> None:
    clock = FakeClock()
    pace = make(clock, total=None)
    pass_time(clock, 1e6)
    assert pace.patience() == 20
    assert pace.left() is None


def test_the_least_speed_holds_for_each_window() -> None:
    clock = FakeClock()
    pace = make(clock, total=None)
    for _ in range(5):
        pass_time(clock, 10)
        pace.note(100)
    pass_time(clock, 10)
    with pytest.raises(TooSlow, match="and 10 is the least"):
        pace.note(99)


def test_a_fast_beginning_does_not_pay_for_a_slow_end() -> None:
    clock = FakeClock()
    pace = make(clock, total=None)
    pass_time(clock, 10)
    pace.note(1_000_000)
    pass_time(clock, 10)
    with pytest.raises(TooSlow):
        pace.note(1)


def test_within_a_window_it_may_come_in_bursts() -> None:
    clock = FakeClock()
    pace = make(clock, total=None)
    pass_time(clock, 9)
    pace.note(1)
    pass_time(clock, 1)
    pace.note(99)


def test_a_new_attempt_does_not_pay_for_the_last_one() -> None:
    clock = FakeClock()
    pace = make(clock, total=None)
    pass_time(clock, 9)
    pace.begin_attempt()
    pass_time(clock, 9)
    pace.note(1)


def test_a_pause_costs_nothing() -> None:
    clock = FakeClock()
    pace = make(clock)
    for _ in range(50):
        pace.pause()
        pass_time(clock, 60)
        pace.resume()
        pass_time(clock, 1)
        pace.note(10)
    assert pace.left() == pytest.approx(50)


def test_resuming_twice_counts_once() -> None:
    clock = FakeClock()
    pace = make(clock)
    pass_time(clock, 30)
    pace.resume()
    assert pace.left() == pytest.approx(70)


def test_headers_have_an_end() -> None:
    pace = make(FakeClock())
    pace.begin_attempt()
    pace.note(256 * 1024)
    with pytest.raises(TooSlow, match="headers"):
        pace.note(1)
    pace.begin_attempt()
    pace.end_head()
    pace.note(10_000_000)
    assert pace.received == 256 * 1024 + 1 + 10_000_000
