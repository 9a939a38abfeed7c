"""Maintenance windows: open or closed, and until when. Cron expressions are read by ``cronsim``; times are in UTC."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from cronsim import CronSim, CronSimError

from instar.model.job import Window

__all__ = ["is_open", "next_change"]


def is_open(windows: Sequence[Window], now: datetime) -> bool:
    """Whether one of the windows is open; without windows it always is."""
    return not windows or any(_closing(window, now) for window in windows)


def next_change(windows: Sequence[Window], now: datetime) -> datetime | None:
    """Give when the answer of :func:`is_open` may change; None where it never does."""
    changes = [_closing(window, now) or _opening(window, now) for window in windows]
    return min((time for time in changes if time), default=None)


def _closing(window: Window, now: datetime) -> datetime | None:
    # The latest opening that is not after now: the search backward begins behind it, and leaves the start out.
    try:
        opened = next(CronSim(window.cron, now.astimezone(UTC) + timedelta(minutes=1), reverse=True))
        if opened > now:
            opened = next(CronSim(window.cron, opened, reverse=True))
    except (StopIteration, CronSimError):
        return None
    closes = opened + timedelta(minutes=window.minutes)
    return closes if now < closes else None


def _opening(window: Window, now: datetime) -> datetime | None:
    try:
        return next(CronSim(window.cron, now.astimezone(UTC)))
    except (StopIteration, CronSimError):
        return None
