"""Versions of apps: PEP 440, in their canonical spelling."""

from __future__ import annotations

from functools import total_ordering

from packaging.version import InvalidVersion
from packaging.version import Version as _Pep440

__all__ = ["Version"]

# A version becomes a file's and a folder's name.
_MAX_LENGTH = 64


@total_ordering
class Version:
    """A PEP 440 version. ``str()`` gives the canonical spelling; ``1.0`` and ``1.0.0`` are equal all the same.

    Raises:
        ValueError: not PEP 440, or longer than 64 characters.

    """

    __slots__ = ("_parsed", "_text")

    def __init__(self, text: str) -> None:
        try:
            self._parsed = _Pep440(text)
        except InvalidVersion as error:
            msg = f"{text[:80]!r} is not a version as PEP 440 has them (like 1.2.0, 2.0rc1 or 1.0.post1)"
            raise ValueError(msg) from error
        self._text = str(self._parsed)
        if len(self._text) > _MAX_LENGTH:
            msg = f"the version {self._text[:80]!r} is longer than {_MAX_LENGTH} characters"
            raise ValueError(msg)

    @property
    def is_prerelease(self) -> bool:
        """Whether it is an alpha, beta, release candidate or development version."""
        return self._parsed.is_prerelease

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return f"Version({self._text!r})"

    def __hash__(self) -> int:
        return hash(self._parsed)

    def __eq__(self, other: object) -> bool:
        return self._parsed == other._parsed if isinstance(other, Version) else NotImplemented

    def __lt__(self, other: object) -> bool:
        return self._parsed < other._parsed if isinstance(other, Version) else NotImplemented
