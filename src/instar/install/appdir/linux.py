"""Linux: folders are exchanged by ``renameat2`` with ``RENAME_EXCHANGE``."""

from __future__ import annotations

import ctypes
import errno
import platform
import sys
from typing import Final

from instar.install.appdir.posix import Exchange, Posix

__all__ = ["Linux", "renameat2"]

# linux/fs.h and linux/fcntl.h
_RENAME_EXCHANGE: Final = 2
_AT_FDCWD: Final = -100
# The call's number, for C libraries older than the call (glibc has it since 2.28).
_NUMBERS: Final = {
    "x86_64": 316,
    "i686": 353,
    "i386": 353,
    "aarch64": 276,
    "armv7l": 382,
    "armv6l": 382,
    "riscv64": 276,
    "ppc64le": 357,
    "s390x": 347,
    "loongarch64": 276,
}
# How kernels, file systems and sandboxes say that they do not know the call or the flag. EPERM is what some sandboxes
# answer to calls they have not heard of; if it was meant, plain renames will say so too.
_CANNOT: Final = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM})


def renameat2(first: bytes, second: bytes) -> int:
    """Exchange two paths; give 0, or the error number (ENOSYS where there is no such call)."""
    library = ctypes.CDLL(None, use_errno=True)
    arguments = (_AT_FDCWD, ctypes.c_char_p(first), _AT_FDCWD, ctypes.c_char_p(second), ctypes.c_uint(_RENAME_EXCHANGE))
    if hasattr(library, "renameat2"):
        result = library.renameat2(*arguments)
    elif (number := _system_call()) is not None:
        result = library.syscall(ctypes.c_long(number), *arguments)
    else:
        return errno.ENOSYS
    return ctypes.get_errno() if result else 0


def _system_call() -> int | None:
    machine = platform.machine()
    if machine == "x86_64" and sys.maxsize < 1 << 32:
        machine = "i686"  # a 32-bit interpreter under a 64-bit kernel
    return _NUMBERS.get(machine)


class Linux(Posix):
    """The platform. ``exchange`` is the system call, to be replaced by another where it is to be seen to fail."""

    def __init__(self, exchange: Exchange = renameat2) -> None:
        super().__init__(exchange, cannot=_CANNOT)
