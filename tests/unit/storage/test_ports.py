"""What the ports guarantee whatever a backend does."""

from __future__ import annotations

import errno
from collections.abc import Generator

import pytest

from instar.errors import InstarError, Misconfigured, NotFound, Unavailable, Untrusted
from instar.storage import Key, Reader, Stat, Traffic


class Sloppy(Reader):
    """A backend that gives these blocks, whatever was asked for, and then fails in this way."""

    def __init__(self, *blocks: bytes, error: Exception | None = None) -> None:
        self.given = 0
        self.closed = False
        self._contents = blocks
        self._error = error

    def _blocks(self, key: Key, start: int, length: int | None) -> Generator[bytes]:
        del key, start, length
        try:
            for block in self._contents:
                self.given += 1
                yield block
            if self._error is not None:
                raise self._error
        finally:
            self.closed = True

    def _stat(self, key: Key) -> Stat:
        del key
        if self._error is not None:
            raise self._error
        return Stat(0, None)


def part(reader: Reader, length: int | None) -> bytes:
    with reader.stream("a", length=length) as blocks:
        return b"".join(blocks)


def test_more_than_was_asked_for_is_cut_off() -> None:
    backend = Sloppy(b"abc", b"def", b"ghi")
    assert part(backend, 4) == b"abcd"
    assert backend.given == 2
    assert backend.closed


def test_less_than_was_asked_for_is_said() -> None:
    with pytest.raises(Untrusted, match="4 bytes are missing"):
        part(Sloppy(b"abc", b"def"), 10)


def test_reading_stops_as_soon_as_the_limit_is_passed() -> None:
    backend = Sloppy(*[b"x" * 10] * 1000)
    with pytest.raises(Untrusted):
        backend.read("a", limit=25)
    assert backend.given == 3
    assert backend.closed


def test_leaving_early_closes_the_backend() -> None:
    backend = Sloppy(b"abc", b"def")
    with backend.stream("a") as blocks:
        assert next(blocks) == b"abc"
    assert backend.closed


@pytest.mark.parametrize(
    ("error", "family"),
    [
        (FileNotFoundError(errno.ENOENT, "gone"), NotFound),
        (NotADirectoryError(errno.ENOTDIR, "no folder"), NotFound),
        (PermissionError(errno.EACCES, "no"), Misconfigured),
        (OSError(errno.EROFS, "read-only"), Misconfigured),
        (OSError(errno.ENOSPC, "full"), Unavailable),
        (OSError(errno.EIO, "broken"), Unavailable),
        (OSError("anything"), Unavailable),
        (Unavailable("already ours"), Unavailable),
    ],
)
def test_errors_in_the_middle_are_of_our_families(error: Exception, family: type[InstarError]) -> None:
    for ask in (
        lambda: part(Sloppy(b"abc", error=error), None),
        lambda: Sloppy(b"abc", error=error).read("a", limit=10),
        lambda: Sloppy(error=error).stat("a"),
    ):
        with pytest.raises(family) as caught:
            ask()
        assert type(caught.value) is family
        assert caught.value is error or caught.value.__cause__ is error


def test_traffic_can_be_added_and_compared() -> None:
    one, two = Traffic(1, 20, 3), Traffic(4, 50, 6)
    assert one + two == Traffic(5, 70, 9)
    assert two - one == Traffic(3, 30, 3)
    assert Sloppy().traffic == Traffic()
