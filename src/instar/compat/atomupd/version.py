"""Versions and build ids of images, as lenient as the manifests that were written for the older programs."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Final

__all__ = ["SNAPSHOT", "BuildId", "ImageVersion"]

SNAPSHOT: Final = "snapshot"
"""What stands in place of a version for an image that has none."""

_NUMBERS: Final = re.compile(r"\d+(?:\.\d+)*")
# Characters. A version becomes a folder's name.
_MAX_LENGTH: Final = 64
_PARTS: Final = 3


@dataclass(frozen=True, slots=True)
class ImageVersion:
    """A semantic version. ``key`` orders it: by its numbers, a pre-release before its release, whatever the build.

    More than three numbers are kept and count: 3.6.6.1 comes after 3.6.6.
    """

    text: str
    is_prerelease: bool
    key: tuple[object, ...] = field(repr=False)

    @classmethod
    def coerce(cls, text: str) -> ImageVersion:
        """Read a version, filling in what is missing: 3.1 is 3.1.0, 03.1-rc_1 is 3.1.0-rc-1.

        Raises:
            ValueError: it does not begin with a number, or is too long.

        """
        found = _NUMBERS.match(text)
        if found is None or len(text) > _MAX_LENGTH or not text.isascii():
            msg = f"{text[:80]!r} is not a version: it begins with a number, like 3.1 or 3.7.0-rc1"
            raise ValueError(msg)
        numbers = [int(part) for part in found.group().split(".")]
        numbers += [0] * (_PARTS - len(numbers))
        rest = re.sub(r"[^a-zA-Z0-9+.-]", "-", text[found.end() :])
        before, _, build = rest.partition("+") if rest[:1] != "." else ("", "", rest[1:])
        prerelease = before.removeprefix("-")
        spelled = ".".join(str(number) for number in numbers)
        spelled += f"-{prerelease}" if prerelease else ""
        spelled += f"+{build.replace('+', '.')}" if build else ""
        # A release stands after all its pre-releases; numeric identifiers before the others (semver.org, 11).
        identifiers = [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in prerelease.split(".")]
        return cls(spelled, bool(prerelease), (tuple(numbers), not prerelease, tuple(identifiers)))

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True, order=True)
class BuildId:
    """The day of a build, and its number on that day."""

    day: date
    number: int = 0

    @classmethod
    def parse(cls, text: str) -> BuildId:
        """Read ``YYYYMMDD[.N]``.

        Raises:
            ValueError: it is written otherwise, or there is no such day.

        """
        day, dot, number = text.partition(".")
        if not re.fullmatch(r"[0-9]{8}", day) or (dot and not re.fullmatch(r"[0-9]{1,9}", number)):
            msg = f"{text[:80]!r} is not a build id: it is written YYYYMMDD or YYYYMMDD.N"
            raise ValueError(msg)
        try:
            # A day has no zone; strptime is asked for the calendar alone.
            parsed = datetime.strptime(day, "%Y%m%d").date()  # noqa: DTZ007
        except ValueError as error:
            msg = f"{text[:80]!r} is not a build id: there is no such day"
            raise ValueError(msg) from error
        return cls(parsed, int(number or 0))

    def __str__(self) -> str:
        return f"{self.day:%Y%m%d}.{self.number}"
