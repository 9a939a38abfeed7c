"""Maintenance windows."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instar.model.job import Window
from instar.policy.windows import is_open, next_change

NIGHT = Window("0 2 * * *", 90)


def at(hour: int, minute: int = 0, second: int = 0) -> datetime:
    return datetime(2026, 11, 21, hour, minute, second, tzinfo=UTC)


def test_without_windows_it_is_always_open() -> None:
    assert is_open((), at(3))
    assert next_change((), at(3)) is None


@pytest.mark.parametrize(
    ("now", "expected", "change"),
    [
        (at(1, 59, 59), False, at(2)),
        (at(2), True, at(3, 30)),
        (at(2, 0, 1), True, at(3, 30)),
        (at(3, 29, 59), True, at(3, 30)),
        (at(3, 30), False, at(2) + timedelta(days=1)),
        (at(23), False, at(2) + timedelta(days=1)),
    ],
)
def test_a_window_is_open_from_its_time_for_its_minutes(now: datetime, expected: bool, change: datetime) -> None:
    assert is_open((NIGHT,), now) is expected
    assert next_change((NIGHT,), now) == change


def test_one_of_several_is_enough_and_the_first_to_change_is_said() -> None:
    windows = (NIGHT, Window("0 12 * * SAT", 60))
    assert is_open(windows, at(12, 30))
    assert next_change(windows, at(11)) == at(12)
    assert next_change(windows, at(12, 30)) == at(13)


def test_times_are_in_utc_wherever_the_clock_stands() -> None:
    tokyo = timezone(timedelta(hours=9))
    assert is_open((NIGHT,), at(2, 30).astimezone(tokyo))
    assert next_change((NIGHT,), at(1).astimezone(tokyo)) == at(2)


@given(st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1)), st.integers(1, 1430))  # noqa: DTZ001
def test_at_the_said_change_it_has_changed_or_another_window_began(naive: datetime, minutes: int) -> None:
    now = naive.replace(tzinfo=UTC)
    window = Window("30 6 * * *", minutes)
    change = next_change((window,), now)
    assert change is not None
    assert change > now
    assert is_open((window,), change) is not is_open((window,), now)
    assert is_open((window,), change - timedelta(seconds=1)) is is_open((window,), now) or change - now < timedelta(
        seconds=1
    )


def test_minutes_that_never_come_are_closed() -> None:
    never = Window("0 0 30 2 *", 5) if _parses("0 0 30 2 *") else Window("0 0 29 2 1#1", 5)
    assert not is_open((never,), at(1))


def _parses(cron: str) -> bool:
    try:
        Window(cron, 5)
    except ValueError:
        return False
    return True
