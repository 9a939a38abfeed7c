"""macOS: folders are exchanged by ``renamex_np`` with ``RENAME_SWAP`` (APFS; older file systems cannot)."""

from __future__ import annotations

import ctypes
import errno
from typing import Final

from instar.install.appdir.posix import Exchange, Posix

__all__ = ["MacOS", "renamex_np"]

_RENAME_SWAP: Final = 2  # sys/stdio.h
_CANNOT: Final = frozenset({errno.ENOTSUP, errno.EINVAL, errno.ENOSYS})


def renamex_np(first: bytes, second: bytes) -> int:
    """Exchange two paths; give 0, or the error number (ENOSYS before macOS 10.12)."""
    library = ctypes.CDLL(None, use_errno=True)
    if not hasattr(library, "renamex_np"):
        return errno.ENOSYS
    result = library.renamex_np(ctypes.c_char_p(first), ctypes.c_char_p(second), ctypes.c_uint(_RENAME_SWAP))
    return ctypes.get_errno() if result else 0


class MacOS(Posix):
    """The platform. ``exchange`` is the system call, to be replaced by another where it is to be seen to fail."""

    def __init__(self, exchange: Exchange = renamex_np) -> None:
        super().__init__(exchange, cannot=_CANNOT)
