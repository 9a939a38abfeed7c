"""The ports to a storage, one small class per capability.

What keeps callers safe (valid keys, bounds, exact lengths, our own error families) sits in the final methods here;
a backend writes only the methods that begin with an underscore, and lets ``OSError`` pass. Whether bytes are the
ones that the owner signed is not asked here: that is for whoever holds the signed digest.
"""

from __future__ import annotations

import contextlib
import errno
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, Self, final

from instar.errors import InstarError, Misconfigured, NotFound, Unavailable, Untrusted
from instar.storage.keys import Key, check_prefix

__all__ = [
    "READ_BLOCK",
    "ConditionalWriter",
    "Exclusive",
    "Listed",
    "Lister",
    "Reader",
    "Stat",
    "Storage",
    "Traffic",
    "Writer",
    "shorter",
    "translated",
]

READ_BLOCK: Final = 256 * 1024
"""Longest block that ``stream`` gives, in bytes: long enough to be fast, short enough to cancel between two."""


@dataclass(frozen=True, slots=True)
class Stat:
    """What a storage says of an object: its size in bytes, and a tag that changes whenever the content does."""

    size: int
    etag: str | None


@dataclass(frozen=True, slots=True)
class Listed:
    """One object of a listing: its key, size in bytes, and when it was written (UTC)."""

    key: Key
    size: int
    modified: datetime


@dataclass(frozen=True, slots=True)
class Traffic:
    """What went over the network: requests sent, bytes received with headers, bytes of content among them."""

    requests: int = 0
    received: int = 0
    content: int = 0

    def __add__(self, other: Traffic) -> Traffic:
        """Add up."""
        return Traffic(
            self.requests + other.requests,
            self.received + other.received,
            self.content + other.content,
        )

    def __sub__(self, other: Traffic) -> Traffic:
        """Give what came after ``other`` was noted."""
        return Traffic(
            self.requests - other.requests,
            self.received - other.received,
            self.content - other.content,
        )


class Reader(ABC):
    """Objects by key, for reading. Safe to use from several threads at once."""

    @final
    def read(self, key: str, *, limit: int) -> bytes:
        """Read a whole object of at most ``limit`` bytes.

        Raises:
            NotFound: there is no such object.
            Unavailable: the storage did not answer, or too slowly.
            Untrusted: the object is longer than ``limit``, or nothing can have this key.
            Misconfigured: the storage refuses us.

        """
        checked = _checked(key)
        data = bytearray()
        with contextlib.closing(_guarded(checked, self._whole(checked, limit))) as blocks:
            for block in blocks:
                data += block
                if len(data) > limit:
                    msg = f"{key} is longer than the {limit} bytes it may have."
                    raise Untrusted(msg, hint="Nothing was changed; tell the publisher.")
        return bytes(data)

    @final
    @contextlib.contextmanager
    def stream(self, key: str, *, start: int = 0, length: int | None = None) -> Iterator[Iterator[bytes]]:
        """Give the ``length`` bytes from ``start`` on (to the end, for None) as blocks of at most ``READ_BLOCK``.

        The blocks add up to exactly what was asked for, or iterating raises. Leaving the ``with`` block early is
        fine. Errors come while iterating.

        Raises:
            NotFound: there is no such object.
            Unavailable: the storage did not answer, stopped in the middle, or is too slow. What was given so far is
                good as far as this port can tell: a caller may go on from there later.
            Untrusted: the object ends before ``start + length``, or nothing can have this key.
            Misconfigured: the storage refuses us.

        """
        if start < 0 or (length is not None and length < 0):
            msg = f"cannot read {length} bytes from {start}"
            raise ValueError(msg)
        checked = _checked(key)
        with contextlib.closing(_exactly(checked, self._guarded_blocks(checked, start, length), length)) as blocks:
            yield blocks

    @final
    def stat(self, key: str) -> Stat:
        """Ask for an object's size and tag.

        For a conditional replacement, ask *before* reading: a change in between is then noticed as a conflict.

        Raises:
            NotFound: there is no such object.
            Unavailable: the storage did not answer.
            Untrusted: nothing can have this key.
            Misconfigured: the storage refuses us.

        """
        checked = _checked(key)
        with translated(checked):
            return self._stat(checked)

    def alternatives(self) -> Sequence[Reader]:
        """Give the independent sources behind this one, the preferred first.

        A caller that finds content wrong by its digest can ask the next one for it.
        """
        return (self,)

    @property
    def traffic(self) -> Traffic:
        """What has gone over the network so far; nothing, for a storage that is not behind one."""
        return Traffic()

    def close(self) -> None:  # noqa: B027  # most backends hold nothing open
        """Let go of connections. The reader can be used again and opens new ones."""

    def __enter__(self) -> Self:
        """Close at the end of a ``with`` block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def _whole(self, key: Key, limit: int) -> Generator[bytes]:
        """Give the object from its start; the caller stops after ``limit`` bytes. Backends may override it."""
        del limit
        return self._blocks(key, 0, None)

    def _guarded_blocks(self, key: Key, start: int, length: int | None) -> Generator[bytes]:
        return _guarded(key, self._blocks(key, start, length))

    @abstractmethod
    def _blocks(self, key: Key, start: int, length: int | None) -> Generator[bytes]:
        """Give blocks of at most ``READ_BLOCK`` from ``start`` on, ending after ``length`` bytes or with the object.

        Raises ``shorter(…)`` when the object ends before ``start``; the rest of the length is checked here.
        """

    @abstractmethod
    def _stat(self, key: Key) -> Stat:
        """Give size and tag."""


class Lister(ABC):
    """What objects there are."""

    @final
    def list(self, prefix: str = "") -> Iterator[Listed]:
        """Give every object whose key begins with ``prefix``, in the order of the keys.

        Raises:
            Unavailable: the storage did not answer.
            Misconfigured: the storage refuses us.
            Untrusted: no key can begin like this.

        """
        try:
            check_prefix(prefix)
        except ValueError as error:
            msg = f"{error}."
            raise Untrusted(msg) from error
        with translated(prefix):
            found = sorted(self._list(prefix), key=lambda listed: listed.key)
        return iter(found)

    @abstractmethod
    def _list(self, prefix: str) -> Iterator[Listed]:
        """Give them, in any order."""


class Writer(ABC):
    """Putting objects there and taking them away."""

    @final
    def write(self, key: str, source: bytes | Path) -> None:
        """Store an object, replacing what is there: readers see the old or the new whole. Durable when it returns.

        Raises:
            Unavailable: it could not be stored (no space, no answer); the old object stands.
            Misconfigured: the storage refuses us.
            Untrusted: nothing can have this key.

        """
        checked = _checked(key)
        with translated(checked, writing=True):
            self._write(checked, source)

    @final
    def delete(self, key: str) -> None:
        """Remove an object. That there is none is no error.

        Raises:
            Unavailable: it could not be removed.
            Misconfigured: the storage refuses us.
            Untrusted: nothing can have this key.

        """
        checked = _checked(key)
        with translated(checked, writing=True):
            self._delete(checked)

    @abstractmethod
    def _write(self, key: Key, source: bytes | Path) -> None:
        """Store it."""

    @abstractmethod
    def _delete(self, key: Key) -> None:
        """Remove it."""


class ConditionalWriter(ABC):
    """Writing only when nobody else did."""

    @final
    def create(self, key: str, source: bytes | Path) -> None:
        """Store an object that does not exist yet. That it exists with the same content is fine.

        Raises:
            Conflict: it exists with other content.
            Unavailable: it could not be stored.
            Misconfigured: the storage refuses us.
            Untrusted: nothing can have this key.

        """
        checked = _checked(key)
        with translated(checked, writing=True):
            self._create(checked, source)

    @final
    def replace(self, key: str, data: bytes, *, expected: str | None) -> None:
        """Store an object in the place of the one whose ``Stat.etag`` is ``expected`` (None: of none).

        Raises:
            Conflict: another one is there, or somebody is replacing it right now.
            Unavailable: it could not be stored; the old object stands.
            Misconfigured: the storage refuses us.
            Untrusted: nothing can have this key.

        """
        checked = _checked(key)
        with translated(checked, writing=True):
            self._replace(checked, data, expected)

    @abstractmethod
    def _create(self, key: Key, source: bytes | Path) -> None:
        """Store it if it is not there."""

    @abstractmethod
    def _replace(self, key: Key, data: bytes, expected: str | None) -> None:
        """Store it if the one there bears the tag ``expected``."""


class Exclusive(ABC):
    """One publisher at a time."""

    @abstractmethod
    def hold(self) -> AbstractContextManager[None]:
        """Keep other publishers out for the length of a ``with`` block.

        Raises:
            Busy: another one is at work (on entering).

        """

    @abstractmethod
    def remove_leftovers(self) -> int:
        """Remove what killed writers left behind; give their number. Only for the one who holds the storage.

        Leftovers are never listed, read or served: this is about the space they take.
        """


class Storage(Reader, Lister, Writer, ConditionalWriter, Exclusive):
    """A storage that a publisher can work on: all the capabilities."""


def _checked(key: str) -> Key:
    # Keys are made from signed names and digests; one that does not fit was signed by somebody who means harm.
    try:
        return Key(key)
    except ValueError as error:
        msg = f"{error}."
        raise Untrusted(msg, hint="Nothing was changed; tell the publisher.") from error


def _guarded(key: Key, blocks: Generator[bytes]) -> Generator[bytes]:
    """Translate errors of the iteration, not only those of its beginning."""
    with contextlib.closing(blocks):
        while True:
            # Only the backend's own step is inside: what the consumer raises while it works on a block is its own.
            with translated(key):
                block = next(blocks, None)
            if block is None:
                return
            yield block


def _exactly(key: Key, blocks: Generator[bytes], length: int | None) -> Generator[bytes]:
    """Give exactly ``length`` bytes, whatever the backend thinks."""
    left = length
    with contextlib.closing(blocks):
        while left is None or left > 0:
            block = next(blocks, None)
            if block is None:
                break
            if left is not None:
                block = block[:left]
                left -= len(block)
            yield block
    if left:
        raise shorter(key, left)


def shorter(key: str, missing: int) -> Untrusted:
    """Make the error that says that an object ends too early."""
    msg = f"{key} is shorter than promised: {missing} bytes are missing at its end."
    return Untrusted(msg, hint="Nothing was changed; try another server, or tell the publisher.")


@contextlib.contextmanager
def translated(key: str, *, writing: bool = False) -> Iterator[None]:
    """Turn the operating system's errors into our families."""
    try:
        yield
    except InstarError:
        raise
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        if writing:
            msg = f"{key} could not be written: {error.strerror or error}."
            raise Unavailable(msg, hint="Check that the storage's folder is there, then try again.") from error
        msg = f"The storage holds no {key}."
        raise NotFound(msg) from error
    except OSError as error:
        what = "written" if writing else "read"
        msg = f"{key or 'The storage'} could not be {what}: {error.strerror or error}."
        if isinstance(error, PermissionError) or error.errno == errno.EROFS:
            raise Misconfigured(msg, hint="Give yourself access to the storage, then try again.") from error
        hint = "Free some space there, then try again." if error.errno == errno.ENOSPC else "Try again."
        raise Unavailable(msg, hint=hint) from error
