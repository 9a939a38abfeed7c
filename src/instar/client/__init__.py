"""The device's half: find an update, fetch it, build it, hand it to the installer; start, confirm, repair.

This ships inside people's apps, so it is light. It never prints, asks, ends the process or configures logging.
"""

from instar.client.config import Config, Connection
from instar.client.here import Contact, load_config
from instar.client.lifecycle import (
    Start,
    Status,
    confirm,
    find_installation,
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
    "load_config",
    "repair",
    "restart",
    "rollback",
    "startup",
    "status",
    "uninstall",
]
