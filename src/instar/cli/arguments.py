"""From what a person wrote behind an option to a value of ours, or a sentence that says what is wrong with it."""

from __future__ import annotations

# ruff: noqa: PLC0415  # instar.publish needs packages that a device with this program does not have
import re
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from instar.cli import output
from instar.cli.secrets import Passphrases
from instar.errors import Misconfigured
from instar.model.names import Name, ProductName
from instar.model.version import Version
from instar.system import files

if TYPE_CHECKING:
    from instar.publish import Effort, Offer, Project, Where

__all__ = [
    "open_here",
    "read_notes",
    "to_duration",
    "to_effort",
    "to_name",
    "to_offer",
    "to_optional_name",
    "to_pair",
    "to_product",
    "to_version",
    "to_where",
]

# Bytes of notes; the library refuses more than a release can carry, and says how much that is.
_MAX_NOTES_FILE: Final = 16 << 20
_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def open_here(home: Path, passphrase_env: str | None) -> Project:
    """Open the project in a folder, with a person or the environment to ask for passphrases.

    Raises:
        Misconfigured: it is none.

    """
    from instar.publish import open_project

    return open_project(output.settings.home / home, passphrase=Passphrases(passphrase_env))


def to_product(text: str) -> ProductName:
    """Read a product's name.

    Raises:
        Misconfigured: it is none.

    """
    try:
        return ProductName(text)
    except ValueError as error:
        msg = f"{error}."
        raise Misconfigured(msg) from error


def to_name(text: str) -> Name:
    """Read a channel's or platform's name.

    Raises:
        Misconfigured: it is none.

    """
    try:
        return Name(text)
    except ValueError as error:
        msg = f"{error}."
        raise Misconfigured(msg) from error


def to_optional_name(text: str | None) -> Name | None:
    """Read a name that may be left out.

    Raises:
        Misconfigured: it is none.

    """
    return None if text is None else to_name(text)


def to_version(text: str) -> Version:
    """Read a version.

    Raises:
        Misconfigured: it is none.

    """
    try:
        return Version(text)
    except ValueError as error:
        msg = f"{error}."
        raise Misconfigured(msg) from error


def to_effort(text: str | None) -> Effort | None:
    """Read an effort that may be left out.

    Raises:
        Misconfigured: it is none.

    """
    from instar.publish import Effort

    try:
        return None if text is None else Effort(text)
    except ValueError as error:
        msg = f"--effort is 'fast' or 'best', not {text!r}."
        raise Misconfigured(msg) from error


def to_pair(text: str, option: str) -> tuple[str, str]:
    """Read KEY=VALUE.

    Raises:
        Misconfigured: it is none.

    """
    key, equals, value = text.partition("=")
    if not equals or not key:
        msg = f"{option} is KEY=VALUE, not {text!r}."
        raise Misconfigured(msg)
    return key, value


def to_offer(percent: float, ramp: str | None, only: Sequence[str] | None) -> Offer:
    """Read whom a release is offered to.

    Raises:
        Misconfigured: it is none.

    """
    from instar.publish import Offer

    conditions = {
        fact: frozenset(value for value in values.split(",") if value)
        for fact, values in (to_pair(text, "--only") for text in only or ())
    }
    return Offer(percent, None if ramp is None else to_duration(ramp), conditions)


def to_duration(text: str) -> timedelta:
    """Read a duration like 90m, 12h, 3d or 1w.

    Raises:
        Misconfigured: it is none.

    """
    match = re.fullmatch(r"(\d{1,6})([mhdw])", text)
    if not match:
        msg = f"{text!r} is no duration: write 90m, 12h, 3d or 1w."
        raise Misconfigured(msg)
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def to_where(channel: str | None, platform: str | None) -> Where:
    """Read which places a command is limited to.

    Raises:
        Misconfigured: it is none.

    """
    from instar.publish import Where

    return Where(to_optional_name(channel), to_optional_name(platform))


def read_notes(path: Path | None) -> str:
    """Read a file of notes; nothing where none is named.

    Raises:
        Misconfigured: it is none.

    """
    if path is None:
        return ""
    try:
        return files.read_bounded(path, _MAX_NOTES_FILE).decode()
    except OSError as error:
        msg = f"The notes {path} cannot be read: {error.strerror or error}."
        raise Misconfigured(msg, hint="Name a text file that is yours to read.") from error
    except ValueError as error:
        msg = f"The notes {path} cannot be read: {error}."
        raise Misconfigured(msg, hint="They must be a text file in UTF-8.") from error
