"""From what a person writes (an address, a folder) to a storage."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from instar.errors import Misconfigured
from instar.storage.http import HttpReader
from instar.storage.local import LocalStorage
from instar.storage.mirrors import MirrorReader
from instar.storage.options import HttpOptions
from instar.storage.ports import Reader, Storage
from instar.system.clock import Clock

__all__ = ["open_reader", "open_storage"]


def open_storage(location: str, *, base: Path | None = None) -> Storage:
    """Open a storage to publish to.

    Args:
        location: a folder or a ``file://`` address. The folder need not exist yet.
        base: the folder that a relative one starts from; the current one, for None.

    Raises:
        Misconfigured: nothing that can be written to.

    """
    folder = _local_folder(location)
    if folder is None:
        msg = f"{location[:200]!r} is not a storage that can be published to."
        raise Misconfigured(msg, hint="Name a folder; web addresses are for reading.")
    return LocalStorage(folder if base is None else base / folder)


def open_reader(
    locations: str | Sequence[str],
    options: HttpOptions | None = None,
    *,
    clock: Clock | None = None,
) -> Reader:
    """Open a repository for reading: one address, or several copies of it, the preferred first.

    Args:
        locations: ``https://`` or ``file://`` addresses, or folders.
        options: how to read over HTTP.
        clock: for deadlines and waiting.

    Raises:
        Misconfigured: there is none, or one cannot be used.

    """
    readers = [_open_one(text, options, clock) for text in ([locations] if isinstance(locations, str) else locations)]
    return readers[0] if len(readers) == 1 else MirrorReader(readers, clock=clock)


def _open_one(location: str, options: HttpOptions | None, clock: Clock | None) -> Reader:
    folder = _local_folder(location)
    return HttpReader(location, options, clock=clock) if folder is None else LocalStorage(folder)


def _local_folder(location: str) -> Path | None:
    """Give the folder that is meant, or None for an address on a network."""
    try:
        parts = urlsplit(location)
    except ValueError as error:
        msg = f"{location[:200]!r} is neither an address nor a folder."
        raise Misconfigured(msg) from error
    if parts.scheme == "file":
        if parts.netloc not in {"", "localhost"} or not parts.path:
            msg = f"{location[:200]!r} does not name a folder of this machine."
            raise Misconfigured(msg, hint="Give it like file:///srv/updates.")
        return Path(url2pathname(parts.path))
    if "://" in location:
        return None
    if not location:
        msg = "An empty address names no repository."
        raise Misconfigured(msg)
    return Path(location)
