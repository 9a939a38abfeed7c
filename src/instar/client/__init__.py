"""The device's half: find an update, fetch it, build it, hand it to the installer; start, confirm, repair.

This ships inside people's apps, so it is light, and lighter still at an app's start: a name is loaded when it is first
used, and what ``startup`` and ``confirm`` need has no cryptography and no HTTP in it. Nothing here prints, asks, ends
the process or configures logging.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from instar.client.config import Config, Connection
    from instar.client.here import Contact, load_config
    from instar.client.lifecycle import (
        Start,
        Status,
        confirm,
        find_installation,
        forget_failures,
        restart,
        rollback,
        startup,
        status,
    )
    from instar.client.maintenance import Adopted, FirstInstall, Repaired, adopt, first_install, repair, uninstall
    from instar.client.updater import Direction, Finding, Outcome, Staged, Update, Updater

__all__ = [
    "Adopted",
    "Config",
    "Connection",
    "Contact",
    "Direction",
    "Finding",
    "FirstInstall",
    "Outcome",
    "Repaired",
    "Staged",
    "Start",
    "Status",
    "Update",
    "Updater",
    "adopt",
    "confirm",
    "find_installation",
    "first_install",
    "forget_failures",
    "load_config",
    "repair",
    "restart",
    "rollback",
    "startup",
    "status",
    "uninstall",
]

_MODULES: Final = {
    "config": ("Config", "Connection"),
    "here": ("Contact", "load_config"),
    "lifecycle": (
        "Start",
        "Status",
        "confirm",
        "find_installation",
        "forget_failures",
        "restart",
        "rollback",
        "startup",
        "status",
    ),
    "maintenance": ("Adopted", "FirstInstall", "Repaired", "adopt", "first_install", "repair", "uninstall"),
    "updater": ("Direction", "Finding", "Outcome", "Staged", "Update", "Updater"),
}


def __getattr__(name: str) -> object:
    """Load a public name when it is first used."""
    for module, names in _MODULES.items():
        if name in names:
            value = getattr(importlib.import_module(f"instar.client.{module}"), name)
            globals()[name] = value
            return value
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return sorted(__all__)
