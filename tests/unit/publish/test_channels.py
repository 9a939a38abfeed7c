from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instar.errors import Misconfigured
from instar.model.channel import Channels, Entry, Ramp
from instar.model.names import Name, ProductName
from instar.model.version import Version
from instar.policy.rollout import current_percent
from instar.policy.select import Device, Reason, select_release
from instar.publish import channels as edit
from instar.publish.channels import KEPT_ENTRIES, MAX_ENTRIES, Offer

NOW = datetime(2026, 5, 1, tzinfo=UTC)
LINUX = Name("linux-x86_64")
STABLE = (Name("stable"), LINUX)
BETA = (Name("beta"), LINUX)
NOTHING = Channels(ProductName("app"), NOW, {})


def released(
    *versions: str,
    where: edit.Place = STABLE,
    channels: Channels = NOTHING,
    offer: Offer | None = None,
    checkpoint: bool = False,
    allow_older: bool = False,
) -> Channels:
    for version in versions:
        channels = edit.add_release(
            channels,
            where,
            Version(version),
            offer or Offer(),
            now=NOW,
            checkpoint=checkpoint,
            allow_older=allow_older,
        )
    return channels


def only(channels: Channels, version: str, where: edit.Place = STABLE) -> Entry:
    return next(entry for entry in channels.of(*where) if entry.version == Version(version))


def device(version: str | None, checkpoint: int = 0, **facts: str) -> Device:
    return Device("d1", "app", None if version is None else Version(version), checkpoint, facts)


def test_a_first_release_makes_its_channel() -> None:
    assert [str(e.version) for e in released("1.0").of(*STABLE)] == ["1.0"]
    assert released("1.0").of(*BETA) == ()


def test_a_version_is_offered_once() -> None:
    with pytest.raises(Misconfigured, match=r"1\.0 is already in the channel stable .* instar rollout 1\.0"):
        released("1.0", "1.0")


def test_an_older_version_needs_to_be_meant() -> None:
    with pytest.raises(Misconfigured, match=r"already has 2\.0, which is newer than 1\.9.* --allow-older"):
        released("2.0", "1.9")
    channels = released("1.9", channels=released("2.0"), allow_older=True)
    assert [str(e.version) for e in channels.of(*STABLE)] == ["1.9", "2.0"]


def test_a_checkpoint_is_required_by_what_comes_after_it() -> None:
    channels = released("1.0")
    channels = released("1.1", channels=channels, checkpoint=True)
    channels = released("1.2", channels=channels)
    channels = released("2.0", channels=channels, checkpoint=True)
    channels = released("2.1", channels=channels)
    numbers = [(e.requires, e.introduces) for e in channels.of(*STABLE)]
    assert numbers == [(0, 0), (0, 1), (1, 0), (1, 2), (2, 0)]


def test_an_older_release_beside_checkpoints_requires_what_is_below_it() -> None:
    channels = released("1.2", channels=released("1.1", channels=released("1.0"), checkpoint=True))
    assert only(released("1.0.1", channels=channels, allow_older=True), "1.0.1").requires == 0
    with pytest.raises(Misconfigured, match=r"cannot be put before 1\.2"):
        released("1.1.1", channels=channels, allow_older=True, checkpoint=True)


def test_checkpoints_of_two_channels_never_share_a_number() -> None:
    channels = released("1.1", where=BETA, checkpoint=True)
    channels = released("1.0", channels=channels, checkpoint=True)
    assert only(channels, "1.0").introduces == 2


def test_a_yanked_checkpoint_must_be_replaced_first_and_the_replacement_takes_its_place() -> None:
    channels = released("1.0.1", channels=released("1.0"), checkpoint=True)
    channels = edit.yank(channels, Version("1.0.1"), [STABLE], now=NOW)
    with pytest.raises(Misconfigured, match=r"1\.0\.1, a release that no device may skip, was yanked"):
        released("1.0.2", channels=channels)
    channels = released("1.0.2", channels=channels, checkpoint=True)
    assert (only(channels, "1.0.2").requires, only(channels, "1.0.2").introduces) == (0, 1)


def test_a_checkpoint_on_the_way_of_others_cannot_be_yanked() -> None:
    channels = released("1.1", channels=released("1.0", checkpoint=True))
    with pytest.raises(Misconfigured, match=r"1\.0 cannot be yanked: 1\.1 can only be reached through it"):
        edit.yank(channels, Version("1.0"), [STABLE], now=NOW)
    channels = edit.yank(channels, Version("1.1"), [STABLE], now=NOW)
    assert only(edit.yank(channels, Version("1.0"), [STABLE], now=NOW), "1.0").yanked


def test_devices_on_a_yanked_release_go_back_to_the_newest_good_older_one() -> None:
    channels = released("1.0", "1.1", "1.2", "1.3")
    for version in ("1.3", "1.2"):
        channels = edit.yank(channels, Version(version), [STABLE], now=NOW)
    for version in ("1.3", "1.2"):
        decision = select_release(channels.of(*STABLE), device(version), now=NOW)
        assert decision.entry
        assert (str(decision.entry.version), decision.reason) == ("1.1", Reason.YANKED)
    assert select_release(channels.of(*STABLE), device("1.1"), now=NOW).entry is None


def test_yanking_what_has_left_the_list_puts_it_in_again() -> None:
    channels = released(*(f"1.{n}" for n in range(50)))
    assert len(channels.of(*STABLE)) == KEPT_ENTRIES
    channels = edit.yank(channels, Version("1.3"), [STABLE], now=NOW)
    assert only(channels, "1.3").yanked
    assert only(released("1.50", channels=channels), "1.3").yanked


def test_promoting_keeps_the_conditions_and_takes_the_checkpoint_along() -> None:
    offer = Offer(conditions={"cpu": frozenset({"avx2"})})
    channels = released("2.0", where=BETA, offer=offer, checkpoint=True, channels=released("1.0"))
    channels = edit.promote(channels, Version("2.0"), STABLE, Offer(percent=10), now=NOW)
    entry = only(channels, "2.0")
    assert (entry.percent, entry.conditions, entry.requires, entry.introduces) == (10, offer.conditions, 0, 1)


def test_promoting_without_the_checkpoint_on_the_way_is_refused() -> None:
    channels = released("2.1", where=BETA, channels=released("2.0", where=BETA, checkpoint=True))
    with pytest.raises(Misconfigured, match=r"Promote 2\.0 first"):
        edit.promote(channels, Version("2.1"), STABLE, Offer(), now=NOW)
    channels = edit.promote(channels, Version("2.0"), STABLE, Offer(), now=NOW)
    assert only(edit.promote(channels, Version("2.1"), STABLE, Offer(), now=NOW), "2.1").requires == 1


def test_promoting_something_yanked_older_or_there_already_is_refused() -> None:
    channels = released("1.5", channels=released("1.0", "2.0", where=BETA))
    with pytest.raises(Misconfigured, match="--allow-older"):
        edit.promote(channels, Version("1.0"), STABLE, Offer(), now=NOW)
    with pytest.raises(Misconfigured, match="already in"):
        edit.promote(channels, Version("1.5"), STABLE, Offer(), now=NOW)
    yanked = edit.yank(channels, Version("2.0"), [BETA], now=NOW)
    with pytest.raises(Misconfigured, match="was yanked"):
        edit.promote(yanked, Version("2.0"), STABLE, Offer(), now=NOW)


def test_widening_with_a_ramp_starts_at_what_is_reached() -> None:
    entry = edit.set_percent(Entry(Version("1.0"), percent=10), Offer(100, timedelta(hours=10)), NOW)
    assert current_percent(entry, NOW) == pytest.approx(10, abs=0.01)
    assert current_percent(entry, NOW + timedelta(hours=5)) == pytest.approx(55, abs=0.01)
    assert current_percent(entry, NOW + timedelta(hours=10)) == pytest.approx(100, abs=0.01)
    assert edit.set_percent(entry, Offer(5, timedelta(hours=1)), NOW).ramp is None


def test_a_halt_stops_a_ramp_where_it_is() -> None:
    entry = Entry(Version("1.0"), ramp=Ramp(NOW, timedelta(hours=10)))
    later = NOW + timedelta(hours=4)
    resumed = edit.resume(edit.halt(entry, later))
    assert (resumed.halted, current_percent(resumed, later + timedelta(days=9))) == (False, 40.0)
    assert edit.halt(edit.halt(entry, later), later) == edit.halt(entry, later)


def test_a_yanked_release_cannot_be_rolled_out_again() -> None:
    with pytest.raises(Misconfigured, match="was yanked"):
        edit.set_percent(Entry(Version("1.0"), yanked=True), Offer(), NOW)


def test_edits_touch_only_the_version_and_the_places_named() -> None:
    channels = released("1.0", "1.1", where=BETA, channels=released("1.0", "1.1"))
    changed = edit.edit_entries(channels, Version("1.1"), [STABLE], lambda e: edit.halt(e, NOW), now=NOW)
    assert [e.halted for e in changed.of(*STABLE)] == [False, True]
    assert changed.of(*BETA) == channels.of(*BETA)
    assert edit.places_of(channels, Version("1.1")) == [BETA, STABLE]


def test_the_list_has_a_bound_whatever_is_in_it() -> None:
    kept = edit.trim([Entry(Version(f"1.{n}"), percent=50) for n in range(MAX_ENTRIES + 60)], NOW)
    assert [str(entry.version) for entry in kept] == [f"1.{n}" for n in range(60, MAX_ENTRIES + 60)]


entries = st.builds(
    Entry,
    version=st.just(Version("0")),
    percent=st.sampled_from([0.0, 10.0, 50.0, 100.0, 100.0, 100.0]),
    ramp=st.sampled_from(
        [None, None, None, Ramp(NOW, timedelta(hours=2)), Ramp(NOW - timedelta(1), timedelta(hours=2))]
    ),
    conditions=st.sampled_from(
        [{}, {}, {"a": frozenset("x")}, {"a": frozenset("xy")}, {"a": frozenset("x"), "b": frozenset("z")}],
    ),
    halted=st.sampled_from([False, False, False, True]),
    yanked=st.sampled_from([False, False, False, True]),
)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(entries, min_size=KEPT_ENTRIES + 5, max_size=KEPT_ENTRIES + 40),
    marks=st.sets(st.integers(0, KEPT_ENTRIES + 40), max_size=3),
    device_id=st.text("abc", min_size=1, max_size=3),
    at=st.integers(-1, KEPT_ENTRIES + 40),
    passed=st.integers(0, 3),
    facts=st.dictionaries(st.sampled_from("ab"), st.sampled_from("xyz")),
    hours=st.integers(0, 3),
)
def test_no_device_loses_its_way_when_the_list_is_trimmed(
    rows: list[Entry],
    marks: set[int],
    device_id: str,
    at: int,
    passed: int,
    facts: dict[str, str],
    hours: int,
) -> None:
    checkpoint = 0
    listed = []
    for number, row in enumerate(rows):
        introduces = checkpoint + 1 if number in marks else 0
        listed.append(
            replace(row, version=Version(f"1.{number}"), requires=checkpoint, introduces=introduces),
        )
        checkpoint = introduces or checkpoint
    version = Version(f"1.{at}") if 0 <= at < len(rows) else None
    asked = Device(device_id, "app", version, min(passed, checkpoint), facts)
    later = NOW + timedelta(hours=hours)
    before = select_release(listed, asked, now=later).entry
    after = select_release(edit.trim(listed, NOW), asked, now=later).entry
    newest = max((entry.version for entry in (before, after) if entry), default=None)
    if before is None or (version and before.version > version) or (version is None):
        assert before == after
    else:
        # Going back may lead to another release, but not to nothing while the newest ones are still listed.
        assert after is None or after.version <= version, newest


def test_trimming_a_short_list_changes_nothing() -> None:
    channels = released("1.0", "1.1")
    assert edit.trim(channels.of(*STABLE), NOW) == channels.of(*STABLE)
