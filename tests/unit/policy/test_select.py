"""The rules of selection as a table that a person can read.

Entries are written "version[ flags]": ``0%`` nobody is let in, ``halted``, ``yanked``, ``r1`` requires checkpoint 1,
``i1`` introduces checkpoint 1 (with r0 unless said).
"""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instar.model.channel import Entry
from instar.model.version import Version
from instar.policy.select import Decision, Device, Direction, Reason, select_release

NOW = datetime(2026, 5, 1, tzinfo=UTC)


def entry(text: str) -> Entry:
    version, *flags = text.split()
    found = Entry(Version(version))
    for flag in flags:
        if flag in {"halted", "yanked"}:
            found = replace(found, **{flag: True})  # type: ignore[arg-type]
        elif flag.endswith("%"):
            found = replace(found, percent=float(flag[:-1]))
    requires = next((int(f[1:]) for f in flags if f[0] == "r"), 0)
    introduces = next((int(f[1:]) for f in flags if f[0] == "i"), 0)
    return replace(found, requires=requires, introduces=introduces)


def device(version: str | None, checkpoint: int = 0, failed: str = "") -> Device:
    return Device(
        id="device",
        product="app",
        version=Version(version) if version else None,
        checkpoint=checkpoint,
        failed=frozenset(Version(v) for v in failed.split()),
    )


TABLE = [
    # entries                                   device            checkpoint failed  →  choice  reason
    ([], "1.0", 0, "", None, Reason.NOT_IN_CHANNEL),
    (["1.0"], "1.0", 0, "", None, Reason.UP_TO_DATE),
    (["1.0", "1.1", "1.2"], "1.0", 0, "", "1.2", Reason.NEWER),
    (["1.0", "1.1", "1.2"], None, 0, "", "1.2", Reason.NEWER),
    (["1.0", "1.1", "1.2 0%"], "1.0", 0, "", "1.1", Reason.NEWER),
    (["1.0", "1.1 0%"], "1.0", 0, "", None, Reason.NOT_YET),
    (["1.0", "1.1 halted"], "1.0", 0, "", None, Reason.UP_TO_DATE),
    (["1.0", "1.1 yanked"], "1.0", 0, "", None, Reason.UP_TO_DATE),
    # Never down by itself, also when the installed release is not in the channel any more.
    (["1.0"], "1.1", 0, "", None, Reason.UP_TO_DATE),
    (["1.0", "1.1 halted"], "1.1", 0, "", None, Reason.UP_TO_DATE),
    # A withdrawn release is left, upward where possible, else downward.
    (["1.0", "1.1 yanked"], "1.1", 0, "", "1.0", Reason.YANKED),
    (["1.0", "1.1 yanked", "1.2"], "1.1", 0, "", "1.2", Reason.NEWER),
    (["1.0 yanked", "1.1 yanked"], "1.1", 0, "", None, Reason.UP_TO_DATE),
    # What failed here is not tried again; something else may be.
    (["1.0", "1.1"], "1.0", 0, "1.1", None, Reason.FAILED_HERE),
    (["1.0", "1.1", "1.2"], "1.0", 0, "1.2", "1.1", Reason.NEWER),
    (["1.0"], None, 0, "1.0", None, Reason.FAILED_HERE),
    # Checkpoints are taken one after the other and never skipped.
    (["1.0", "2.0 i1", "3.0 r1"], "1.0", 0, "", "2.0", Reason.CHECKPOINT),
    (["1.0", "2.0 i1", "3.0 r1"], "2.0", 1, "", "3.0", Reason.NEWER),
    (["1.0", "2.0 i1", "3.0 r1 i2", "4.0 r2"], "1.0", 0, "", "2.0", Reason.CHECKPOINT),
    (["1.0", "2.0 i1", "3.0 r1 i2", "4.0 r2"], "2.0", 1, "", "3.0", Reason.CHECKPOINT),
    (["1.0", "2.0 i1"], "1.0", 0, "", "2.0", Reason.NEWER),
    (["1.0", "1.5", "2.0 i1 halted", "3.0 r1"], "1.0", 0, "", "1.5", Reason.NEWER),
    (["2.0 i1 halted", "3.0 r1"], "1.0", 0, "", None, Reason.CHECKPOINT_MISSING),
    # A first install has nothing to migrate.
    (["1.0", "2.0 i1", "3.0 r1"], None, 0, "", "3.0", Reason.NEWER),
    # A release for devices that have not passed a checkpoint is nothing for one that has.
    (["1.0", "2.0 i1", "2.1 r0"], "2.0", 1, "", None, Reason.CHECKPOINT_MISSING),
]


@pytest.mark.parametrize(("entries", "version", "checkpoint", "failed", "choice", "reason"), TABLE)
def test_the_table_of_rules(  # the columns of the table
    entries: list[str], version: str | None, checkpoint: int, failed: str, choice: str | None, reason: Reason
) -> None:
    decision = select_release([entry(e) for e in entries], device(version, checkpoint, failed), now=NOW)
    assert (decision.entry and str(decision.entry.version), decision.reason) == (choice, reason)


def test_a_channel_switch_may_go_down_and_says_so() -> None:
    decision = select_release([entry("1.0")], device("2.0b1"), now=NOW, direction=Direction.ANY)
    assert decision == Decision(entry("1.0"), Reason.CHANNEL_SWITCH)


@pytest.mark.parametrize("carried", ["1.1", "1.1 halted", "1.1 0%"])
def test_a_switch_to_a_channel_that_carries_what_is_installed_stays_there(carried: str) -> None:
    decision = select_release([entry("1.0"), entry(carried)], device("1.1"), now=NOW, direction=Direction.ANY)
    assert decision == Decision(None, Reason.UP_TO_DATE)


@pytest.mark.parametrize("direction", Direction)
def test_nothing_goes_below_the_security_floor(direction: Direction) -> None:
    entries = [entry("1.0"), entry("1.1 yanked")]
    decision = select_release(entries, device("1.1"), now=NOW, floor=Version("1.1"), direction=direction)
    assert decision.entry is None
    decision = select_release(entries[:1], device("1.1"), now=NOW, floor=Version("1.1"), direction=direction)
    assert decision == Decision(None, Reason.BELOW_FLOOR)


@st.composite
def chains(draw: st.DrawFn) -> list[Entry]:
    """Channels as a publisher makes them: every release requires the newest checkpoint before it."""
    entries, checkpoint = [], 0
    for number in range(1, draw(st.integers(1, 12)) + 1):
        introduces = checkpoint + 1 if draw(st.integers(0, 3)) == 0 else 0
        entries.append(Entry(Version(str(number)), requires=checkpoint, introduces=introduces))
        checkpoint = introduces or checkpoint
    return entries


@given(chains())
def test_every_device_reaches_the_newest_and_takes_each_checkpoint_once(entries: list[Entry]) -> None:
    now_at, taken = device("0.1"), []
    while (decision := select_release(entries, now_at, now=NOW)).entry is not None:
        step = decision.entry
        assert now_at.version is not None
        assert step.version > now_at.version
        taken += [step.introduces] if step.introduces else []
        now_at = replace(now_at, version=step.version, checkpoint=max(step.requires, step.introduces))
    assert now_at.version == entries[-1].version
    assert taken == [e.introduces for e in entries if e.introduces]
