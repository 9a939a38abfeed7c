"""Carrying the user's own files from one tree to another. Copied, never moved: the old tree stays what it was."""

from __future__ import annotations

import errno
import itertools
import os
import secrets
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from instar.model.keep import Keep
from instar.system import files

__all__ = ["carry_over", "kept_files", "make_alike"]


def kept_files(keep: Keep, tree: Path) -> Iterator[tuple[str, Path]]:
    """Give every file, link and folder of ``tree`` that ``keep`` names, a folder before what is in it.

    Links are not followed; sockets, pipes and devices are left out.

    Raises:
        OSError: a folder cannot be read.

    """
    if keep:
        yield from _walk(keep, tree, "")


def _walk(keep: Keep, folder: Path, prefix: str) -> Iterator[tuple[str, Path]]:
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        relative = prefix + entry.name
        is_folder = entry.is_dir(follow_symlinks=False)
        ordinary = is_folder or entry.is_symlink() or entry.is_file(follow_symlinks=False)
        if ordinary and keep.matches(relative):
            yield relative, Path(entry.path)
        if is_folder:
            yield from _walk(keep, Path(entry.path), f"{relative}/")


def carry_over(keep: Keep, source: Path, target: Path, scratch: Path) -> None:
    """Copy what ``keep`` names from ``source`` into ``target``, where the user's file replaces the release's.

    Each file appears whole or not at all; repeating it after an interruption is harmless. Times of modification and
    permissions are kept, those of the folders that lead there too, and whose they are where the superuser does it.
    Everything is durable when it returns.

    Args:
        keep: the patterns.
        source: the tree that runs.
        target: the tree that is going to run.
        scratch: a folder on the same file system for files in the making.

    Raises:
        OSError: something could not be read or written, or the release has a file or link where the user has a folder
            (``ENOTDIR``) or the other way round (``EISDIR``).

    """
    touched = {target}
    folders: set[str] = set()
    for relative, path in kept_files(keep, source):
        parent, _, name = relative.rpartition("/")
        folders.update(itertools.accumulate(parent.split("/"), "{}/{}".format) if parent else ())
        folder = _make_folders(target, parent)
        kind = path.lstat().st_mode
        if stat.S_ISDIR(kind):
            touched.add(_make_folders(target, relative))
            folders.add(relative)
        else:
            destination = folder / name
            if destination.is_dir() and not destination.is_symlink():
                raise IsADirectoryError(errno.EISDIR, "the release has a folder where the user has a file", relative)
            _copy(path, destination, scratch / f"carried-{secrets.token_hex(8)}")
        touched.add(folder)
    for relative in sorted(folders, reverse=True):  # what is inside first, while nobody else gets in
        make_alike(source / relative, target / relative)
    for folder in touched:
        files.sync_folder(folder)


def make_alike(source: Path, target: Path) -> None:
    """Let the same people into the folder ``target`` as into ``source``, durably. Windows' folders inherit instead.

    Raises:
        OSError: it could not be done, or one of them is no folder.

    """
    if sys.platform != "win32":
        # Not through a link: others may be at work in a folder that was shared before.
        descriptor = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            status = source.lstat()
            if os.geteuid() == 0:
                os.fchown(descriptor, status.st_uid, status.st_gid)
            # Ourselves always: what was carried may have to be carried again.
            os.fchmod(descriptor, stat.S_IMODE(status.st_mode) & 0o3777 | stat.S_IRWXU)
        finally:
            os.close(descriptor)
        files.sync_folder(target)


def _give_away(path: Path, status: os.stat_result) -> None:
    """Let ``path`` itself, not what it leads to, be whose ``status`` says, where the superuser works."""
    if sys.platform != "win32" and os.geteuid() == 0:
        os.lchown(path, status.st_uid, status.st_gid)


def _copy(source: Path, destination: Path, fresh: Path) -> None:
    status = source.lstat()
    if stat.S_ISLNK(status.st_mode):
        fresh.symlink_to(source.readlink())
        _give_away(fresh, status)
    else:
        # Whoever may write in the user's folders must not have another file copied by putting a link in between.
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        with os.fdopen(os.open(source, flags), "rb") as old:
            status = os.fstat(old.fileno())
            files.clone_open_file(old, fresh, mode=0o600)
        _give_away(fresh, status)
        fresh.chmod(stat.S_IMODE(status.st_mode) & 0o777)
        os.utime(fresh, ns=(status.st_atime_ns, status.st_mtime_ns))
        descriptor = os.open(fresh, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    fresh.replace(destination)


def _make_folders(root: Path, relative: str) -> Path:
    """Make the folders of ``relative`` below ``root`` one by one, so that no link can lead out of it."""
    folder = root
    for segment in relative.split("/") if relative else ():
        folder /= segment
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            raise NotADirectoryError(
                errno.ENOTDIR, "the release has a file or link where the user has a folder", relative
            )
        if not folder.exists():
            folder.mkdir()
            files.sync_folder(folder.parent)
    return folder
