import json
from datetime import UTC, datetime, timedelta

import pytest

from instar.model.channel import Channels, Entry, Ramp
from instar.model.names import Name, ProductName
from instar.model.version import Version

NOW = datetime(2026, 5, 1, tzinfo=UTC)
FULL = Entry(
    Version("1.1"),
    percent=12.5,
    salt="s",
    ramp=Ramp(NOW, timedelta(hours=5)),
    conditions={"os": frozenset({"debian", "arch"})},
    requires=1,
    introduces=2,
    halted=True,
    yanked=True,
)


def make(*entries: Entry) -> Channels:
    return Channels(ProductName("myapp"), NOW, {Name("stable"): {Name("linux-x86_64"): entries}})


def test_a_channels_file_reads_what_it_writes() -> None:
    channels = make(Entry(Version("1.0")), FULL)
    again = Channels.from_json(channels.to_json())
    assert again == channels
    assert again.of("stable", "linux-x86_64") == (Entry(Version("1.0")), FULL)
    assert again.of("beta", "linux-x86_64") == again.of("stable", "other") == ()


@pytest.mark.parametrize("versions", [("1.1", "1.0"), ("1.0", "1.0"), ("1.0", "1.0.0")])
def test_a_list_out_of_order_or_with_twins_is_refused(versions: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="order"):
        make(*(Entry(Version(v)) for v in versions))


@pytest.mark.parametrize(
    "change",
    [
        {"percent": -1},
        {"percent": 100.1},
        {"percent": float("nan")},
        {"requires": -1},
        {"requires": 2, "introduces": 2},
        {"ramp": Ramp(datetime(2026, 1, 1), timedelta(1))},  # noqa: DTZ001  # a time without a zone is the point
        {"ramp": Ramp(NOW, timedelta(-1))},
    ],
)
def test_an_entry_that_makes_no_sense_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"."):
        Entry(Version("1.0"), **change)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "damage",
    [
        {"format": "x"},
        {"published": "yesterday"},
        {"published": 3},
        {"channels": []},
        {"channels": {"UP": {}}},
        {"channels": {"stable": {"p": [{"version": "1"}]}}},
        {"channels": {"stable": {"p": [{"version": "1", "percent": 1, "halted": 1}]}}},
        {"channels": {"stable": {"p": [{"version": "1", "percent": 1, "requires": "1"}]}}},
        {"channels": {"stable": {"p": [{"version": "1", "percent": 1, "conditions": {"os": "linux"}}]}}},
        {"channels": {"stable": {"p": [{"version": "1", "percent": 1, "ramp": {"start": 3, "seconds": 1}}]}}},
        {
            "channels": {
                "stable": {
                    "p": [{"version": "1", "percent": 1, "ramp": {"start": "2026-01-01T00:00:00Z", "seconds": 1e99}}]
                }
            }
        },
    ],
)
def test_a_malformed_channels_file_is_refused(damage: dict[str, object]) -> None:
    document = json.loads(make(FULL).to_json()) | damage
    with pytest.raises(ValueError, match=r"."):
        Channels.from_json(json.dumps(document).encode())
