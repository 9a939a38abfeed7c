"""Where in old content some new content came from, without holding either in memory. Publisher's half.

A sample of the old content's shingles (by their hash's value, so that equal content gives equal samples wherever it
lies) is kept sorted. New content's samples are looked up in it, and every hit votes for the window of old content that
it points into.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

__all__ = ["MAX_RUN", "WINDOW", "SampledIndex"]

WINDOW: Final = 64 << 10
"""Bytes of old content that are taken or left together."""

MAX_RUN: Final = 4 << 20
"""Bytes of new content that one region patch makes at most, which bounds memory on both sides."""

_SHINGLE: Final = 32  # bytes; a power of two
_SEGMENT: Final = 16 << 20  # bytes read at once
_RATE: Final = 128  # one shingle of so many is kept, in files that are not huge
_MAX_SAMPLES: Final = 8 << 20  # of one index; 12 bytes each
# A shingle that is in more places than this (zeros, padding) says nothing about where content came from.
_MAX_PLACES: Final = 4

_Array = npt.NDArray[Any]


class SampledIndex:
    """Samples of one old file."""

    def __init__(self, path: Path) -> None:
        self._size = path.stat().st_size
        # Power of two: the hash's low bits decide.
        rate = _RATE
        while self._size // rate > _MAX_SAMPLES:
            rate *= 2
        self._rate = rate
        keys: list[_Array] = []
        places: list[_Array] = []
        with path.open("rb", buffering=0) as file:
            for start in range(0, self._size, _SEGMENT):
                file.seek(start)
                found, at = _samples(file.read(_SEGMENT + _SHINGLE - 1), rate)
                keys.append(found)
                places.append(at + start)
        all_keys = np.concatenate(keys) if keys else np.empty(0, np.uint32)
        all_places = np.concatenate(places) if places else np.empty(0, np.int64)
        order = np.argsort(all_keys, kind="stable")
        self._keys = all_keys[order]
        self._places = all_places[order]

    def windows_like(self, run: bytes) -> list[tuple[int, int]]:
        """Give the parts of the old file most like ``run``: (offset, length), in order, apart from each other.

        Together they are at most some four times as long as the run. None are given where nothing is alike.
        """
        keys, _ = _samples(run, self._rate)
        low = np.searchsorted(self._keys, keys, "left")
        high = np.searchsorted(self._keys, keys, "right")
        hit = (high > low) & (high - low <= _MAX_PLACES)
        if not hit.any():
            return []
        windows, votes = np.unique(self._places[low[hit]] // WINDOW, return_counts=True)
        count = max(4, 2 * (len(run) // WINDOW + 1))
        best = {int(window) for window in windows[np.argsort(-votes, kind="stable")[:count]]}
        # The window behind each, too: content that grew runs over the end.
        return _joined(sorted(best | {window + 1 for window in best}), self._size)


def _joined(windows: Sequence[int], size: int) -> list[tuple[int, int]]:
    parts: list[tuple[int, int]] = []
    for window in windows:
        start, end = window * WINDOW, min((window + 1) * WINDOW, size)
        if start >= end:
            continue
        if parts and sum(parts[-1]) == start:
            parts[-1] = (parts[-1][0], end - parts[-1][0])
        else:
            parts.append((start, end - start))
    return parts


def _samples(data: bytes, rate: int) -> tuple[_Array, _Array]:
    """Give hashes and offsets of the sampled shingles: h_2k(i) = h_k(i) * M^k + h_k(i + k), by doubling."""
    if len(data) < _SHINGLE:
        return np.empty(0, np.uint32), np.empty(0, np.int64)
    with np.errstate(over="ignore"):
        hashes = np.frombuffer(data, np.uint8).astype(np.uint32) * np.uint32(2654435761)
        factor, length = np.uint32(0x01000193), 1
        while length < _SHINGLE:
            hashes = hashes[:-length] * factor + hashes[length:]
            factor, length = factor * factor, 2 * length
        # Mixed, because the low bits decide what is kept (the finaliser of MurmurHash 3).
        hashes ^= hashes >> np.uint32(15)
        hashes *= np.uint32(0x85EBCA6B)
        hashes ^= hashes >> np.uint32(13)
        at = np.flatnonzero((hashes & np.uint32(rate - 1)) == 0)
        return hashes[at], at.astype(np.int64)
