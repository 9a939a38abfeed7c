"""Starting the app again as the version that is selected now. Only ever on the app's own demand."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from instar.errors import InstallFailed

__all__ = ["relaunch", "relaunch_command", "relaunch_environment"]


def relaunch_command(argv: Sequence[str], location: Path) -> list[str]:
    """Give the command that starts the selected version, from the one that started this process.

    Every argument that names something inside ``location/versions/<any>/`` is led to the same thing below
    ``location/current``: a process that was started through that link knows itself by where the link led *then*.
    Other arguments, and all of them in an installation in place, stay as they are.
    """
    versions = location / "versions"
    return [_through_link(argument, versions, location / "current") for argument in argv]


def _through_link(argument: str, versions: Path, current: Path) -> str:
    path = Path(argument)
    if not path.is_absolute():
        return argument
    for root in (versions, versions.resolve()):
        if path.is_relative_to(root):
            inside = path.relative_to(root).parts[1:]
            return str(current.joinpath(*inside))
    return argument


def relaunch_environment(environment: Mapping[str, str], *, frozen: bool) -> dict[str, str]:
    """Give the environment for the new process.

    A frozen app's loader leaves marks in its environment, by which it would take the new process for its own child
    and look for the old version's files; ``PYINSTALLER_RESET_ENVIRONMENT`` tells it to start afresh.
    """
    return {**environment, "PYINSTALLER_RESET_ENVIRONMENT": "1"} if frozen else dict(environment)


def own_command() -> list[str]:
    """Give the command that started this process."""
    if getattr(sys, "frozen", False):
        return [sys.executable, *sys.argv[1:]]
    # The interpreter by its own name, since orig_argv[0] may be relative to a folder that is not current any more.
    return [sys.executable, *sys.orig_argv[1:]]


def relaunch(location: Path, argv: Sequence[str] | None) -> None:
    """Replace this process by the selected version. On Windows, which cannot, start that beside it and return.

    Raises:
        InstallFailed: it could not be started; this process goes on.

    """
    command = relaunch_command(own_command() if argv is None else argv, location)
    # The one look at the environment below the command line: the new process is to get the very one we have.
    environment = relaunch_environment(os.environ, frozen=bool(getattr(sys, "frozen", False)))
    try:
        if sys.platform == "win32":
            subprocess.Popen(command, env=environment)  # noqa: S603  # the command that started this process
        else:
            os.execve(command[0], command, environment)  # noqa: S606  # the command that started this process
    except OSError as error:
        msg = f"The app could not be started again ({command[0]}: {error.strerror})."
        raise InstallFailed(msg, hint="Close it and start it by hand.") from error
