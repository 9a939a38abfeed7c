"""Who is in a rollout. The same answer on every machine that asks, with no server to ask."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime
from typing import Final

from instar.model.channel import Entry

__all__ = ["bucket_of", "current_percent", "fits", "is_in", "meets_conditions"]

BUCKETS: Final = 10_000
"""A rollout is as fine as a hundredth of a percent."""


def bucket_of(device_id: str, product: str, version: str, salt: str) -> int:
    """Give the device's place among ``BUCKETS``: fixed for one release, unrelated from one release to the next."""
    text = f"{device_id}\0{product}\0{version}\0{salt}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % BUCKETS


def current_percent(entry: Entry, now: datetime) -> float:
    """Give the percentage that is in at ``now``, which grows along the entry's ramp and then stays."""
    if entry.ramp is None:
        return entry.percent
    elapsed = (now - entry.ramp.start).total_seconds()
    whole = entry.ramp.duration.total_seconds()
    if elapsed < 0:
        return 0.0
    return entry.percent if elapsed >= whole else entry.percent * elapsed / whole


def meets_conditions(entry: Entry, facts: Mapping[str, str]) -> bool:
    """Whether every fact the entry asks for is known and has one of the values let in."""
    return fits(entry.conditions, facts)


def fits(conditions: Mapping[str, frozenset[str]], facts: Mapping[str, str]) -> bool:
    """Whether every fact that is asked for is known and has one of the values let in."""
    return all(facts.get(fact) in values for fact, values in conditions.items())


def is_in(entry: Entry, *, device_id: str, product: str, facts: Mapping[str, str], now: datetime) -> bool:
    """Whether the release is offered to this device now. Once in, a device stays in while the percentage grows."""
    if entry.halted or entry.yanked or not meets_conditions(entry, facts):
        return False
    bucket = bucket_of(device_id, product, str(entry.version), entry.salt)
    return bucket < round(current_percent(entry, now) * BUCKETS / 100)
