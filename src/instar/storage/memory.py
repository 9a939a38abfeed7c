"""A storage in memory: the twin of the others for tests. It keeps nothing when the process ends."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from instar.errors import Busy, Conflict
from instar.storage.keys import Key
from instar.storage.ports import READ_BLOCK, Listed, Stat, Storage, shorter
from instar.system.clock import Clock, SystemClock

__all__ = ["MemoryStorage"]


@dataclass(frozen=True, slots=True)
class _Object:
    data: bytes
    modified: datetime

    @property
    def etag(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


class MemoryStorage(Storage):
    """Objects in a dictionary. Nothing is ever changed in place, so a reader keeps what it began to read."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock if clock is not None else SystemClock()
        self._objects: dict[Key, _Object] = {}
        self._changing = threading.Lock()
        self._held = threading.Lock()

    def _get(self, key: Key) -> _Object:
        try:
            return self._objects[key]
        except KeyError:
            raise FileNotFoundError(key) from None

    def _blocks(self, key: Key, start: int, length: int | None) -> Generator[bytes]:
        data = self._get(key).data
        if start > len(data):
            raise shorter(key, start - len(data))
        end = len(data) if length is None else min(len(data), start + length)
        for at in range(start, end, READ_BLOCK):
            yield data[at : min(end, at + READ_BLOCK)]

    def _stat(self, key: Key) -> Stat:
        found = self._get(key)
        return Stat(len(found.data), found.etag)

    def _list(self, prefix: str) -> Iterator[Listed]:
        with self._changing:
            objects = list(self._objects.items())
        return (Listed(key, len(found.data), found.modified) for key, found in objects if key.startswith(prefix))

    def _write(self, key: Key, source: bytes | Path) -> None:
        data = _content(source)
        with self._changing:
            self._put(key, data)

    def _delete(self, key: Key) -> None:
        with self._changing:
            self._objects.pop(key, None)

    def _create(self, key: Key, source: bytes | Path) -> None:
        data = _content(source)
        with self._changing:
            old = self._objects.get(key)
            if old is None:
                self._put(key, data)
            elif old.data != data:
                msg = f"The storage already holds another {key}."
                raise Conflict(msg)

    def _replace(self, key: Key, data: bytes, expected: str | None) -> None:
        with self._changing:
            old = self._objects.get(key)
            if (None if old is None else old.etag) != expected:
                msg = f"Somebody else changed {key} in the meantime."
                raise Conflict(msg, hint="Try again: it will start from what is there now.")
            self._put(key, data)

    def _put(self, key: Key, data: bytes) -> None:
        self._objects[key] = _Object(data, self._clock.now())

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Keep other threads' publishers out."""
        if not self._held.acquire(blocking=False):
            msg = "Somebody else is publishing to this storage."
            raise Busy(msg, hint="Try again when they are done.")
        try:
            yield
        finally:
            self._held.release()

    def remove_leftovers(self) -> int:
        """Do nothing: memory has no leftovers."""
        return 0


def _content(source: bytes | Path) -> bytes:
    return source.read_bytes() if isinstance(source, Path) else bytes(source)
