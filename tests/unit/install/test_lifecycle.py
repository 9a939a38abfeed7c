"""The table: every phase with every event, and the rules in it."""

import itertools
from datetime import UTC, datetime, timedelta

import pytest

from instar.errors import Misconfigured
from instar.install import Phase
from instar.install.lifecycle import (
    TABLE,
    Adopted,
    Confirmed,
    Discarded,
    Event,
    Failed,
    RolledBack,
    Scheduled,
    Staged,
    Started,
    Switched,
    follow,
)
from instar.install.state import State, Tree
from instar.testing.installs import release_of

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
ONE, TWO, THREE = (Tree(version, release_of(version)) for version in ("1.0", "2.0", "3.0"))
EMPTY = State(staged=THREE)
STEADY = State(Phase.STEADY, current=TWO, previous=ONE, staged=THREE)
PENDING = State(Phase.PENDING, current=TWO, previous=ONE, staged=THREE)
EVENTS: list[Event] = [
    Adopted(ONE),
    Staged(Tree("4", release_of("4.0"))),
    Scheduled(),
    Discarded(),
    Failed("3.0", "ill", NOW),
    Switched("3.0", proven=False),
    Started(NOW, 3, None),
    Confirmed(),
    RolledBack("2.0", "bad", NOW),
]


@pytest.mark.parametrize(("state", "event"), list(itertools.product([EMPTY, STEADY, PENDING], EVENTS)), ids=str)
def test_every_phase_takes_an_event_or_refuses_it(state: State, event: Event) -> None:
    if (state.phase, type(event)) in TABLE:
        assert isinstance(follow(state, event).state, State)
    else:
        with pytest.raises(Misconfigured):
            follow(state, event)


def test_the_table_names_no_phase_or_event_that_the_walk_leaves_out() -> None:
    assert {event for _, event in TABLE} == {type(event) for event in EVENTS}
    assert len(TABLE) == 21


def test_the_first_release_has_nothing_to_wait_for() -> None:
    state = follow(EMPTY, Switched("3.0", proven=False)).state
    assert (state.phase, state.current, state.previous, state.staged) == (Phase.STEADY, THREE, None, None)


def test_a_switch_makes_what_ran_the_previous_release() -> None:
    state = follow(STEADY, Switched("3.0", proven=False)).state
    assert (state.phase, state.current, state.previous, state.staged) == (Phase.PENDING, THREE, TWO, None)


def test_a_switch_from_an_unconfirmed_release_keeps_the_confirmed_one() -> None:
    assert follow(PENDING, Switched("3.0", proven=False)).state.previous == ONE


def test_a_proven_switch_is_steady_at_once() -> None:
    assert follow(STEADY, Switched("3.0", proven=True)).state.phase is Phase.STEADY


def test_another_tree_than_the_staged_one_is_not_switched_to() -> None:
    with pytest.raises(Misconfigured):
        follow(STEADY, Switched("2.0", proven=False))


def test_another_tree_than_the_running_one_is_not_rolled_back() -> None:
    with pytest.raises(Misconfigured):
        follow(STEADY, RolledBack("3.0", "why", NOW))


def test_a_roll_back_remembers_what_failed_and_keeps_what_is_staged() -> None:
    state = follow(PENDING, RolledBack("2.0", "why", NOW)).state
    assert (state.phase, state.current, state.previous, state.staged) == (Phase.STEADY, ONE, None, THREE)
    assert state.has_failed(TWO.release)
    assert not state.has_failed(ONE.release)


def start(state: State, now: datetime = NOW, *, deadline: float | None = None) -> tuple[State, str | None]:
    following = follow(state, Started(now, 3, deadline))
    return following.state, following.roll_back


def test_the_fourth_unconfirmed_start_rolls_back() -> None:
    state = PENDING
    for count in (1, 2, 3):
        state, roll_back = start(state)
        assert (state.starts, roll_back) == (count, None)
    assert "3 times" in str(start(state)[1])


def test_a_confirmed_release_may_start_as_often_as_it_likes() -> None:
    state = follow(start(PENDING)[0], Confirmed()).state
    assert (state.starts, state.first_start) == (0, None)
    for _ in range(9):
        assert start(state) == (state, None)


def test_without_a_previous_release_there_is_nothing_to_roll_back_to() -> None:
    state = State(Phase.PENDING, current=TWO)
    for _ in range(9):
        state, roll_back = start(state)
        assert roll_back is None


def test_a_start_after_the_deadline_rolls_back() -> None:
    state, _ = start(PENDING, deadline=60)
    assert start(state, NOW + timedelta(seconds=59), deadline=60)[1] is None
    assert "60 seconds" in str(start(state, NOW + timedelta(seconds=61), deadline=60)[1])


def test_a_clock_that_was_not_set_at_the_first_start_does_not_expire_the_deadline() -> None:
    state, _ = start(PENDING, datetime(1970, 1, 1, 0, 1, tzinfo=UTC), deadline=60)
    state, roll_back = start(state, NOW, deadline=60)
    assert roll_back is None
    assert start(state, NOW + timedelta(seconds=61), deadline=60)[1] is not None


def test_a_clock_that_is_set_back_begins_the_deadline_anew() -> None:
    state, _ = start(PENDING, NOW, deadline=60)
    state, roll_back = start(state, datetime(1970, 1, 1, tzinfo=UTC), deadline=60)
    assert roll_back is None
    assert start(state, NOW, deadline=60)[1] is None
