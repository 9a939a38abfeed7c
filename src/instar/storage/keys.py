"""Names of the objects on a storage, and what a name promises about its content. Touches no storage."""

from __future__ import annotations

import re
from typing import Final, Self

__all__ = ["Key", "check_prefix", "is_immutable"]

# What a URL's path carries without being rewritten on the way. A complete escape such as %2F is part of the name and
# is never decoded: TUF quotes the names of roles, and decoding would bring their slashes back.
_SEGMENT: Final = re.compile(r"(?:[A-Za-z0-9._+!~@=,-]|%[0-9A-F]{2})+")
# 255 bytes is what file systems take; what is left over is room for the ending of a temporary name.
_MAX_SEGMENT: Final = 220
# S3 takes 1,024 bytes in a key, PATH_MAX is 4,096 with the storage's own folder in front.
_MAX_KEY: Final = 1000

_IMMUTABLE: Final = (
    re.compile(r"metadata/[0-9]+\.[^/]+\.json"),
    re.compile(r"targets/(?:[^/]+/)*[0-9a-f]{64}\.[^/]+"),
    re.compile(r"packs/[0-9a-f]{2}/[0-9a-f]{64}\.[^/]+"),
)


class Key(str):
    """Where an object is: segments with ``/`` between them, like ``packs/ab/abcd….pack``.

    No segment begins with a dot, so nothing that a storage hides (temporary files, locks) can be named at all.

    Raises:
        ValueError: it is empty, too long, absolute, has an empty segment, a segment that begins or ends with a dot,
            or a character that would need quoting in a URL.

    """

    __slots__ = ()

    def __new__(cls, text: str) -> Self:  # noqa: D102  # the class says it
        if isinstance(text, cls):
            return text
        if len(text) > _MAX_KEY or not all(_is_segment(segment) for segment in text.split("/")):
            msg = f"{text[:200]!r} cannot be the key of an object on a storage"
            raise ValueError(msg)
        return super().__new__(cls, text)


def _is_segment(text: str) -> bool:
    return (
        len(text) <= _MAX_SEGMENT
        and _SEGMENT.fullmatch(text) is not None
        and not text.startswith(".")
        and not text.endswith(".")  # Windows would drop it, and two keys would be one file
    )


def check_prefix(prefix: str) -> str:
    """Check the beginning of keys, such as ``""``, ``"packs/"`` or ``"metadata/7."``, and give it back.

    Raises:
        ValueError: no key can begin like this.

    """
    folder, slash, start = prefix.rpartition("/")
    if (slash and not _is_key(folder)) or (start and not _SEGMENT.fullmatch(start)) or start.startswith("."):
        msg = f"no key on a storage begins with {prefix[:200]!r}"
        raise ValueError(msg)
    return prefix


def _is_key(text: str) -> bool:
    try:
        Key(text)
    except ValueError:
        return False
    return True


def is_immutable(key: str) -> bool:
    """Tell whether the name fixes the content (it holds a hash or a version number), so that caches may keep it."""
    return any(pattern.fullmatch(key) for pattern in _IMMUTABLE)
