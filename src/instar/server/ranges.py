"""The ``Range`` header of HTTP (RFC 9110, section 14), decided without any I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

__all__ = ["Part", "Unsatisfiable", "select_part"]

_ONE_RANGE: Final = re.compile(r"\s*bytes\s*=\s*(\d{0,18})\s*-\s*(\d{0,18})\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Part:
    """A part of an object: first byte and number of bytes."""

    start: int
    length: int


class Unsatisfiable(Exception):
    """The object has no byte of the range: status 416."""


def select_part(header: str | None, size: int) -> Part | None:
    """Decide which part of an object of ``size`` bytes to send; None for the whole.

    What is not understood is ignored, as the standard says; so are several ranges at once, which would cost the
    server more than they bring anybody.

    Raises:
        Unsatisfiable: it is one range, and it lies outside.

    """
    match = _ONE_RANGE.fullmatch(header or "")
    if match is None or not (match[1] or match[2]):
        return None
    if not match[1]:  # the last so many bytes
        wanted = int(match[2])
        if wanted == 0 or size == 0:
            raise Unsatisfiable
        start = max(0, size - wanted)
        return Part(start, size - start)
    start = int(match[1])
    last = int(match[2]) if match[2] else size - 1
    if match[2] and last < start:
        return None
    if start >= size:
        raise Unsatisfiable
    return Part(start, min(last, size - 1) - start + 1)
