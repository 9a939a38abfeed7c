"""The rules for the way from one release to another, as tables that a person can read.

Rungs are written "order[ flags]", oldest first: ``r1`` requires checkpoint 1, ``i2`` introduces checkpoint 2,
``virtual`` is passed without being installed, ``@x`` is of line x. A device stands at "order[ checkpoint]".
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instar.policy.ladder import Aim, Ladder, Rung, Standing, pick, select_way

NEWER, NEWEST, PENULTIMATE, RETURN = Aim.NEWER, Aim.NEWEST, Aim.PENULTIMATE, Aim.RETURN


def rung(text: str) -> Rung[int]:
    order, *flags = text.split()
    number = {flag[0]: int(flag[1:]) for flag in flags if flag[0] in "ri"}
    return Rung(
        release=int(order),
        order=int(order),
        requires=number.get("r", 0),
        introduces=number.get("i", 0),
        virtual="virtual" in flags,
        line=next((flag for flag in flags if flag.startswith("@")), None),
    )


def ladder(*texts: str) -> Ladder[int]:
    return Ladder.of(rung(text) for text in texts)


def standing(text: str) -> Standing:
    order, checkpoint = (*text.split(), "0")[:2]
    return Standing(int(order), int(checkpoint))


PLAIN = ["10", "20", "30"]
STEPS = ["10", "20 i1", "30 r1", "40 r1 i2", "50 r2"]
CANCELLED = ["10", "20 i2 virtual", "30 r2"]
LINES = ["10 @stable", "20 i1 @stable", "25 i1 @beta", "40 r1 @beta"]

TABLE = [
    # 1. The newest; for the penultimate the one before it. None: nothing.
    (PLAIN, "10", NEWER, [30]),
    ([], "10", NEWER, []),
    (PLAIN, "10", PENULTIMATE, [20]),
    (["10"], "5", PENULTIMATE, []),
    (["10", "20 i1 virtual"], "5", NEWER, [10]),
    (["10", "20 i1 virtual"], "5", PENULTIMATE, []),
    # 2. Past the checkpoint that the newest knows: nothing.
    (PLAIN, "15 1", NEWER, []),
    (PLAIN, "15 1", RETURN, []),
    (STEPS, "60 3", NEWEST, []),
    # 3. Newer only for those who ask for newer: if it runs the newest or a later one, nothing.
    (PLAIN, "30", NEWER, []),
    (PLAIN, "40", NEWER, []),
    (PLAIN, "40", NEWEST, [30]),
    (PLAIN, "40", PENULTIMATE, [20]),
    (PLAIN, "40", RETURN, [30]),
    # 4. Each checkpoint on the way, in order; what one passed is not taken again.
    (STEPS, "10", NEWER, [20, 40, 50]),
    (STEPS, "20 1", NEWER, [40, 50]),
    (STEPS, "30 1", NEWER, [40, 50]),
    (STEPS, "40 2", NEWER, [50]),
    (STEPS, "10", PENULTIMATE, [20, 40]),
    #    One that is passed without being installed only counts.
    (CANCELLED, "10", NEWER, [30]),
    (CANCELLED, "25 2", NEWER, [30]),
    (["10", "20 i1", "21 r1 i2", "30 r2"], "10", NEWER, [20, 21, 30]),
    (["10", "20 i1 virtual", "21 r1 i2 virtual", "30 r2"], "10", NEWER, [30]),
    #    A checkpoint may lead over several at once.
    (["10", "20 i2", "30 r2"], "10", NEWER, [20, 30]),
    #    Only those of the newest's own line.
    (LINES, "10", NEWER, [25, 40]),
    #    Also one that is older than what runs: a device of another stream may not have passed it.
    (["10 i1", "30 r1"], "20", NEWER, [10, 30]),
    # 5. A checkpoint is missing: nothing.
    (["10", "30 r1"], "10", NEWER, []),
    (["10", "20 i1", "50 r2"], "10", NEWER, []),
    (["10", "20 i1", "50 r2"], "10", NEWEST, []),
    #    So is the newest when it requires less than a checkpoint before it passes: that would be skipped.
    (["10 i1", "20"], "5", NEWER, []),
    # 6. No cycles: what runs is not on the way; only who does not know what runs may be sent to it.
    (PLAIN, "30", RETURN, []),
    (PLAIN, "30", NEWEST, [30]),
    (PLAIN, "20", PENULTIMATE, [20]),
    (["10 i1", "30 r1"], "10", NEWER, []),
]


@pytest.mark.parametrize(("rungs", "device", "aim", "way"), TABLE)
def test_the_table_of_rules(rungs: list[str], device: str, aim: Aim, way: list[int]) -> None:
    assert [step.release for step in pick(ladder(*rungs), standing(device), aim)] == way


WAYS = [
    # wide                 narrow           device  aim          may return  way
    (["10", "20"], ["10"], "5", NEWER, False, [20]),
    # The stream alone, when there is no way with the others.
    (["10", "20 r1"], ["10"], "5", NEWER, False, [10]),
    (["10", "20 r1"], ["10"], "15", NEWER, False, []),
    # Back to an older release only for a reason, and only when there is nothing newer.
    (["10", "20"], ["10"], "25", NEWER, False, []),
    (["10", "20"], ["10"], "25", NEWER, True, [20]),
    (["10", "30"], ["10"], "25", NEWER, True, [30]),
    (["10", "20 r1"], ["10"], "25", NEWER, True, [10]),
    # Never a second attempt for the penultimate.
    (["10"], ["10"], "25", PENULTIMATE, True, []),
    (["10"], ["10"], "10", RETURN, True, []),
]


@pytest.mark.parametrize(("wide", "narrow", "device", "aim", "may_return", "way"), WAYS)
def test_the_widest_choice_that_has_a_way_is_taken(  # the columns of the table
    wide: list[str], narrow: list[str], device: str, aim: Aim, may_return: bool, way: list[int]
) -> None:
    found = select_way([ladder(*wide), ladder(*narrow)], standing(device), aim, may_return=may_return)
    assert [step.release for step in found] == way


def test_rungs_of_equal_order_stay_in_the_order_in_which_they_came() -> None:
    rungs = [Rung(name, 1) for name in "ab"]
    assert [rung.release for rung in Ladder.of(rungs).tops] == ["a", "b"]


@st.composite
def pools(draw: st.DrawFn) -> Ladder[int]:
    """Streams as they come to be: some releases vouch for the newest checkpoint, some for an older one, or for none."""
    rungs = []
    for order in range(draw(st.integers(0, 14))):
        requires = draw(st.integers(0, 3))
        introduces = draw(st.sampled_from([0, 0, 0, requires + 1, requires + 2]))
        virtual = bool(introduces) and draw(st.booleans())
        rungs.append(Rung(order, order, requires, introduces, virtual, draw(st.sampled_from("ab"))))
    return Ladder.of(rungs)


devices = st.builds(Standing, st.integers(-1, 15), st.integers(0, 4))


@given(pools(), devices, st.sampled_from(Aim))
def test_on_every_way_each_checkpoint_is_passed_once_and_in_order(
    pool: Ladder[int], device: Standing, aim: Aim
) -> None:
    way = pick(pool, device, aim)
    passed = device.checkpoint
    for step in way:
        # What lies between may only be passed by virtual rungs, each of which leads on from where one stands.
        while step.requires != passed:
            leads_on = [
                rung for rung in pool.rungs if rung.virtual and rung.requires == passed and rung.line == step.line
            ]
            assert leads_on
            passed = leads_on[0].introduces
        assert not step.virtual
        assert step is way[-1] or step.introduces
        passed = max(passed, step.introduces)
    assert len({step.introduces for step in way[:-1]}) == len(way[:-1])
    assert [step.order for step in way] == sorted(step.order for step in way)


@given(pools(), devices)
def test_a_device_that_follows_its_updates_comes_to_an_end(pool: Ladder[int], device: Standing) -> None:
    seen = {device.order}
    while way := pick(pool, device, NEWER):
        device = Standing(way[0].order, max(way[0].requires, way[0].introduces))
        assert device.order not in seen
        seen.add(device.order)


@st.composite
def histories(draw: st.DrawFn) -> Ladder[int]:
    """Streams as a careful publisher makes them: every release requires the newest checkpoint before it."""
    rungs, passed = [], 0
    for order in range(draw(st.integers(1, 14))):
        introduces = passed + draw(st.integers(1, 2)) if draw(st.integers(0, 2)) == 0 else 0
        virtual = bool(introduces) and draw(st.booleans())
        rungs.append(Rung(order, order, passed, introduces, virtual))
        passed = introduces or passed
    return Ladder.of(rungs)


@given(histories(), st.data())
def test_in_a_careful_history_every_device_is_led_to_the_newest(history: Ladder[int], data: st.DataObject) -> None:
    if not history.tops:
        return
    newest = history.tops[-1]
    own = data.draw(st.sampled_from(history.tops))
    device, installed = Standing(own.order, max(own.requires, own.introduces)), []
    while way := pick(history, device, NEWER):
        step = way[0]
        installed.append(step.introduces)
        device = Standing(step.order, max(step.requires, step.introduces))
    assert device.order == newest.order
    due = [rung.introduces for rung in history.tops if own.order < rung.order <= newest.order and rung.introduces]
    assert [introduced for introduced in installed if introduced] == due


@given(histories(), devices)
def test_who_takes_the_first_step_is_then_offered_the_rest_of_the_same_way(
    history: Ladder[int], device: Standing
) -> None:
    way = pick(history, device, NEWEST)
    if len(way) > 1:
        assert pick(history, Standing(way[0].order, way[0].introduces), NEWEST) == way[1:]
