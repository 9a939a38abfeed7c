"""``instar.toml``: what a publisher knows besides the repository itself. No secrets; it belongs in version control."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from instar.errors import Misconfigured
from instar.model.names import Name, ProductName
from instar.system.files import read_bounded

__all__ = [
    "FILE_NAME",
    "MAX_BASES",
    "Defaults",
    "Effort",
    "Keys",
    "Lifetimes",
    "Settings",
    "parse_settings",
    "read_settings",
]

FILE_NAME: Final = "instar.toml"
# Bytes. A person writes it by hand.
_MAX_FILE: Final = 256 << 10
# Days. Shorter than a day and a release in the evening is expired by the morning; a root of ten years is no expiry.
_MAX_DAYS: Final = 3650

MAX_BASES: Final = 64
"""Releases that patches can be made against. More cost time and bytes for devices that hardly exist."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Keys:
    """Where the private keys are: URIs for ``instar.trust.keys``. A path in one is relative to the settings' folder."""

    owner: str = "file:keys/owner.pem"
    online: str = "file:keys/online.pem"


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """For how many days a signature of each role is good.

    Raises:
        ValueError: less than one day, or more than ten years.

    """

    root: int = 365
    targets: int = 180
    channels: int = 30
    snapshot: int = 30
    timestamp: int = 7

    def __post_init__(self) -> None:
        for role in ("root", "targets", "channels", "snapshot", "timestamp"):
            if not 1 <= getattr(self, role) <= _MAX_DAYS:
                msg = f"the lifetime of {role} is between 1 and {_MAX_DAYS} days, not {getattr(self, role)}"
                raise ValueError(msg)

    def of(self, role: str) -> timedelta:
        """Give a role's lifetime."""
        return timedelta(days=getattr(self, role))


class Effort(str):
    """``fast`` or ``best``: how hard a release's packs and patches are compressed.

    Raises:
        ValueError: neither of the two.

    """

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        """Check and keep it."""
        if text not in {"fast", "best"}:
            msg = f"an effort is 'fast' or 'best', not {text[:40]!r}"
            raise ValueError(msg)
        return super().__new__(cls, text)


@dataclass(frozen=True, slots=True)
class Defaults:
    """What ``instar release`` does unless told otherwise.

    Raises:
        ValueError: a negative number of base releases, or more than make sense.

    """

    channel: Name = field(default_factory=lambda: Name("stable"))
    effort: Effort = field(default_factory=lambda: Effort("best"))
    base_releases: int = 3

    def __post_init__(self) -> None:
        if not 0 <= self.base_releases <= MAX_BASES:
            msg = f"patches are made against 0 to {MAX_BASES} earlier releases, not {self.base_releases}"
            raise ValueError(msg)


@dataclass(frozen=True, slots=True)
class Settings:
    """All of ``instar.toml``.

    ``storage`` is a folder relative to the file, or a URL; ``urls`` are where devices find it.
    """

    product: ProductName
    storage: str = "repository"
    urls: tuple[str, ...] = ()
    keys: Keys = field(default_factory=Keys)
    lifetimes: Lifetimes = field(default_factory=Lifetimes)
    release: Defaults = field(default_factory=Defaults)

    def to_toml(self) -> str:
        """Write the file, with the comments that help a person to change it."""
        # JSON's strings and lists of strings are TOML's.
        quote = json.dumps
        return (
            "# What instar publishes, and where. No secrets in here: keep it under version control.\n\n"
            f"product = {quote(self.product)}\n"
            "# A folder relative to this file, or a URL.\n"
            f"storage = {quote(self.storage)}\n"
            "# Where devices find it, best first.\n"
            f"urls = {quote(list(self.urls))}\n\n"
            "[keys]\n"
            "# owner signs what may ever run: keep it off line. online signs what is offered to whom.\n"
            f"owner = {quote(self.keys.owner)}\n"
            f"online = {quote(self.keys.online)}\n\n"
            "[expiry]\n"
            "# Days until a signature must be renewed, by a release or by `instar refresh`.\n"
            f"root = {self.lifetimes.root}\n"
            f"targets = {self.lifetimes.targets}\n"
            f"channels = {self.lifetimes.channels}\n"
            f"snapshot = {self.lifetimes.snapshot}\n"
            f"timestamp = {self.lifetimes.timestamp}\n\n"
            "[release]\n"
            "# What `instar release` does unless told otherwise.\n"
            f"channel = {quote(self.release.channel)}\n"
            f"effort = {quote(self.release.effort)}\n"
            f"base_releases = {self.release.base_releases}\n"
        )


def read_settings(folder: Path) -> Settings:
    """Read ``instar.toml`` in ``folder``.

    Raises:
        Misconfigured: there is none, it cannot be read, or something in it is wrong; says what.

    """
    path = folder / FILE_NAME
    try:
        data = read_bounded(path, _MAX_FILE)
    except FileNotFoundError as error:
        msg = f"There is no {FILE_NAME} in {folder.absolute()}."
        raise Misconfigured(
            msg, hint="Go to the folder that has one, name it with -C, or run `instar init`."
        ) from error
    except (OSError, ValueError) as error:
        msg = f"{path} cannot be read: {getattr(error, 'strerror', None) or error}."
        raise Misconfigured(msg, hint="It must be a file that is yours to read.") from error
    try:
        return parse_settings(data)
    except ValueError as error:
        msg = f"{path}: {error}."
        raise Misconfigured(msg, hint="Correct that line.") from error


def parse_settings(data: bytes) -> Settings:
    """Read the text of an ``instar.toml``.

    Raises:
        ValueError: it is no TOML, lacks something, holds something unknown, or a value is not what it should be.

    """
    document = tomllib.loads(data.decode())
    top = _Section("", document)
    keys = _Section("keys", top.take("keys", dict, {}))
    expiry = _Section("expiry", top.take("expiry", dict, {}))
    release = _Section("release", top.take("release", dict, {}))
    own, usual, times = Keys(), Defaults(), Lifetimes()
    settings = Settings(
        product=top.value("product", ProductName, None),
        storage=top.take("storage", str, "repository"),
        urls=top.value_list("urls"),
        keys=Keys(keys.take("owner", str, own.owner), keys.take("online", str, own.online)),
        lifetimes=Lifetimes(
            root=expiry.take("root", int, times.root),
            targets=expiry.take("targets", int, times.targets),
            channels=expiry.take("channels", int, times.channels),
            snapshot=expiry.take("snapshot", int, times.snapshot),
            timestamp=expiry.take("timestamp", int, times.timestamp),
        ),
        release=Defaults(
            channel=release.value("channel", Name, usual.channel),
            effort=release.value("effort", Effort, usual.effort),
            base_releases=release.take("base_releases", int, usual.base_releases),
        ),
    )
    for section in (top, keys, expiry, release):
        section.finish()
    return settings


class _Section:
    """One table of the file, from which keys are taken until none is left that nobody knows."""

    def __init__(self, name: str, rows: Mapping[str, Any]) -> None:
        self._prefix = f"{name}." if name else ""
        self._rows = dict(rows)

    def take(self, key: str, kind: type[_T], default: _T | None) -> _T:
        if key not in self._rows and default is not None:
            return default
        if key not in self._rows:
            msg = f"'{self._prefix}{key}' is missing"
            raise ValueError(msg)
        value = self._rows.pop(key)
        if not isinstance(value, kind) or isinstance(value, bool) is not (kind is bool):
            msg = f"'{self._prefix}{key}' is {value!r}, which is no {_WORDS[kind]}"
            raise ValueError(msg)
        return value

    def value(self, key: str, make: Callable[[str], _T], default: _T | None) -> _T:
        if key not in self._rows and default is not None:
            return default
        return make(self.take(key, str, None))

    def value_list(self, key: str) -> tuple[str, ...]:
        values: list[object] = self.take(key, list, [])
        if not all(isinstance(value, str) for value in values):
            msg = f"'{self._prefix}{key}' is a list of texts"
            raise ValueError(msg)
        return tuple(str(value) for value in values)

    def finish(self) -> None:
        if self._rows:
            names = ", ".join(f"'{self._prefix}{key}'" for key in sorted(self._rows))
            msg = f"{names} is not known here"
            raise ValueError(msg)


_WORDS: Final[Mapping[type, str]] = {str: "text", int: "whole number", dict: "table", list: "list"}
