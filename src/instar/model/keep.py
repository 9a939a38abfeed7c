"""Which files in an app's folder are the user's: patterns of paths, as one value. Touches no disk."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from instar.model.names import TreePath

__all__ = ["Keep"]

_WILD: Final = frozenset("*?[")


@dataclass(frozen=True)
class Keep:
    """Patterns of paths relative to the tree, ``/`` between segments.

    ``*`` and ``?`` stay within a segment, ``[abc]`` and ``[!abc]`` name characters, ``**`` as a whole segment stands
    for any number of folders. A pattern that names a folder names everything in it.

    Raises:
        ValueError: a pattern is absolute, leaves the tree, or names everything there is.

    """

    patterns: tuple[str, ...] = ()
    _expression: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for pattern in self.patterns:
            _check(pattern)
        joined = "|".join(_translate(pattern.rstrip("/")) for pattern in self.patterns)
        # Everything below a matched folder is matched too.
        try:
            expression = re.compile(f"(?s:(?:{joined})(?:/.*)?)" if joined else "(?!)")
        except re.error as error:
            msg = f"the patterns {', '.join(self.patterns)[:200]!r} hold a range of characters that runs backward"
            raise ValueError(msg) from error
        object.__setattr__(self, "_expression", expression)

    def __bool__(self) -> bool:
        return bool(self.patterns)

    def matches(self, path: str) -> bool:
        """Say whether ``path`` (relative to the tree, ``/`` between segments) is the user's."""
        return self._expression.fullmatch(path) is not None


def _check(pattern: str) -> None:
    plain = pattern.rstrip("/")
    try:
        # A pattern obeys the rules of the paths that it names, wild cards aside.
        TreePath("".join("x" if c in _WILD else c for c in plain))
    except ValueError as error:
        shown = repr(pattern[:200])
        msg = f"{shown} cannot be a pattern of files to keep: it is absolute, leaves the app's folder or is no path"
        raise ValueError(msg) from error
    if not plain.strip("*/"):
        msg = f"the pattern {pattern[:200]!r} would keep the whole old release"
        raise ValueError(msg)


def _translate(pattern: str) -> str:
    parts = []
    segments = pattern.split("/")
    for number, segment in enumerate(segments):
        last = number == len(segments) - 1
        if segment == "**":
            parts.append(".+" if last else "(?:[^/]+/)*")
        else:
            parts.append(_translate_segment(segment) + ("" if last else "/"))
    return "".join(parts)


def _translate_segment(segment: str) -> str:
    out = []
    rest = segment
    while rest:
        if rest[0] == "*":
            out.append("[^/]*")
        elif rest[0] == "?":
            out.append("[^/]")
        elif rest[0] == "[" and (end := rest.find("]", 3 if rest[1:2] == "!" else 2)) > 0:
            inner = rest[1:end]
            negated = inner.startswith("!")
            body = "".join(c if c == "-" else re.escape(c) for c in inner[negated:])
            out.append(f"[{'^/' if negated else ''}{body}]")
            rest = rest[end:]
        else:
            out.append(re.escape(rest[0]))
        rest = rest[1:]
    return "".join(out)
