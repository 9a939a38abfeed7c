"""Software updates that cannot be forged, cannot break the machine, and cost almost nothing to ship.

What an app needs, in the order it needs it::

    import instar

    config = instar.Config(
        product="myapp",
        url="https://updates.example.com/",
        root=ROOT_JSON,  # the bytes of root.json, shipped inside the app
        location=instar.find_installation(),
    )

    if instar.startup(config).restart_needed:  # at the top of main: finishes or undoes what was begun
        instar.restart(config)
    ...  # the app comes up
    instar.confirm(config)  # it works: keep this version

    updater = instar.Updater(config)  # later, in a worker thread
    update = updater.check()
    if update is not None:
        staged = updater.download(update)
        staged.install(when="next-start")

Every error is an :class:`InstarError` of one of five families, by what the caller may do about it. Nothing here
prints, asks, ends the process or configures logging. Importing this module costs next to nothing: a name is loaded
when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from instar.client import (
        Config,
        Connection,
        Finding,
        Staged,
        Start,
        Status,
        Update,
        Updater,
        adopt,
        confirm,
        find_installation,
        first_install,
        forget_failures,
        repair,
        restart,
        rollback,
        startup,
        status,
        uninstall,
    )
    from instar.errors import (
        Busy,
        Cancelled,
        Conflict,
        Expired,
        InstallFailed,
        InstarError,
        Misconfigured,
        NotFound,
        Unavailable,
        Untrusted,
    )
    from instar.model.progress import Phase, Progress
    from instar.model.version import Version
    from instar.policy.select import Reason

__all__ = [
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
]

_ERRORS: Final = frozenset(
    {
        "Busy",
        "Cancelled",
        "Conflict",
        "Expired",
        "InstallFailed",
        "InstarError",
        "Misconfigured",
        "NotFound",
        "Unavailable",
        "Untrusted",
    },
)
_ELSEWHERE: Final = {
    **dict.fromkeys(_ERRORS, "instar.errors"),
    "Phase": "instar.model.progress",
    "Progress": "instar.model.progress",
    "Reason": "instar.policy.select",
    "Version": "instar.model.version",
}


def __getattr__(name: str) -> object:
    """Load a public name when it is first used: `import instar` alone must not cost an app's start anything."""
    if name not in __all__:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    value = getattr(importlib.import_module(_ELSEWHERE.get(name, "instar.client")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
