"""Several copies of one storage behind one port: when one does not answer, the next is asked."""

from __future__ import annotations

import threading
from collections.abc import Generator, Sequence
from typing import Final

from instar.errors import InstarError, Misconfigured, NotFound, Unavailable, Untrusted
from instar.storage.keys import Key
from instar.storage.ports import Reader, Stat, Traffic
from instar.system.clock import Clock, SystemClock

__all__ = ["MirrorReader"]

# Seconds for which a mirror that did not answer is asked last: so that not every one of a hundred requests waits for
# it again, and that it is taken back soon after a passing failure.
_REST: Final = 300.0
# A mirror that sends too much or too little, or asks who we are, may be half copied, closed or hostile: the next one
# may be none of it.
_FAILURES: Final = (Unavailable, Untrusted, Misconfigured)


class MirrorReader(Reader):
    """The same objects from the first of several readers that gives them.

    A mirror that lies about content cannot be found out here; ``alternatives`` lets the one who knows the digest ask
    another.

    Args:
        mirrors: the copies, the preferred first.
        clock: for how long a mirror that failed is left in peace.

    Raises:
        Misconfigured: there are none.

    """

    def __init__(self, mirrors: Sequence[Reader], *, clock: Clock | None = None) -> None:
        if not mirrors:
            msg = "A repository needs at least one address."
            raise Misconfigured(msg)
        self._mirrors = tuple(mirrors)
        self._clock = clock if clock is not None else SystemClock()
        self._rests_until: dict[int, float] = {}
        self._noting = threading.Lock()

    def alternatives(self) -> Sequence[Reader]:
        """Give the mirrors, those that answered last time first."""
        return [self._mirrors[index] for index in self._order()]

    @property
    def traffic(self) -> Traffic:
        """What has gone over the network, from all mirrors together."""
        return sum((mirror.traffic for mirror in self._mirrors), Traffic())

    def close(self) -> None:
        """Close every mirror."""
        for mirror in self._mirrors:
            mirror.close()

    def _order(self) -> list[int]:
        now = self._clock.monotonic()
        with self._noting:
            resting = {index for index, until in self._rests_until.items() if until > now}
        return sorted(range(len(self._mirrors)), key=lambda index: (index in resting, index))

    def _note(self, index: int, error: InstarError | None) -> None:
        with self._noting:
            if error is None:
                self._rests_until.pop(index, None)
            elif not isinstance(error, NotFound):
                self._rests_until[index] = self._clock.monotonic() + _REST

    def _whole(self, key: Key, limit: int) -> Generator[bytes]:
        # One mirror's object from beginning to end: two may differ for a while in what changes, like the timestamp.
        failures: list[InstarError] = []
        for index in self._order():
            try:
                data = self._mirrors[index].read(key, limit=limit)
            except _FAILURES as error:
                self._note(index, error)
                failures.append(error)
            else:
                self._note(index, None)
                yield data
                return
        raise _worst(failures)

    def _blocks(self, key: Key, start: int, length: int | None) -> Generator[bytes]:
        failures: list[InstarError] = []
        position = start
        for index in self._order():
            left = None if length is None else start + length - position
            try:
                with self._mirrors[index].stream(key, start=position, length=left) as blocks:
                    for block in blocks:
                        position += len(block)
                        yield block
            except _FAILURES as error:
                self._note(index, error)
                failures.append(error)
            else:
                self._note(index, None)
                return
        raise _worst(failures)

    def _stat(self, key: Key) -> Stat:
        failures: list[InstarError] = []
        for index in self._order():
            try:
                found = self._mirrors[index].stat(key)
            except _FAILURES as error:
                self._note(index, error)
                failures.append(error)
            else:
                self._note(index, None)
                return found
        raise _worst(failures)


def _worst(failures: Sequence[InstarError]) -> InstarError:
    """Choose what to tell: that the object is not there, that it is wrong, that we are refused, why nobody answered.

    What an answer says comes before the lack of one. Were it an error that *some* mirror is down, mirrors would make
    nothing more reliable: every refresh asks for the next root, which usually does not exist.
    """
    for family in (NotFound, Untrusted, Misconfigured):
        for error in failures:
            if isinstance(error, family):
                return error
    return failures[0]
