"""The name of the platform this machine runs: what the publisher wrote behind ``--platform``."""

from __future__ import annotations

import platform
import sys
from typing import Final

from instar.model.names import Name

__all__ = ["detect_platform", "platform_name"]

_SYSTEMS: Final = {"linux": "linux", "darwin": "macos", "win32": "windows"}
# Each system's own word for its machines: x86_64 is amd64 on Windows, and aarch64 is arm64 everywhere but on Linux.
_MACHINES: Final = {
    ("linux", "amd64"): "x86_64",
    ("linux", "arm64"): "aarch64",
    ("macos", "aarch64"): "arm64",
    ("macos", "amd64"): "x86_64",
    ("windows", "x86_64"): "amd64",
    ("windows", "aarch64"): "arm64",
}


def platform_name(system: str, machine: str) -> Name:
    """Give the platform's name, like ``linux-x86_64``, ``windows-amd64`` or ``macos-arm64``.

    Args:
        system: as ``sys.platform`` has it.
        machine: as ``platform.machine()`` has it, in any case.

    """
    family = _SYSTEMS.get(system, system)
    machine = machine.lower() or "unknown"
    return Name(f"{family}-{_MACHINES.get((family, machine), machine)}")


def detect_platform() -> Name:
    """Give the name of the platform this process runs on."""
    return platform_name(sys.platform, platform.machine())
