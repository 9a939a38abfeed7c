"""The declared surface: adding a public name is a decision, and shows here."""

import importlib
import pkgutil
from types import ModuleType

import pytest

import instar

PUBLIC = {
    "Busy",
    "Cancelled",
    "Config",
    "Conflict",
    "Connection",
    "Expired",
    "Finding",
    "InstallFailed",
    "InstarError",
    "Misconfigured",
    "NotFound",
    "Phase",
    "Progress",
    "Reason",
    "Staged",
    "Start",
    "Status",
    "Unavailable",
    "Untrusted",
    "Update",
    "Updater",
    "Version",
    "adopt",
    "confirm",
    "find_installation",
    "first_install",
    "forget_failures",
    "repair",
    "restart",
    "rollback",
    "startup",
    "status",
    "uninstall",
}
PACKAGES = [module.name for module in pkgutil.walk_packages(instar.__path__, "instar.") if "hook-" not in module.name]


def test_the_public_names_of_instar_are_these() -> None:
    assert set(instar.__all__) == PUBLIC


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_every_public_name_exists_and_is_documented(name: str) -> None:
    assert getattr(instar, name).__doc__


@pytest.mark.parametrize("name", [name for name in PACKAGES if not name.endswith("__main__")])
def test_every_module_says_what_it_is_and_declares_only_what_it_has(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__
    assert missing(module) == []


def missing(module: ModuleType) -> list[str]:
    return [name for name in getattr(module, "__all__", []) if not hasattr(module, name)]
