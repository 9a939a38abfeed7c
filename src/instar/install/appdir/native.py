"""The one place where the platform is chosen."""

from __future__ import annotations

import sys

from instar.install.appdir.port import Platform

__all__ = ["native_platform"]

# Only the module of the platform at hand is imported: each uses what the others lack.
if sys.platform == "win32":
    from instar.install.appdir.windows import Windows as _Native
elif sys.platform == "darwin":
    from instar.install.appdir.macos import MacOS as _Native
else:
    from instar.install.appdir.linux import Linux as _Native


def native_platform() -> Platform:
    """Give the platform that this process runs on."""
    return _Native()
