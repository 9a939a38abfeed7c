"""The health command: does the new tree start at all? Asked before it is selected."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from instar.install.appdir.port import Platform
from instar.install.record import Record
from instar.system.process import run_program

__all__ = ["find_illness"]

# How a system says that it is the program's fault that it cannot be started, not the machine's.
_PROGRAMS_FAULT: Final = frozenset(
    {errno.ENOENT, errno.EACCES, errno.ENOEXEC, errno.ENOTDIR, errno.ELOOP, errno.EISDIR}
)
_BAD_EXE: Final = 193  # ERROR_BAD_EXE_FORMAT


def find_illness(record: Record, tree: Path, platform: Platform, environment: Mapping[str, str]) -> str | None:
    """Run the health command of ``record`` in ``tree``; give why the release is ill, None when it is well.

    ``{}`` as a word of the command stands for the tree's folder.

    Raises:
        OSError: the machine cannot start programs at all just now; that says nothing about the release.

    """
    if not record.health:
        return None
    words = [record.health[0], *(str(tree) if word == "{}" else word for word in record.health[1:])]
    shown = " ".join(record.health)
    try:
        ended = run_program(
            platform.command(words, tree), folder=tree, timeout=record.health_timeout, environment=environment
        )
    except OSError as error:
        if error.errno in _PROGRAMS_FAULT or getattr(error, "winerror", None) == _BAD_EXE:
            return f"its health command {shown!r} cannot be started: {error.strerror}"
        raise
    if ended.code == 0:
        return None
    how = (
        f"did not end within {record.health_timeout:g} seconds"
        if ended.code is None
        else f"ended with code {ended.code}"
    )
    said = f" and said: {ended.output}" if ended.output else ""
    return f"its health command {shown!r} {how}{said}"
