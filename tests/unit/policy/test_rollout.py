from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instar.model.channel import Entry, Ramp
from instar.model.version import Version
from instar.policy.rollout import bucket_of, current_percent, is_in, meets_conditions

NOW = datetime(2026, 5, 1, tzinfo=UTC)
ENTRY = Entry(Version("2.0"), salt="x")


def inside(entry: Entry, device: str, now: datetime = NOW) -> bool:
    return is_in(entry, device_id=device, product="app", facts={}, now=now)


def test_the_bucket_is_what_other_clients_compute_too() -> None:
    # First 8 bytes, big-endian, of SHA-256 over "device\0product\0version\0salt", modulo 10,000: docs/formats.md.
    assert bucket_of("device-1", "myapp", "1.2.0", "ab") == 4058


@given(st.text(max_size=20), st.floats(0, 100), st.floats(0, 100))
def test_a_device_that_is_in_stays_in_while_the_percentage_grows(device: str, one: float, two: float) -> None:
    low, high = sorted((one, two))
    if inside(replace(ENTRY, percent=low), device):
        assert inside(replace(ENTRY, percent=high), device)


def test_the_percentage_is_about_the_share_of_devices() -> None:
    share = sum(inside(replace(ENTRY, percent=25), f"device-{n}") for n in range(4000)) / 4000
    assert 0.22 < share < 0.28


def test_nobody_is_in_at_0_and_everybody_at_100() -> None:
    assert not any(inside(replace(ENTRY, percent=0), f"d{n}") for n in range(500))
    assert all(inside(replace(ENTRY, percent=100), f"d{n}") for n in range(500))


def test_another_salt_lets_others_in_first() -> None:
    sets = [{n for n in range(500) if inside(replace(ENTRY, percent=20, salt=salt), f"d{n}")} for salt in "ab"]
    assert len(sets[0] & sets[1]) < len(sets[0]) * 0.5


@pytest.mark.parametrize(("hours", "percent"), [(-1, 0), (0, 0), (5, 40), (10, 80), (99, 80)])
def test_a_ramp_widens_and_then_stays(hours: float, percent: float) -> None:
    entry = replace(ENTRY, percent=80, ramp=Ramp(NOW, timedelta(hours=10)))
    assert current_percent(entry, NOW + timedelta(hours=hours)) == pytest.approx(percent)


def test_a_ramp_without_length_opens_at_its_start() -> None:
    entry = replace(ENTRY, ramp=Ramp(NOW, timedelta(0)))
    assert current_percent(entry, NOW - timedelta(seconds=1)) == 0
    assert current_percent(entry, NOW) == 100


@pytest.mark.parametrize("flag", ["halted", "yanked"])
def test_a_halted_or_yanked_release_is_offered_to_nobody(flag: str) -> None:
    assert not inside(replace(ENTRY, **{flag: True}), "d")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("facts", "met"), [({"os": "arch"}, True), ({"os": "arch", "x": "y"}, True), ({"os": "other"}, False), ({}, False)]
)
def test_every_fact_asked_for_must_be_known_and_fit(facts: dict[str, str], met: bool) -> None:
    entry = replace(ENTRY, conditions={"os": frozenset({"arch", "debian"})})
    assert meets_conditions(entry, facts) is met
