"""Several copies of one storage."""

from __future__ import annotations

from collections.abc import Generator
from datetime import timedelta

import pytest

from instar.errors import InstarError, Misconfigured, NotFound, Unavailable, Untrusted
from instar.storage import Key, MemoryStorage, MirrorReader, Reader, Stat, Traffic
from instar.testing.clock import FakeClock

KEY = "packs/ab/x.pack"
DATA = b"0123456789" * 100
DOWN = Unavailable("The mirror is down.")


class Mirror(Reader):
    """A storage that fails after so many bytes (None: never), or lies."""

    def __init__(
        self,
        data: bytes | None = DATA,
        *,
        fails_after: int | None = None,
        error: InstarError = DOWN,
    ) -> None:
        self.calls = 0
        self.error = error
        self.fails_after = fails_after
        self._storage = MemoryStorage()
        if data is not None:
            self._storage.write(KEY, data)

    def _blocks(self, key: Key, start: int, length: int | None) -> Generator[bytes]:
        self.calls += 1
        given = 0
        with self._storage.stream(key, start=start, length=length) as blocks:
            for byte in b"".join(blocks):
                if given == self.fails_after:
                    raise self.error
                given += 1
                yield bytes([byte])
        if self.fails_after is not None:
            raise self.error

    def _stat(self, key: Key) -> Stat:
        self.calls += 1
        if self.fails_after is not None:
            raise self.error
        return self._storage.stat(key)

    @property
    def traffic(self) -> Traffic:
        return Traffic(requests=self.calls)


def closed() -> Mirror:
    return Mirror(fails_after=0, error=Misconfigured("The mirror asks who you are."))


def part(reader: Reader, start: int = 0, length: int | None = None) -> bytes:
    with reader.stream(KEY, start=start, length=length) as blocks:
        return b"".join(blocks)


def test_the_first_that_works_is_asked_alone() -> None:
    one, two = Mirror(), Mirror()
    reader = MirrorReader([one, two])
    assert part(reader, 10, 5) == DATA[10:15]
    assert reader.read(KEY, limit=1000) == DATA
    assert reader.stat(KEY).size == 1000
    assert (one.calls, two.calls) == (3, 0)


@pytest.mark.parametrize("broken", [Mirror(fails_after=0), Mirror(None), Mirror(DATA[:3])])
def test_the_next_is_asked_when_one_is_down_or_incomplete(broken: Mirror) -> None:
    reader = MirrorReader([broken, Mirror()])
    assert part(reader, 10, 5) == DATA[10:15]


def test_a_mirror_that_refuses_us_does_not_keep_from_the_next() -> None:
    reader = MirrorReader([closed(), Mirror()])
    assert part(reader, 10, 5) == DATA[10:15]
    assert MirrorReader([closed(), Mirror()]).read(KEY, limit=1000) == DATA
    assert MirrorReader([closed(), Mirror()]).stat(KEY).size == 1000


def test_a_stream_goes_on_at_the_next_where_it_broke() -> None:
    one, two = Mirror(fails_after=300), Mirror()
    assert part(MirrorReader([one, two]), 100, 800) == DATA[100:900]
    assert part(MirrorReader([one, two]), 100) == DATA[100:]


def test_a_whole_object_comes_from_one_mirror_alone() -> None:
    assert MirrorReader([Mirror(b"A" * 1000, fails_after=300), Mirror()]).read(KEY, limit=1000) == DATA


def test_endless_data_of_one_mirror_does_not_keep_from_the_next() -> None:
    assert MirrorReader([Mirror(DATA * 2), Mirror()]).read(KEY, limit=1000) == DATA


def test_a_mirror_that_was_down_is_asked_last_for_a_while() -> None:
    clock = FakeClock()
    one, two = Mirror(fails_after=0), Mirror()
    reader = MirrorReader([one, two], clock=clock)
    for _ in range(5):
        part(reader)
    assert (one.calls, two.calls) == (1, 5)
    assert reader.alternatives() == [two, one]
    clock.advance(timedelta(minutes=6))
    one.fails_after = None
    part(reader)
    assert (one.calls, two.calls) == (2, 5)


def test_a_mirror_that_only_lacks_something_is_not_put_last() -> None:
    one, two = Mirror(None), Mirror()
    reader = MirrorReader([one, two])
    part(reader)
    assert reader.alternatives() == [one, two]


@pytest.mark.parametrize(
    ("mirrors", "family"),
    [
        ([Mirror(fails_after=0), Mirror(None)], NotFound),
        ([Mirror(None), Mirror(fails_after=0)], NotFound),
        ([Mirror(fails_after=0), Mirror(DATA * 2)], Untrusted),
        ([Mirror(fails_after=0), closed()], Misconfigured),
        ([closed(), Mirror(None)], NotFound),
        ([Mirror(fails_after=0), Mirror(fails_after=0)], Unavailable),
    ],
)
def test_what_an_answer_says_comes_before_the_lack_of_one(mirrors: list[Mirror], family: type[Exception]) -> None:
    reader = MirrorReader(mirrors)
    with pytest.raises(family) as caught:
        reader.read(KEY, limit=1000)
    assert type(caught.value) is family
    with pytest.raises((Unavailable, Untrusted, Misconfigured)):
        part(reader, 0, 5000)


def test_the_size_is_asked_from_the_next_too() -> None:
    assert MirrorReader([Mirror(fails_after=0), Mirror(None), Mirror()]).stat(KEY).size == 1000
    with pytest.raises(NotFound):
        MirrorReader([Mirror(fails_after=0), Mirror(None)]).stat(KEY)


def test_traffic_is_that_of_all() -> None:
    reader = MirrorReader([Mirror(fails_after=0), Mirror()])
    part(reader)
    part(reader)
    assert reader.traffic == Traffic(requests=3)


def test_no_mirror_at_all_is_a_mistake() -> None:
    with pytest.raises(Misconfigured):
        MirrorReader([])
