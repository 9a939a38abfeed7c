"""The server's configuration file: INI, as the older programs read it."""

from __future__ import annotations

from collections.abc import Mapping
from configparser import ConfigParser
from configparser import Error as IniError
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Final

from instar.errors import Misconfigured
from instar.system.files import read_bounded

__all__ = ["RemoteInfo", "ServerSettings"]

_MAX_FILE: Final = 1 << 20  # bytes: a configuration is written by hand
_IMAGES: Final = "Images"
_CONSIDER: Final = "Images.BranchesToConsider"
_REMOTE_INFO: Final = "Images.ProvideRemoteInfoConfig"
_SERVER: Final = "Server"
_KNOWN: Final = {
    "pooldir",
    "unstable",
    "products",
    "releases",
    "variants",
    "branches",
    "archs",
    "variantseol",
    "strictpoolvalidation",
}


@dataclass(frozen=True, slots=True)
class RemoteInfo:
    """What devices of one architecture are told that they may choose from."""

    variants: tuple[str, ...]
    branches: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Which images a server has, and the rules of its own.

    ``consider`` maps a branch to those that are more stable; ``ended`` a variant to the one that takes its place.
    ``warnings`` are for a person.
    """

    pool: Path
    products: frozenset[str]
    releases: frozenset[str]
    variants: frozenset[str]
    branches: tuple[str, ...]
    archs: frozenset[str]
    unstable: bool = False
    strict: bool = True
    ended: Mapping[str, str] = field(default_factory=dict)
    consider: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    remote_info: Mapping[str, RemoteInfo] = field(default_factory=dict)
    host: str = "localhost"
    port: int = 5000
    warnings: tuple[str, ...] = ()

    @classmethod
    def read(cls, path: Path) -> ServerSettings:
        """Read a configuration file.

        Raises:
            Misconfigured: it cannot be read, or something in it is missing, unknown to it or contradicts the rest.

        """
        try:
            text = read_bounded(path, _MAX_FILE).decode()
        except (OSError, ValueError) as error:
            msg = f"The configuration {path} cannot be read: {error}."
            raise Misconfigured(msg, hint="Name the server's configuration file with -c.") from error
        try:
            return _parse(text)
        except (ValueError, IniError) as error:
            msg = f"The configuration {path} cannot be used: {error}."
            raise Misconfigured(msg, hint="Correct it there, and run this again.") from error


def _parse(text: str) -> ServerSettings:
    ini = ConfigParser()
    ini.read_string(text)
    if not ini.has_section(_IMAGES):
        msg = f"it has no section [{_IMAGES}]"
        raise ValueError(msg)
    images = ini[_IMAGES]
    words = {key: _words(images.get(key), key) for key in ("Products", "Releases", "Variants", "Branches", "Archs")}
    pool = images.get("PoolDir", "").strip()
    if not pool:
        msg = f"'PoolDir' is missing in [{_IMAGES}]: the folder with the images' manifests"
        raise ValueError(msg)
    ended = _pairs(images.get("VariantsEOL", ""))
    consider = {key: tuple(value.split()) for key, value in ini.items(_CONSIDER)} if _CONSIDER in ini else {}
    _refuse_circles(consider)
    return ServerSettings(
        pool=Path(pool),
        products=frozenset(words["Products"]),
        releases=frozenset(words["Releases"]),
        # A variant at its end is served whether it is named among the others or not.
        variants=frozenset(words["Variants"]) | ended.keys(),
        branches=words["Branches"],
        archs=frozenset(words["Archs"]),
        unstable=images.getboolean("Unstable", fallback=False),
        strict=images.getboolean("StrictPoolValidation", fallback=True),
        ended=ended,
        consider=consider,
        remote_info=_remote_info(ini, words["Archs"]),
        host=ini.get(_SERVER, "Host", fallback="localhost"),
        port=ini.getint(_SERVER, "Port", fallback=5000),
        warnings=tuple(
            f"the configuration has an unknown key {key!r} in [{_IMAGES}]" for key in images if key not in _KNOWN
        ),
    )


def _words(value: str | None, key: str) -> tuple[str, ...]:
    words = tuple(dict.fromkeys((value or "").split()))
    if not words:
        msg = f"'{key}' is missing in [{_IMAGES}]: at least one word, several separated by spaces"
        raise ValueError(msg)
    return words


def _pairs(value: str) -> dict[str, str]:
    ended = {}
    for pair in value.split():
        old, colon, new = pair.partition(":")
        if not (old and colon and new) or ":" in new:
            msg = f"'VariantsEOL' has {pair!r} where it should have old:new"
            raise ValueError(msg)
        ended[old] = new
    return ended


def _refuse_circles(consider: Mapping[str, tuple[str, ...]]) -> None:
    """Two branches that are each more stable than the other would lead a device back and forth for ever."""
    try:
        tuple(TopologicalSorter(consider).static_order())
    except CycleError as error:
        msg = (
            f"[{_CONSIDER}] goes in a circle, each branch more stable than the one before: {' → '.join(error.args[1])}"
        )
        raise ValueError(msg) from error


def _remote_info(ini: ConfigParser, archs: tuple[str, ...]) -> dict[str, RemoteInfo]:
    if ini.has_section(_REMOTE_INFO):
        msg = f"[{_REMOTE_INFO}] needs an architecture behind it, like [{_REMOTE_INFO}.{archs[0]}]"
        raise ValueError(msg)
    found = {}
    for section in ini.sections():
        if not section.startswith(f"{_REMOTE_INFO}."):
            continue
        arch = section.removeprefix(f"{_REMOTE_INFO}.")
        if arch not in archs:
            msg = f"[{section}] is for {arch!r}, which is not among the 'Archs' {', '.join(archs)}"
            raise ValueError(msg)
        lists = {key: tuple(ini[section].get(key, "").split()) for key in ("Variants", "Branches")}
        for key, words in lists.items():
            if not words:
                msg = f"'{key}' is missing in [{section}]"
                raise ValueError(msg)
        found[arch] = RemoteInfo(lists["Variants"], lists["Branches"])
    return found
