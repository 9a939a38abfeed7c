"""``channels.json``: which releases are offered to whom. Values, invariants and JSON; not who signed it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from instar.model._json import numbers, text, texts
from instar.model.names import Name, ProductName
from instar.model.version import Version

__all__ = ["FORMAT", "MAX_JSON", "Channels", "Entry", "Ramp"]

FORMAT: Final = "instar-channels-1"
# Bytes. Thirty-two live entries for each of a hundred channels and platforms are about one megabyte.
MAX_JSON: Final = 4 << 20
_MAX_PERCENT: Final = 100


@dataclass(frozen=True, slots=True)
class Ramp:
    """A rollout that widens by itself: from 0 at ``start`` to the entry's percentage after ``duration``."""

    start: datetime
    duration: timedelta


@dataclass(frozen=True, slots=True)
class Entry:
    """One release in one channel on one platform.

    ``requires`` and ``introduces`` are checkpoint numbers (0: none); ``conditions`` maps a fact to the values of it
    that are let in; ``salt`` decorrelates who is first from one release to the next.

    Raises:
        ValueError: percent outside 0 to 100, a checkpoint that does not lead upward, a time without a zone.

    """

    version: Version
    percent: float = 100.0
    salt: str = ""
    ramp: Ramp | None = None
    conditions: Mapping[str, frozenset[str]] = field(default_factory=dict)
    requires: int = 0
    introduces: int = 0
    halted: bool = False
    yanked: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.percent <= _MAX_PERCENT:
            msg = f"a rollout's percentage is between 0 and 100, not {self.percent}"
            raise ValueError(msg)
        if min(self.requires, self.introduces) < 0 or 0 < self.introduces <= self.requires:
            msg = f"a release cannot require checkpoint {self.requires} and introduce {self.introduces}"
            raise ValueError(msg)
        if self.ramp and (self.ramp.start.tzinfo is None or self.ramp.duration < timedelta(0)):
            msg = "a ramp needs a start with a time zone and a duration that is not negative"
            raise ValueError(msg)


@dataclass(frozen=True)
class Channels:
    """All channels of one product: ``entries[channel][platform]`` in order of version, oldest first.

    Raises:
        ValueError: a version stands twice in one list, or the list is out of order.

    """

    product: ProductName
    published: datetime
    entries: Mapping[Name, Mapping[Name, tuple[Entry, ...]]]

    def __post_init__(self) -> None:
        for channel, platforms in self.entries.items():
            for platform, entries in platforms.items():
                versions = [entry.version for entry in entries]
                if versions != sorted(set(versions)):
                    msg = f"the channel {channel!s} for {platform!s} is not in order of version, or names one twice"
                    raise ValueError(msg)

    def of(self, channel: str, platform: str) -> tuple[Entry, ...]:
        """Give the entries of a channel on a platform; empty where there are none."""
        return self.entries.get(Name(channel), {}).get(Name(platform), ())

    def to_json(self) -> bytes:
        """Write it, compact and with sorted keys."""
        document = {
            "format": FORMAT,
            "product": self.product,
            "published": _time_to_json(self.published),
            "channels": {
                channel: {platform: [_entry_to_json(e) for e in entries] for platform, entries in platforms.items()}
                for channel, platforms in self.entries.items()
            },
        }
        return json.dumps(document, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Channels:
        """Read and check it.

        Raises:
            ValueError: it is no channels file, of another format, or contradicts itself.

        """
        try:
            document = json.loads(data)
            if document.get("format") != FORMAT:
                msg = (
                    f"the channels file's format is {str(document.get('format'))[:40]!r}, this version reads {FORMAT!r}"
                )
                raise ValueError(msg)
            return cls(
                product=ProductName(document["product"]),
                published=_time_from_json(document["published"]),
                entries={
                    Name(channel): {
                        Name(platform): tuple(_entry_from_json(row) for row in rows)
                        for platform, rows in platforms.items()
                    }
                    for channel, platforms in document["channels"].items()
                },
            )
        except (TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
            msg = f"the channels file is malformed: {error}"
            raise ValueError(msg) from error


def _time_to_json(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _time_from_json(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)


def _entry_to_json(entry: Entry) -> dict[str, Any]:
    row: dict[str, Any] = {"version": str(entry.version), "percent": entry.percent}
    if entry.ramp:
        row["ramp"] = {"start": _time_to_json(entry.ramp.start), "seconds": int(entry.ramp.duration.total_seconds())}
    if entry.conditions:
        row["conditions"] = {fact: sorted(values) for fact, values in entry.conditions.items()}
    for key in ("salt", "requires", "introduces", "halted", "yanked"):
        if value := getattr(entry, key):
            row[key] = value
    return row


def _entry_from_json(row: Mapping[str, Any]) -> Entry:
    ramp = row.get("ramp")
    flags = [row.get(key, False) for key in ("halted", "yanked")]
    requires, introduces = numbers([row.get(key, 0) for key in ("requires", "introduces")], 2)
    if any(type(flag) is not bool for flag in flags):
        msg = "'halted' and 'yanked' are true or false"
        raise TypeError(msg)
    return Entry(
        version=Version(row["version"]),
        percent=float(row["percent"]),
        salt=text(row.get("salt", "")),
        ramp=Ramp(_time_from_json(ramp["start"]), timedelta(seconds=ramp["seconds"])) if ramp else None,
        conditions={text(fact): frozenset(texts(values)) for fact, values in row.get("conditions", {}).items()},
        requires=requires,
        introduces=introduces,
        halted=flags[0],
        yanked=flags[1],
    )
