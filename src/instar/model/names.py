"""Names of products, platforms and channels, and paths inside a release."""

from __future__ import annotations

import re
import unicodedata
from typing import Self

__all__ = ["Name", "ProductName", "TreePath", "check_link_target", "collision_key", "windows_problem"]

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")
_ROLE_SUFFIX = re.compile(r"(?:-channels|-bins?(?:-[0-9a-f]+)?)$")
_TOP_LEVEL_ROLES = frozenset({"root", "targets", "snapshot", "timestamp"})

# Longest segment that ext4, APFS and NTFS all take (bytes in UTF-8; NTFS counts UTF-16 units, never more than these).
_MAX_SEGMENT = 255
# PATH_MAX on Linux is 4,096 and the installation's own path comes in front.
_MAX_PATH = 1024
_RESERVED = frozenset(
    ["con", "prn", "aux", "nul", "conin$", "conout$"]
    + [f"{device}{n}" for device in ("com", "lpt") for n in "0123456789¹²³"],
)
_WINDOWS_FORBIDDEN = frozenset('<>:"|?*')


class Name(str):
    """A platform's or channel's name: 1 to 64 of ``a-z 0-9 . _ -``, letters or digits at both ends.

    Raises:
        ValueError: it is not, it holds ``..``, or Windows reserves it for a device: names become folders.

    """

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        """Check and keep it."""
        if not _NAME.fullmatch(text) or ".." in text:
            msg = (
                f"{text[:80]!r} cannot be a name: use 1 to 64 lower-case letters, digits, '.', '_' or '-', "
                "with a letter or digit at both ends"
            )
            raise ValueError(msg)
        if _is_device(text):
            msg = f"{text!r} cannot be a name: it is a device's name on Windows"
            raise ValueError(msg)
        return super().__new__(cls, text)


class ProductName(Name):
    """A product's name. It is also the name of a TUF role, so names that would clash with another role are refused.

    Raises:
        ValueError: not a name, or reserved.

    """

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        """Check and keep it."""
        if text in _TOP_LEVEL_ROLES or _ROLE_SUFFIX.search(text):
            msg = f"{text!r} cannot be a product's name: instar uses it for one of its own roles"
            raise ValueError(msg)
        return super().__new__(cls, text)


class TreePath(str):
    """A path inside a release: relative, ``/`` between segments, normalised, fit for every file system we know.

    Raises:
        ValueError: it is empty, absolute, too long, holds ``.``, ``..``, a backslash or a control character, is not
            Unicode, or a segment is a name that Windows reserves for a device.

    """

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        """Check and keep it."""
        if problem := _structural_problem(text):
            msg = f"{text[:200]!r} cannot be a path in a release: {problem}"
            raise ValueError(msg)
        return super().__new__(cls, text)

    @property
    def parents(self) -> tuple[str, ...]:
        """Every folder above it, outermost first, without the root."""
        parts = self.split("/")
        return tuple("/".join(parts[:n]) for n in range(1, len(parts)))


def _structural_problem(text: str) -> str | None:
    if not text:
        return "it is empty"
    try:
        encoded = text.encode()
    except UnicodeEncodeError:
        return "it is not Unicode text"
    if len(encoded) > _MAX_PATH:
        return f"it is longer than {_MAX_PATH} bytes"
    if "\\" in text or any(unicodedata.category(c) == "Cc" for c in text):
        return "it holds a backslash or a control character"
    for segment in text.split("/"):
        if segment in {"", ".", ".."}:
            return "it is absolute, or holds an empty, '.' or '..' segment"
        if len(segment.encode()) > _MAX_SEGMENT:
            return f"a segment is longer than {_MAX_SEGMENT} bytes"
        if _is_device(segment):
            return f"{segment!r} is a device's name on Windows"
    return None


def _is_device(segment: str) -> bool:
    return segment.partition(".")[0].rstrip(" ").lower() in _RESERVED


def windows_problem(path: TreePath) -> str | None:
    """Say why Windows could not create ``path``, or None where it could."""
    for segment in path.split("/"):
        if bad := _WINDOWS_FORBIDDEN & set(segment):
            return f"Windows takes no {''.join(sorted(bad))!r} in a name"
        if segment[-1] in ". ":
            return "Windows takes no name that ends in a dot or a space"
    return None


def collision_key(path: str) -> str:
    """Give the form under which two paths are one file on a case-insensitive, normalising disk."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


def check_link_target(path: TreePath, target: str) -> None:
    """Check that the symbolic link ``path`` with ``target`` stays inside the release.

    A ``..`` is taken only at the front: behind a name that is itself a link it would climb from wherever that leads.

    Raises:
        ValueError: it is absolute, leaves the tree, or cannot be judged.

    """
    parts = target.split("/")
    ups = 0
    while ups < len(parts) and parts[ups] == "..":
        ups += 1
    rest = "/".join(parts[ups:])
    depth = path.count("/")
    if (
        ups > depth
        or (rest and _structural_problem(rest))
        or not target
        or len(target.encode(errors="replace")) > _MAX_PATH
    ):
        msg = f"the link {str(path)!r} points to {target[:200]!r}, which is not inside the release"
        raise ValueError(msg)
