"""What of this process's environment its children need. Everything else would be somebody else's influence on them.

The one place below the command line that reads the environment, as a default that a caller can replace.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

__all__ = ["own_environment", "plain_environment"]

_PLAIN: Final = frozenset(
    {
        # Who and where: POSIX, then Windows.
        *("HOME", "LANG", "LANGUAGE", "LOGNAME", "PATH", "SHELL", "TMPDIR", "TZ", "USER"),
        *("APPDATA", "COMSPEC", "LOCALAPPDATA", "PATHEXT", "PROGRAMDATA", "PROGRAMFILES", "SYSTEMDRIVE", "SYSTEMROOT"),
        *("TEMP", "TMP", "USERNAME", "USERPROFILE", "WINDIR"),
        # A display to come up on.
        *("DBUS_SESSION_BUS_ADDRESS", "DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY"),
    },
)
_PLAIN_BEGINNINGS: Final = ("LC_", "XDG_", "QT_QPA_")


def plain_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Give what a program needs to start as it would from a user's desktop.

    What a frozen app's loader put there for the app itself (library paths of the *old* version) is left out.
    """
    return {
        name: value
        for name, value in environment.items()
        if name.upper() in _PLAIN or name.upper().startswith(_PLAIN_BEGINNINGS)
    }


def own_environment() -> dict[str, str]:
    """Give the plain part of this process's environment."""
    return plain_environment(os.environ)
